"""Private records: pictures by name or in folders, arrays in a file, or what code hands over."""

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gradleak.errors import GradleakError, InvalidInput
from gradleak.observe.domain import Domain
from gradleak.randomness import generator
from gradleak.sources.models import builder, cause
from gradleak.sources.pictures import picture, picture_files

SIZE = 32
"""Height and width at which pictures are read, unless said."""

_NEAR = 1e-3  # how far a pixel may lie outside [0, 1] by rounding: a quarter of a step of 255


@dataclass(frozen=True, eq=False)
class Records:
    """``x`` as the model takes it, a class index for each, and what one calls them.

    ``classes`` is how many the source has, 0 where it does not say, and ``public`` what a null may know:
    pixels of the same kind that are nobody's private ones.
    """

    x: Tensor
    y: Tensor
    names: tuple[str, ...]
    classes: int
    class_names: Mapping[int, str] = field(default_factory=dict)
    public: Tensor | None = None


@dataclass(frozen=True)
class Wanted:
    """Which records of a source: ``n`` from the ``first`` on. Size and channels are those of pictures."""

    n: int
    first: int = 0
    size: int | None = None
    channels: int | None = None
    domain: Domain = field(default_factory=Domain)
    seed: int = 0

    @property
    def end(self) -> int:
        return self.first + self.n


def read(source: str, wanted: Wanted, *, folder: Path = Path()) -> Records:
    """The records of a bundled set, a folder or file in ``folder``, or of ``module:callable``.

    Numbers with a fraction are taken as the model takes them; whole numbers from 0 to 255 and pictures are
    brought to [0, 1] and through the normalization of ``wanted``.
    """
    from gradleak import zoo

    path = folder / source
    if source in zoo.PICTURES:
        found = _bundled(source, wanted)
    elif ":" in source and not path.exists():
        found = _called(source, wanted)
    elif not path.exists():
        raise InvalidInput(_nothing_there(source, path))
    elif path.suffix == ".npz":
        found = _checked(source, *_npz(path), wanted)
    elif path.suffix == ".safetensors":
        found = _checked(source, *_safetensors(path), wanted)
    else:
        found = _in_folder(source, path, wanted)
    return _in_range(source, found, wanted.domain)


# Pictures.


def _bundled(source: str, wanted: Wanted) -> Records:
    from gradleak import zoo

    known = zoo.PICTURES[source]
    _require_enough(source, known.count, wanted)
    size = wanted.size or SIZE
    x, y = zoo.pictures(source, size=size, n=wanted.end, channels=wanted.channels)
    return Records(
        wanted.domain.from_pixels(x[wanted.first :]),
        y[wanted.first :],
        _numbered(source.removesuffix("s"), wanted),
        known.classes,
        public=zoo.public(source, wanted.end, size=size, channels=wanted.channels),
    )


def _in_folder(source: str, path: Path, wanted: Wanted) -> Records:
    """One picture of each class, then a second of each, and so on: a small batch shows many classes."""
    files, labels = picture_files(path)
    if not files:
        raise InvalidInput(
            f"expected a folder with pictures in it, or with a folder for each class; {source} holds none. "
            "Pictures are .png, .jpg and the like"
        )
    _require_enough(source, len(files), wanted)
    seen: dict[int, int] = {}
    turns = []
    for label in labels:
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    order = sorted(range(len(files)), key=lambda i: (turns[i], labels[i]))[wanted.first : wanted.end]
    x = torch.stack([picture(files[i], wanted.size or SIZE, wanted.channels or 3) for i in order])
    root = path if path.is_dir() else path.parent
    called = {
        label: file.parent.relative_to(root).as_posix() for file, label in zip(files, labels, strict=True)
    }
    return Records(
        wanted.domain.from_pixels(x),
        torch.tensor([labels[i] for i in order]),
        tuple(files[i].relative_to(root).as_posix() for i in order),
        len(seen),
        {label: name for label, name in called.items() if name != "."},
    )


