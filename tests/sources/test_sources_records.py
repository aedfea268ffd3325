"""Records from names, folders, files and code: what comes out, and a clear refusal of what cannot be used."""

import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import gradleak as gl
from gradleak.errors import InvalidInput
from gradleak.observe.domain import Domain
from gradleak.sources.records import Wanted, read


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_records", None)


def arrays(n=6, shape=(3, 4, 4)):
    x = np.random.default_rng(0).random((n, *shape)).astype(np.float32)
    return x, np.arange(n) % 3


def test_bundled_pictures_come_with_what_is_public():
    found = read("digits", Wanted(n=3, first=2, size=8, domain=Domain((0.5,), (0.25,))))
    x, y = gl.zoo.pictures("digits", size=8, n=5)
    torch.testing.assert_close(found.x, (x[2:] - 0.5) / 0.25)
    assert found.y.tolist() == y[2:].tolist()
    assert found.names == ("digit 3", "digit 4", "digit 5")
    assert found.classes == 10
    assert torch.equal(found.public, gl.zoo.public("digits", 5, size=8))


def test_a_folder_is_taken_class_by_class_in_turn(here):
    for name, grays in {"cat": (10, 20, 30), "dog/big": (40, 50), "<script>": (60,)}.items():
        folder = here / "pets" / name
        folder.mkdir(parents=True)
        for gray in grays:
            Image.new("L", (9, 7), gray).save(folder / f"{gray}.png")
    found = read("pets", Wanted(n=5, size=4, channels=1), folder=here)
    assert [round(float(x.mean()) * 255) for x in found.x] == [60, 10, 40, 20, 50]
    assert found.y.tolist() == [0, 1, 2, 1, 2]
    assert found.class_names == {0: "<script>", 1: "cat", 2: "dog/big"}
    assert found.names[0] == "<script>/60.png"
    assert (found.classes, found.public) == (3, None)
    later = read("pets", Wanted(n=2, first=3, size=4, channels=1), folder=here)
    assert later.names == ("cat/20.png", "dog/big/50.png")


def test_arrays_are_taken_as_they_are_and_bytes_as_pixels(here):
    x, y = arrays()
    np.savez(here / "floats.npz", x=x, y=y.astype(np.uint8))
    np.savez(here / "swapped.npz", x=x.astype(">f4"), y=y.astype(">i2"))
    np.savez(here / "bytes.npz", x=(x * 255).astype(np.uint8), y=y)
    save_file({"x": torch.tensor(x).half(), "y": torch.tensor(y)}, here / "half.safetensors")
    domain = Domain((0.1,), (2.0,))
    taken = domain.from_pixels(torch.tensor(x))
    np.savez(here / "taken.npz", x=taken.numpy(), y=y)
    wanted = Wanted(n=4, first=1)
    found = read("floats.npz", wanted, folder=here)
    assert torch.equal(found.x, torch.tensor(x)[1:5])
    assert torch.equal(read("swapped.npz", wanted, folder=here).x, found.x)
    assert found.y.dtype == torch.int64
    assert found.y.tolist() == [1, 2, 0, 1]
    assert (found.classes, found.names[0]) == (3, "record 2")
    torch.testing.assert_close(
        read("half.safetensors", wanted, folder=here).x, torch.tensor(x)[1:5], atol=1e-3, rtol=0
    )
    normal = Wanted(n=4, first=1, domain=domain)
    torch.testing.assert_close(read("taken.npz", normal, folder=here).x, taken[1:5])
    torch.testing.assert_close(read("bytes.npz", normal, folder=here).x, taken[1:5], atol=1 / 255, rtol=0)


CODE = """
import numpy, torch
from torch.utils.data import DataLoader, TensorDataset

def singles():
    for i in range(7):
        yield torch.full((1, 2, 2), i / 10), i

def endless():
    while True:
        yield numpy.zeros((1, 2, 2)), numpy.int32(1)

def batches():
    x, y = zip(*singles())
    return DataLoader(TensorDataset(torch.stack(x), torch.tensor(y)), batch_size=3)

def drawn():
    return [(torch.rand(1, 2, 2), 0) for _ in range(4)]

def shuffled():
    x, y = zip(*singles())
    return DataLoader(TensorDataset(torch.stack(x), torch.tensor(y)), batch_size=3, shuffle=True)

def raises():
    raise RuntimeError("no disk")

def raises_late():
    yield torch.zeros(1, 2, 2), 0
    raise RuntimeError("no disk")

nothing = lambda: None
words = lambda: "words"
threes = lambda: [(1, 2, 3)]
strings = lambda: [("a", "b")]
uneven = lambda: [(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 3, 3), 0)]
halves = lambda: [(torch.zeros(1, 2, 2), 0.5)] * 5
lengths = lambda: [(torch.zeros(2, 1, 2, 2), [0, 1, 2])]
negative = lambda: [(torch.zeros(1, 2, 2), -1)] * 5
number = 3
"""


@pytest.fixture
def code(here):
    (here / "my_records.py").write_text(CODE)
    return here


@pytest.mark.parametrize("name", ["singles", "batches"])
def test_code_hands_over_records_or_batches(code, name):
    found = read(f"my_records:{name}", Wanted(n=4, first=2))
    assert found.y.tolist() == [2, 3, 4, 5]
    torch.testing.assert_close(found.x.mean((1, 2, 3)), torch.tensor([0.2, 0.3, 0.4, 0.5]))
    assert found.names[0] == "record 3"


