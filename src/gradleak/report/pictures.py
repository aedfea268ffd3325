"""Tensors as PNG files and as the data: URIs that let a page carry its own pictures."""

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

RGB = 3


def image(picture: Tensor) -> Image.Image | None:
    """[C, H, W] in [0, 1]; None for data of any other shape, which nobody could look at.

    Channels other than 1 or 3 have no colours of their own: their mean is shown, in gray.
    """
    if picture.ndim != 3 or 0 in picture.shape:
        return None
    planes = picture.detach().float().cpu().nan_to_num(nan=0.5, posinf=1.0, neginf=0.0).clamp(0, 1)
    if planes.shape[0] != RGB:
        planes = planes.mean(0, keepdim=True)
    pixels = (255 * planes).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels if planes.shape[0] == RGB else pixels[..., 0]))


def png(picture: Tensor) -> bytes | None:
    shown = image(picture)
    return None if shown is None else encoded(shown)


def encoded(shown: Image.Image) -> bytes:
    file = io.BytesIO()
    shown.save(file, format="PNG", optimize=True)
    return file.getvalue()


def data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
