"""Real pictures that come with installed packages, so that a demo or a test needs no network.

``PICTURES`` says what there is, where it is from and under which licence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import color, data, transform
from torch import Generator, Tensor

from gradleak.errors import InvalidInput, NotInstalled
from gradleak.randomness import generator, spawn
from gradleak.zoo.building import SEEDS, SMALLEST, one_of, whole

_LARGEST = 4096  # a side; beyond, a typing error would ask for terabytes

Picture = NDArray[Any]  # height x width, or height x width x 3, in [0, 1], at its own size

# some of scikit-image's functions have no types of their own
_resize: Callable[..., Picture] = transform.resize
_lfw_subset: Callable[[], Picture] = data.lfw_subset


@dataclass(frozen=True)
class PictureSet:
    """One named collection; ``read(n, seed)`` gives n pictures at their own size and their labels."""

    description: str
    source: str
    licence: str
    count: int
    classes: int
    channels: int
    read: Callable[[int, int], tuple[list[Picture], list[int]]]
    crops: bool = False  # pictures with one label are crops of one photograph, and may overlap


def pictures(
    name: str, *, size: int = 32, n: int | None = None, channels: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The first ``n`` pictures of a set (all when None), in [0, 1] at ``size`` x ``size``, and their labels.

    ``seed`` chooses the order, and for photographs the crops; ``size`` changes neither, and fewer pictures
    are always the first of more. With seed 0, faces and digits come in their data set's own order.
    """
    one_of("name", name, PICTURES)
    chosen = PICTURES[name]
    n = chosen.count if n is None else n
    channels = chosen.channels if channels is None else channels
    whole("size", size, SMALLEST, _LARGEST)
    whole("seed", seed, 0, SEEDS)
    whole("n", n, 1)
    if n > chosen.count:
        raise InvalidInput(f"n must be at most {chosen.count} for {name!r}, which holds no more; got {n}")
    whole("channels", channels, 1)
    one_of("channels", channels, (1, 3))
    found, labels = chosen.read(n, seed)
    return torch.stack([_fitted(picture, size, channels) for picture in found]), torch.tensor(labels)


def public(name: str, private: int, *, size: int = 32, channels: int | None = None) -> Tensor | None:
    """What shares nothing with the first ``private`` pictures of a set; None where nothing is left.

    For a null that must not know what is private: the other faces or digits, and of the photographs the
    crops of those that no private crop is of. There are six, so from six private crops on there is none.
    """
    x, labels = pictures(name, size=size, channels=channels)
    whole("private", private, 0, len(x))
    other = torch.arange(len(x)) >= private
    if PICTURES[name].crops:
        other &= ~torch.isin(labels, labels[:private])
    return x[other] if bool(other.any()) else None


def _fitted(picture: Picture, size: int, channels: int) -> Tensor:
    """Cubic, as linear enlargement would leave a small picture nothing sharp to leak."""
    small = _resize(picture, (size, size), order=3, anti_aliasing=size < picture.shape[0])
    if small.ndim == 2:
        small = small[..., None]
    if channels == 1 and small.shape[-1] == 3:
        small = color.rgb2gray(small)[..., None]
    planes = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1))).float().clamp(0, 1)
    return planes.repeat(channels // planes.shape[0], 1, 1)


def _order(count: int, n: int, seed: int) -> list[int]:
    if seed == 0:
        return list(range(n))
    return [int(i) for i in torch.randperm(count, generator=generator(seed))[:n]]


def _faces(n: int, seed: int) -> tuple[list[Picture], list[int]]:
    # the second hundred of the subset are pieces of background
    order = _order(PICTURES["faces"].count, n, seed)
    found = _lfw_subset()
    return [found[i] for i in order], order


def _digits(n: int, seed: int) -> tuple[list[Picture], list[int]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as missing:
        raise NotInstalled("the digits come with scikit-learn: pip install gradleak[digits]") from missing
    found, order = load_digits(), _order(PICTURES["digits"].count, n, seed)
    return [found.images[i] / 16 for i in order], [int(found.target[i]) for i in order]


@dataclass(frozen=True)
class _Photo:
    """A photograph, the box (top, left, bottom, right) in which something is seen, and its crops' sides."""

    read: Callable[[], Picture]
    box: tuple[int, int, int, int]
    sides: tuple[int, int]


_PHOTOS = (
    _Photo(data.astronaut, (0, 70, 290, 370), (150, 280)),
    _Photo(data.chelsea, (0, 60, 300, 400), (180, 300)),
    _Photo(data.coffee, (0, 50, 400, 530), (180, 400)),
    _Photo(data.rocket, (110, 140, 427, 500), (140, 300)),
    _Photo(data.retina, (350, 30, 1050, 650), (320, 600)),
    _Photo(data.hubble_deep_field, (0, 0, 872, 1000), (50, 110)),
)
_TRIES = 4


def _photos(n: int, seed: int) -> tuple[list[Picture], list[int]]:
    """One crop of each photograph, then a second of each, and so on: a small batch shows many of them."""
    labels = [i % len(_PHOTOS) for i in range(n)]
    rngs = spawn(seed, len(_PHOTOS))
    originals = [photo.read() / 255 for photo in _PHOTOS[:n]]
    return [_crop(originals[i], _PHOTOS[i], rngs[i]) for i in labels], labels


def _crop(picture: Picture, photo: _Photo, rng: Generator) -> Picture:
    """The liveliest of a few random squares, so that none is a piece of empty sky."""
    squares = [_square(picture, photo, rng) for _ in range(_TRIES)]
    return max(squares, key=lambda square: float(square.std()))


def _square(picture: Picture, photo: _Photo, rng: Generator) -> Picture:
    top, left, bottom, right = photo.box
    side = _between(*photo.sides, rng)
    y, x = _between(top, bottom - side, rng), _between(left, right - side, rng)
    return picture[y : y + side, x : x + side]


def _between(low: int, high: int, rng: Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=rng))


PICTURES = {
    "faces": PictureSet(
        description="100 faces, grey, 25x25; each is its own class",
        source="scikit-image's lfw_subset, from Labeled Faces in the Wild",
        licence="none stated; LFW is published for research",
        count=100,
        classes=100,
        channels=3,
        read=_faces,
    ),
    "photos": PictureSet(
        description="60 square crops of 6 colour photographs; the photograph is the class",
        source="scikit-image: astronaut, chelsea, coffee, rocket, retina, hubble_deep_field",
        licence="CC0 (chelsea, coffee, retina) and public domain (astronaut, rocket, hubble_deep_field)",
        count=60,
        classes=len(_PHOTOS),
        channels=3,
        read=_photos,
        crops=True,
    ),
    "digits": PictureSet(
        description="1797 handwritten digits, grey, 8x8",
        source="scikit-learn's load_digits, from the UCI repository",
        licence="CC BY 4.0",
        count=1797,
        classes=10,
        channels=1,
        read=_digits,
    ),
}
