import socket
import sys
from typing import Any

import pytest
import torch
from skimage import data

from gradleak.errors import InvalidInput, NotInstalled
from gradleak.zoo import PICTURES, mlp, pictures, public

SETS = list(PICTURES)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pictures must not open a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(params=SETS)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "digits":
        pytest.importorskip("sklearn")
    return str(request.param)


def test_all_of_a_set_are_what_the_table_says(name: str) -> None:
    told = PICTURES[name]
    x, y = pictures(name, size=12)
    assert x.shape == (told.count, told.channels, 12, 12)
    assert x.dtype == torch.float32
    assert y.dtype == torch.long
    assert y.unique().tolist() == list(range(told.classes))
    assert x.min() >= 0
    assert x.max() <= 1
    assert str(told.count) in told.description
    assert told.source
    assert told.licence


@pytest.mark.parametrize("size", [4, 25, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_and_either_number_of_channels(name: str, size: int, channels: int) -> None:
    x, y = pictures(name, size=size, n=7, channels=channels)
    assert x.shape == (7, channels, size, size)
    assert y.shape == (7,)
    assert 0 <= x.min() < x.max() <= 1


def test_no_two_pictures_are_the_same_and_none_is_flat(name: str) -> None:
    x, _ = pictures(name, n=60)
    assert len(torch.unique(x.flatten(1), dim=0)) == 60
    assert x.flatten(1).std(1).min() > 0.05


def test_photos_show_something_for_other_seeds_too() -> None:
    for seed in (1, 2, 3):
        assert pictures("photos", seed=seed)[0].flatten(1).std(1).min() > 0.05


def test_a_seed_means_the_same_twice_and_touches_no_global_rng(name: str) -> None:
    before = torch.get_rng_state()
    x, y = pictures(name, n=12, seed=3)
    again, labels = pictures(name, n=12, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, again)
    assert torch.equal(y, labels)
    assert not torch.equal(x, pictures(name, n=12, seed=4)[0])


def test_fewer_are_the_first_of_more(name: str) -> None:
    for seed in (0, 2):
        few, many = pictures(name, n=4, seed=seed), pictures(name, n=15, seed=seed)
        assert torch.equal(few[0], many[0][:4])
        assert torch.equal(few[1], many[1][:4])


def test_size_changes_neither_choice_nor_crop(name: str) -> None:
    small, y = pictures(name, n=12, size=16, seed=1)
    large, labels = pictures(name, n=12, size=48, seed=1)
    shrunk = torch.nn.functional.avg_pool2d(large, 3)
    assert torch.equal(y, labels)
    # each small picture is nearer to its own large one than to any other
    assert torch.cdist(small.flatten(1), shrunk.flatten(1)).argmin(1).tolist() == list(range(12))


def test_the_first_six_photos_are_six_photographs() -> None:
    assert pictures("photos", n=13)[1].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0]


def test_photo_crops_are_square_and_inside_the_photograph() -> None:
    sides = set()
    for seed in range(3):
        for crop in PICTURES["photos"].read(60, seed)[0]:
            assert crop.shape[0] == crop.shape[1]
            assert crop.shape[2] == 3
            sides.add(crop.shape[0])
    assert min(sides) >= 50
    assert len(sides) > 30


def test_the_first_photos_are_really_cut_from_the_astronaut_and_the_cat() -> None:
    crops, _ = PICTURES["photos"].read(2, 0)
    for crop, original in zip(crops, (data.astronaut(), data.chelsea()), strict=True):
        side = crop.shape[0]
        windows = torch.from_numpy(original / 255).unfold(0, side, 1).unfold(1, side, 1)[..., 0, 0]
        corner = (windows - torch.from_numpy(crop[0, 0])).abs().sum(-1)
        places = (corner < 1e-9).nonzero().tolist()
        assert any((original[i : i + side, j : j + side] / 255 == crop).all() for i, j in places)


def test_grey_is_the_luminance_of_the_colours() -> None:
    colour, grey = (pictures("photos", n=6, channels=c)[0] for c in (3, 1))
    weights = torch.tensor([0.2125, 0.7154, 0.0721]).reshape(1, 3, 1, 1)
    torch.testing.assert_close((colour * weights).sum(1, keepdim=True), grey, rtol=0, atol=1e-6)
    assert not torch.allclose(colour[:, :1], colour[:, 1:2], atol=0.1)


def test_colours_of_a_grey_set_are_repeats() -> None:
    x, _ = pictures("faces", n=5, channels=3)
    assert torch.equal(x, pictures("faces", n=5, channels=1)[0].expand(-1, 3, -1, -1))


def test_faces_are_untouched_at_their_own_size() -> None:
    x, y = pictures("faces", size=25, channels=1)
    expected = torch.from_numpy(data.lfw_subset()[:100]).float().unsqueeze(1)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)
    assert y.tolist() == list(range(100))


