"""A forecast's page, figures and numbers: what they say, and that they hold no picture."""

import dataclasses
import json
import re
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

import gradleak as gl
from gradleak.report.forecast import MOST, figure, page, write_forecast
from gradleak.risk import Forecast


def forecast(n: int, noise: float = 3e-3, layers: bool = True) -> Forecast:
    x, y = gl.zoo.pictures("digits", size=8, n=n)
    return gl.predict(gl.zoo.lenet(10, 1, 8, seed=0), x, y, noise=noise, layers=layers)


@pytest.fixture(scope="module")
def found() -> Forecast:
    return forecast(3)


def words(html: str) -> str:
    return " ".join(re.sub(r"<style.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def test_the_files_are_whole_and_their_owners(found: Forecast, tmp_path: Path) -> None:
    written = write_forecast(found, tmp_path / "a")
    assert [path.name for path in written] == ["risk.html", "risk.png", "risk.svg", "risk.json"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)
    assert json.loads(written[3].read_text()) == json.loads(json.dumps(found.to_dict()))
    again = write_forecast(found, tmp_path / "b")
    assert [a.read_bytes() for a in written] == [b.read_bytes() for b in again]


def test_the_page_says_every_number_and_loads_nothing(found: Forecast) -> None:
    html = page(found, b"png", "a <title>")
    text = words(html)
    assert "a &lt;title&gt;" in html
    assert 'src="data:image/png;base64,' in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    for i in found.order:
        one = found.samples[i]
        assert f"{i + 1} {one.verdict} {one.psnr:.0f} {one.null_psnr:.0f}" in text
        assert one.reasons[0] in text
    for layer in found.layers:
        assert f"{layer.path} {' '.join(f'{v:.0f}' for v in layer.psnr.tolist())}" in text
    assert "holds no pictures" in text


def test_the_figure_has_room_for_a_row_per_layer_and_a_column_per_sample(found: Forecast) -> None:
    def size(one: Forecast) -> tuple[int, int]:
        return Image.open(BytesIO(figure(one, "png"))).size

    three, without, many = size(found), size(forecast(3, layers=False)), size(forecast(MOST + 2, noise=1.0))
    assert without[1] < three[1]
    assert three[0] < many[0]
    text = figure(found, "svg").decode()
    assert text.startswith("<?xml")
    assert "<dc:date>" not in text


def test_numbers_that_are_none_are_drawn_all_the_same(tmp_path: Path) -> None:
    import torch

    gray = torch.full((2, 1, 8, 8), 0.5)
    model = gl.zoo.lenet(10, 1, 8, seed=0)
    found = gl.predict(model, gray, torch.tensor([0, 1]), noise=1e6)
    html = page(found, figure(found, "png"), "gray")
    assert "∞" in html
    write_forecast(found, tmp_path)


def test_what_is_not_settled_is_hatched_and_explained(found: Forecast) -> None:
    import torch

    def settled_or_not(at_most: bool) -> Forecast:
        row = dataclasses.replace(found.layers[0], path="0", kind="Conv2d", psnr=torch.full((3,), 105.0))
        return dataclasses.replace(found, layers=(dataclasses.replace(row, at_most=at_most),))

    settled, open_row = settled_or_not(False), settled_or_not(True)
    svg = {one: figure(one, "svg").decode() for one in (settled, open_row)}
    assert "<pattern" in svg[open_row]
    assert "<pattern" not in svg[settled]
    html = page(open_row, b"png", "a title")
    assert "0 (Conv2d) ≤105 ≤105 ≤105" in words(html)
    assert '<td class="number yes">≤' not in html
    assert '<td class="number yes">105' in page(settled, b"png", "a title")
    assert "? is unknown" in html
