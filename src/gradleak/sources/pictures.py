"""Pictures: a bundled set by name, or files of your own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from gradleak.errors import InvalidInput

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Source:
    """Which pictures were asked for."""

    data: str
    size: int
    first: int
    channels: int | None

    def read(self, n: int) -> tuple[Tensor, Tensor]:
        return pictures(self.data, size=self.size, first=self.first, n=n, channels=self.channels)

    def public(self, n: int) -> Tensor | None:
        """What a null may know beside ``n`` private pictures: those of the set that come after them."""
        from gradleak import zoo

        if self.data not in zoo.PICTURES:
            return None
        return zoo.public(self.data, self.first + n, size=self.size, channels=self.channels)


def pictures(data: str, *, size: int, first: int, n: int, channels: int | None) -> tuple[Tensor, Tensor]:
    """``n`` pictures from the ``first`` on, with labels.

    ``data`` is a bundled name, a picture, or a folder; in a folder of folders, each folder is a class.
    """
    from gradleak import zoo

    path = Path(data)
    if data in zoo.PICTURES or not path.exists():
        x, y = zoo.pictures(data, size=size, n=first + n, channels=channels)
        return x[first:], y[first:]
    files, labels = picture_files(path)
    chosen = files[first : first + n]
    if len(chosen) < n:
        raise InvalidInput(
            f"expected {n} pictures from --first {first} on; {data} holds {len(files)} pictures. "
            "Ask for fewer."
        )
    x = torch.stack([picture(file, size, channels or 3) for file in chosen])
    return x, torch.tensor(labels[first : first + n])


def count(data: str) -> int:
    """How many picture files there are."""
    path = Path(data)
    if not path.exists():
        pictures(data, size=32, first=0, n=1, channels=None)  # says what there is instead
    return len(picture_files(path)[0])


def picture_files(path: Path) -> tuple[list[Path], list[int]]:
    """In the order of their names, with a number for each folder that holds some."""
    if path.is_file():
        return [path], [0]
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _ENDINGS and f.is_file())
    classes = sorted({file.parent for file in files})
    return files, [classes.index(file.parent) for file in files]


def picture(file: Path, size: int, channels: int) -> Tensor:
    """The middle square of a picture as it is meant to be seen, in [0, 1]."""
    if channels not in (1, 3):
        raise InvalidInput(f"picture files are read with 1 or 3 channels; came {channels}")
    try:
        with Image.open(file) as opened:
            opened.verify()  # a file that breaks off after its pixels is no whole picture either
        with Image.open(file) as opened:
            picture = _seen(opened, "RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{file} cannot be read as a picture: {error}") from error
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    picture = picture.crop((left, top, left + side, top + side)).resize(
        (size, size), Image.Resampling.LANCZOS
    )
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).clamp(0, 1)
    return pixels.expand(channels, -1, -1) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _seen(opened: Image.Image, mode: str) -> Image.Image:
    """Upright, on white where it is transparent, and gray of 16 bits brought to 255 with its fractions."""
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I;16"):
        # Pillow's own conversion would cut off at 255 what reaches to 65535.
        return Image.fromarray(np.asarray(upright).astype(np.float32) * (255 / 65535))
    if upright.mode in ("I", "F"):
        raise ValueError("its values have 32 bits and no stated range; save it with 8 or 16 bits")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        over = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return upright.convert(mode)