def test_digits_are_untouched_at_their_own_size() -> None:
    found = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = pictures("digits", size=8)
    torch.testing.assert_close(x[:, 0], torch.from_numpy(found.images / 16).float(), rtol=0, atol=1e-5)
    assert y.tolist() == found.target.tolist()


def test_another_seed_is_a_permutation() -> None:
    x, y = pictures("faces")
    mixed, order = pictures("faces", seed=9)
    assert order.tolist() != y.tolist()
    assert sorted(order.tolist()) == y.tolist()
    assert torch.equal(mixed, x[order])


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    x, _ = pictures("photos", n=6, size=4)
    crops, _ = PICTURES["photos"].read(6, 0)
    means = torch.tensor([crop.mean() for crop in crops]).float()
    torch.testing.assert_close(x.mean((1, 2, 3)), means, rtol=0, atol=0.03)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(NotInstalled, match=r"pip install gradleak\[digits\]"):
        pictures("digits", n=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fotos"}, r"'faces', 'photos', 'digits'; got 'fotos'; did you mean 'photos'"),
        ({"name": ["faces"]}, r"name must be one of"),
        ({"name": "photos", "n": 61}, r"at most 60 for 'photos'.* got 61"),
        ({"name": "faces", "n": 101}, r"at most 100"),
        ({"name": "faces", "n": 0}, r"n must be .* 1 or more; got 0"),
        ({"name": "faces", "size": 3}, r"size must be .* 4 or more; got 3"),
        ({"name": "faces", "channels": 2}, r"channels must be one of 1, 3; got 2"),
        ({"name": "faces", "channels": 3.0}, r"channels must be a whole number"),
        ({"name": "faces", "size": 10**6}, r"size must be at most 4096; got 1000000"),
        ({"name": "faces", "seed": 2**70}, r"seed must be at most"),
        ({"name": "faces", "seed": -1}, r"seed must be .* 0 or more; got -1"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_choices(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        pictures(**arguments)


def test_public_faces_are_all_the_others() -> None:
    x, _ = pictures("faces", size=8)
    assert torch.equal(public("faces", 6, size=8), x[6:])
    assert public("faces", 100, size=8) is None


def test_public_crops_are_of_other_photographs_than_the_private_ones() -> None:
    x, photograph = pictures("photos", size=8)
    assert torch.equal(public("photos", 2, size=8), x[photograph >= 2])
    assert public("photos", 2, size=8).shape[0] == 40
    assert public("photos", 0, size=8).shape[0] == 60
    for n in (6, 7, 60):
        assert public("photos", n, size=8) is None
    with pytest.raises(InvalidInput, match="at most 60"):
        public("photos", 61, size=8)


def test_a_model_refuses_what_torch_would_trip_over() -> None:
    with pytest.raises(InvalidInput, match="seed must be at most"):
        mlp(seed=2**70)
    with pytest.raises(InvalidInput, match="sizes must be several whole numbers"):
        mlp(sizes=5)
