import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from report_findings import finding, findings
from torch import Tensor

from gradleak.report import contact_sheet
from gradleak.report.pictures import data_uri, png
from gradleak.report.sheet import PER_SHEET, SIDE


def packed(pixels: np.ndarray) -> np.ndarray:
    """One number per pixel, to search by."""
    return pixels.astype(np.int64) @ np.array([65536, 256, 1])


def decoded(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)))


def enlarged(picture: Tensor, scale: int) -> np.ndarray:
    """The slow twin: every pixel by hand."""
    _, h, w = picture.shape
    planes = picture.tolist()
    out = np.zeros((h * scale, w * scale, 3), dtype=np.uint8)
    for y in range(h * scale):
        for x in range(w * scale):
            for c in range(3):
                plane = planes[c if len(planes) == 3 else 0]
                out[y, x, c] = round(255 * plane[y // scale][x // scale])
    return packed(out)


def places(sheet: np.ndarray, block: np.ndarray) -> list[tuple[int, int]]:
    h, w = block.shape
    starts = np.argwhere(sheet[: -h + 1, : -w + 1] == block[0, 0])
    return [(int(y), int(x)) for y, x in starts if np.array_equal(sheet[y : y + h, x : x + w], block)]


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 16, 10)])
def test_true_and_recovered_stand_side_by_side_pixel_for_pixel(shape):
    one = finding(shape=shape, seed=3)
    assert one.guess is not None
    sheet = packed(decoded(contact_sheet(findings(one))))
    scale = SIDE // max(shape)
    true, recovered = (places(sheet, enlarged(p, scale)) for p in (one.truth, one.guess))
    assert len(true) == len(recovered) == 1
    assert true[0][0] == recovered[0][0]
    assert recovered[0][1] >= true[0][1] + scale * shape[2]


def test_pictures_of_32_pixels_are_clearly_visible():
    sheet = packed(decoded(contact_sheet(findings(finding()))))
    assert places(sheet, enlarged(finding().truth, 4))


def test_the_most_exposed_come_first_and_no_more_than_a_sheet_holds():
    many = [finding(shape=(3, 8, 8), seed=i, psnr=float(i)) for i in range(PER_SHEET + 3)]
    sheet = packed(decoded(contact_sheet(findings(*many))))
    at = [places(sheet, enlarged(one.truth, SIDE // 8)) for one in many]
    assert [len(place) for place in at] == 3 * [0] + PER_SHEET * [1]
    order = [place[0] for place in reversed(at) if place]
    assert order == sorted(order)
    assert len({y for y, _ in order}) == PER_SHEET // 4


def test_a_sheet_grows_with_its_verdict_and_not_beyond_its_pictures():
    short, long = (decoded(contact_sheet(findings(finding(), attack=a))) for a in ("dlg", "w " * 200))
    assert long.shape[1] == short.shape[1]
    assert long.shape[0] > short.shape[0]


def test_what_has_no_number_or_no_picture_still_gets_its_place():
    odd = findings(
        finding(guess=None, psnr=-math.inf, null_psnr=-math.inf, outcome="not_applicable"),
        finding(psnr=math.inf, name="two\nlines and a very long name " * 9),
        finding(psnr=math.nan, shape=(5,)),
        finding(shape=(2, 300, 700)),
        interrupted=True,
    )
    assert decoded(contact_sheet(odd)).shape[2] == 3


def test_a_png_gives_back_what_was_put_in():
    gray, colour = torch.rand(1, 5, 7), torch.rand(3, 5, 7)
    for picture in (gray, colour):
        content = png(picture)
        assert content is not None
        read = torch.from_numpy(decoded(content)).reshape(5, 7, -1).permute(2, 0, 1)
        assert torch.equal(read, (255 * picture).round().to(torch.uint8))
        assert data_uri(content).startswith("data:image/png;base64,iVBOR")


def test_channels_without_colours_are_shown_as_their_mean_and_wild_values_clamped():
    assert png(torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])) == png(torch.full((1, 4, 4), 0.5))
    wild = torch.tensor([[[math.nan, math.inf, -math.inf, 7.0]]])
    assert png(wild) == png(torch.tensor([[[0.5, 1.0, 0.0, 1.0]]]))
    assert png(torch.rand(3, 4)) is None
    assert png(torch.rand(3, 0, 4)) is None