def _nothing_there(source: str, path: Path) -> str:
    from gradleak import zoo

    beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(source, zoo.PICTURES, n=1) or get_close_matches(path.name, beside, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return (
        f"expected {', '.join(zoo.PICTURES)}, a folder of pictures, an .npz or .safetensors file, or "
        f"module:callable; came '{source}', and there is nothing at {path}{hint}"
    )


# Arrays in a file.


def _npz(path: Path) -> tuple[Any, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            _require_names(path, names)
            return file["x"], file["y"]
    except InvalidInput:
        raise
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        pickled = "allow_pickle" in str(error)
        why = "it holds Python objects, which are never unpickled" if pickled else f"{error}"
        raise InvalidInput(
            f"expected an .npz with arrays x and y of numbers; {path.name} cannot be read: {why}"
        ) from error


def _safetensors(path: Path) -> tuple[Any, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            _require_names(path, list(file.keys()))
            return file.get_tensor("x"), file.get_tensor("y")
    except (OSError, SafetensorError) as error:
        raise InvalidInput(
            f"expected a .safetensors with tensors x and y; {path.name} cannot be read: {error}"
        ) from error


def _require_names(path: Path, names: list[str]) -> None:
    missing = [name for name in ("x", "y") if name not in names]
    if missing:
        came = ", ".join(names[:8]) or "nothing"
        raise InvalidInput(
            f"expected x, the records, and y, their labels; {path.name} holds {came}, and "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )


def _checked(source: str, x: Any, y: Any, wanted: Wanted) -> Records:
    """All the labels, and the records that are wanted."""
    records, labels = _tensor("x", x), _labels(_tensor("y", y))
    if records.dim() < 2 or 0 in records.shape[1:]:
        raise InvalidInput(
            "expected x with the record first, such as [n, channels, height, width]; came "
            f"{list(records.shape)}"
        )
    if len(labels) != len(records):
        raise InvalidInput(f"expected a label for each record; came {len(labels)} for {len(records)}")
    _require_enough(source, len(records), wanted)
    return Records(
        _as_taken(records[wanted.first : wanted.end], wanted.domain),
        labels[wanted.first : wanted.end],
        _numbered("record", wanted),
        int(labels.max()) + 1,
    )


def _tensor(what: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    try:
        array = np.asarray(value)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=False))
    except (TypeError, ValueError):
        kind = getattr(value, "dtype", type(value).__name__)
        raise InvalidInput(f"expected {what} as numbers; came {kind}") from None


def _labels(y: Tensor) -> Tensor:
    if y.is_floating_point() or y.is_complex() or y.dtype is torch.bool or y.dim() != 1:
        raise InvalidInput(
            "expected y as class indices, one whole number for each record; came "
            f"{_kind(y)} of shape {list(y.shape)}"
        )
    if not len(y):
        raise InvalidInput("expected records; came none")
    whole = y.long()
    if int(whole.min()) < 0:
        raise InvalidInput(f"expected labels from 0 up; came {int(whole.min())}")
    return whole


def _as_taken(x: Tensor, domain: Domain) -> Tensor:
    if x.dtype is torch.uint8:
        return domain.from_pixels(x.float() / 255)
    if not x.is_floating_point():
        raise InvalidInput(
            f"expected x as numbers with a fraction, or as uint8 from 0 to 255; came {_kind(x)}"
        )
    return x.float()


def _in_range(source: str, found: Records, domain: Domain) -> Records:
    """Pixels outside [0, 1] would be cut off by whoever compares a guess with them."""
    last = found.x.shape[-1]
    if found.x.dim() == 4 and found.x.shape[1] not in (1, 3) and last in (1, 3):
        raise InvalidInput(
            f"expected x as [n, channels, height, width]; {source} has its channels last, "
            f"{list(found.x.shape)}. Save x.transpose(0, 3, 1, 2)"
        )
    if not bool(torch.isfinite(found.x).all()):
        raise InvalidInput(f"expected finite numbers; {source} has NaN or infinite ones in x")
    channels = len(domain.mean)
    if channels not in (1, found.x.shape[1]):
        raise InvalidInput(
            f"expected a normalization of one value, or of one for each of {found.x.shape[1]} channels; came "
            f"{channels}"
        )
    pixels = domain.to_pixels(found.x)
    low, high = float(pixels.min()), float(pixels.max())
    if low < -_NEAR or high > 1 + _NEAR:
        raise InvalidInput(
            f"expected pixels from 0 to 1 once the normalization is taken off; {source} has {low:.3g} to "
            f"{high:.3g}. Say data.normalization as it was applied, or divide by the largest value"
        )
    return replace(found, x=found.x.contiguous())


# Records that code hands over.


def _called(source: str, wanted: Wanted) -> Records:
    """Code that draws draws the same again for the same seed."""
    generator(wanted.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        try:
            taken = list(islice(_records(source, builder(source)()), wanted.end))
        except GradleakError:
            raise
        except Exception as error:  # it is someone else's code, and may raise anything
            raise InvalidInput(f"{source} could not be called for records: {cause(error)}") from error
    if len(taken) < wanted.end:
        raise InvalidInput(_too_few(source, len(taken), wanted))
    shapes = {tuple(x.shape) for x, _ in taken}
    if len(shapes) > 1:
        raise InvalidInput(f"expected records of one shape; {source} hands over {sorted(shapes)}")
    x, y = torch.stack([x for x, _ in taken]), torch.tensor([label for _, label in taken])
    return replace(_checked(source, x, y, wanted), classes=0)  # others may follow that were not asked for


def _records(source: str, handed: Any) -> Iterator[tuple[Tensor, int]]:
    """One by one, from pairs of single records or of batches."""
    if isinstance(handed, str | bytes | Mapping) or not (
        isinstance(handed, Iterable) or hasattr(handed, "__getitem__")
    ):
        raise InvalidInput(f"expected {source} to return pairs (x, y); it returned {type(handed).__name__}")
    for pair in handed:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            came = (
                f"{type(pair).__name__} of {len(pair)}" if hasattr(pair, "__len__") else type(pair).__name__
            )
            raise InvalidInput(f"expected pairs (x, y) from {source}; came {came}")
        x, y = _tensor("x", pair[0]), _tensor("y", pair[1])
        alone = y.dim() == 0
        labels = _labels(y[None] if alone else y)
        rows = x[None] if alone else x
        if len(rows) != len(labels):
            raise InvalidInput(
                f"expected a label for each record; {source} hands {len(labels)} to {len(rows)}"
            )
        yield from zip(rows, labels.tolist(), strict=True)


# What all have in common.


def _require_enough(source: str, count: int, wanted: Wanted) -> None:
    if count < wanted.end:
        raise InvalidInput(_too_few(source, count, wanted))


def _too_few(source: str, count: int, wanted: Wanted) -> str:
    after = f", from {wanted.first} on" if wanted.first else ""
    return (
        f"expected {wanted.n} records{after}; {source} holds {count}. Take fewer batches, or fewer records "
        "in each"
    )


def _numbered(what: str, wanted: Wanted) -> tuple[str, ...]:
    return tuple(f"{what} {i + 1}" for i in range(wanted.first, wanted.end))


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
