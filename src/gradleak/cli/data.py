"""Pictures for a capture: a bundled set by name, or files of your own."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gradleak.errors import InvalidInput

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def pictures(data: str, *, size: int, first: int, n: int, channels: int | None) -> tuple[Tensor, Tensor]:
    """``n`` pictures from the ``first`` on, with labels.

    ``data`` is a bundled name, a picture, or a folder; in a folder of folders, each folder is a class.
    """
    from gradleak import zoo

    path = Path(data)
    if data in zoo.PICTURES or not path.exists():
        x, y = zoo.pictures(data, size=size, n=first + n, channels=channels)
        return x[first:], y[first:]
    files, labels = _files(path)
    chosen = files[first : first + n]
    if len(chosen) < n:
        raise InvalidInput(f"{data} holds {len(files)} pictures; came --first {first} and --batch {n}")
    x = torch.stack([_read(file, size, channels or 3) for file in chosen])
    return x, torch.tensor(labels[first : first + n])


def _files(path: Path) -> tuple[list[Path], list[int]]:
    if path.is_file():
        return [path], [0]
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _ENDINGS and f.is_file())
    classes = sorted({file.parent for file in files})
    return files, [classes.index(file.parent) for file in files]


def _read(file: Path, size: int, channels: int) -> Tensor:
    """The middle square of a picture, in [0, 1]."""
    if channels not in (1, 3):
        raise InvalidInput(f"picture files are read with 1 or 3 channels; came {channels}")
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB" if channels == 3 else "L")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{file} cannot be read as a picture: {error}") from error
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    picture = picture.crop((left, top, left + side, top + side)).resize(
        (size, size), Image.Resampling.LANCZOS
    )
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)