def test_code_is_asked_for_no_more_than_is_wanted(code):
    assert read("my_records:endless", Wanted(n=3)).x.shape == (3, 1, 2, 2)


@pytest.mark.parametrize("name", ["drawn", "shuffled"])
def test_code_that_draws_draws_the_same_for_the_same_seed(code, name):
    first, again, other = (read(f"my_records:{name}", Wanted(n=4, seed=seed)).x for seed in (0, 0, 1))
    before = torch.random.get_rng_state()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "RuntimeError: no disk"),
        ("raises_late", "RuntimeError: no disk"),
        ("nothing", "it returned NoneType"),
        ("words", "it returned str"),
        ("threes", "came tuple of 3"),
        ("strings", "expected x as numbers"),
        ("uneven", r"one shape.*\(1, 2, 2\), \(1, 3, 3\)"),
        ("halves", "class indices.*came float"),
        ("lengths", "hands 3 to 2"),
        ("negative", "labels from 0 up; came -1"),
        ("number", "is no callable"),
        ("missing", "has no 'missing'"),
        ("singles", "expected 20 records; .* holds 7"),
    ],
)
def test_code_that_hands_over_rubbish_is_told(code, name, words):
    with pytest.raises(InvalidInput, match=words):
        read(f"my_records:{name}", Wanted(n=20 if name == "singles" else 2))


def wrong_files(folder):
    """Each with what must be said of it."""
    x, y = arrays()

    def npz(name, **held):
        np.savez(folder / f"{name}.npz", **held)
        return f"{name}.npz"

    class Trap:
        def __reduce__(self):
            return (pickle.dumps, (1,))

    (folder / "text.npz").write_text("no zip")
    (folder / "empty.npz").write_bytes(b"")
    (folder / "text.safetensors").write_text("no header at all")
    save_file({"pixels": torch.zeros(2)}, folder / "other.safetensors")
    with zipfile.ZipFile(folder / "foreign.npz", "w") as foreign:
        foreign.writestr("x", "text")
        foreign.writestr("y", "text")
    np.save(folder / "one.npy", x)
    (folder / "one.npy").rename(folder / "alone.npz")
    (folder / "none").mkdir()
    (folder / "notes.txt").write_text("hello")
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    return [
        (npz("pickled", x=np.array([Trap()] * 4, dtype=object), y=y[:4]), "never unpickled"),
        (npz("names", images=x, labels=y), "holds images, labels, and x and y are missing"),
        (npz("no_y", x=x), "y is missing"),
        (npz("short", x=x, y=y[:3]), "came 3 for 6"),
        (npz("one_hot", x=x, y=np.eye(6)), r"float64 of shape \[6, 6\]"),
        (npz("float_y", x=x, y=y / 1.0), "class indices"),
        (npz("bool_y", x=x, y=y > 1), "came bool"),
        (npz("negative", x=x, y=y - 1), "came -1"),
        (npz("flat", x=x[:, 0, 0, 0], y=y), r"came \[6\]"),
        (npz("last", x=x.transpose(0, 2, 3, 1), y=y), "channels last"),
        (npz("signed", x=(x * 9).astype(np.int64), y=y), "uint8 from 0 to 255; came int64"),
        (npz("complex", x=x + 1j, y=y), "came complex"),
        (npz("text_x", x=np.array(["a"] * 6), y=y), "expected x as numbers; came <U1"),
        (npz("nan", x=np.where(x > 0.5, np.nan, x), y=y), "NaN or infinite"),
        (npz("wide", x=x * 255, y=y), "expected pixels from 0 to 1 .* 255|254"),
        (npz("no_pixels", x=x[:, :, :0], y=y), r"came \[6, 3, 0, 4\]"),
        (npz("nobody", x=x[:0], y=y[:0]), "expected records; came none"),
        (npz("few", x=x[:1], y=y[:1]), "expected 2 records; few.npz holds 1"),
        ("text.npz", "cannot be read"),
        ("empty.npz", "cannot be read"),
        ("alone.npz", "cannot be read"),
        ("foreign.npz", "expected x as numbers|cannot be read"),
        ("text.safetensors", "cannot be read"),
        ("other.safetensors", "holds pixels, and x and y are missing"),
        ("none", "expected a folder with pictures"),
        ("notes.txt", "cannot be read as a picture|expected 2 records"),
        ("broken.png", "expected 2 records"),
        ("digit", "did you mean digits"),
        ("one_hott.npz", "did you mean one_hot.npz"),
        ("digits.", "did you mean digits"),
        ("no_such_module_here:x", "cannot import"),
    ]


def test_files_that_hold_rubbish_are_told(here):
    for name, words in wrong_files(here):
        with pytest.raises(InvalidInput, match=words):
            read(name, Wanted(n=2), folder=here)


def test_the_normalization_must_fit_the_channels(here):
    x, y = arrays()
    np.savez(here / "x.npz", x=x, y=y)
    with pytest.raises(InvalidInput, match="one for each of 3 channels; came 2"):
        read("x.npz", Wanted(n=2, domain=Domain((0.0, 0.0), (1.0, 1.0))), folder=here)
