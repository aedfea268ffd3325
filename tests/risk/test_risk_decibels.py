"""Risk in decibels against formulas written out, against draws, and against the attacker it speaks of."""

import math
import sys

import numpy as np
import pytest
import torch
from scipy.fft import idctn
from torch import Tensor, nn

import gradleak as gl
from gradleak.errors import GradleakError, InvalidBatch, InvalidInput, InvalidUpdate
from gradleak.observe import Domain
from gradleak.observe.jacobian import Jacobian
from gradleak.observe.prior import Natural, correlations, prior_of, spectrum
from gradleak.risk.decibels import AGREED, Decibels, Seen, decibels
from gradleak.risk.lanczos import Lanczos

LEVELS = (10.0, 1e-1, 1e-2, 1e-3)
ONE = torch.ones((), dtype=torch.float64)


def faces(n: int = 1, size: int = 8, channels: int = 1) -> Tensor:
    return gl.zoo.pictures("faces", n=n, size=size, channels=channels)[0].double()


def smooth(channels: int = 1, size: int = 8) -> nn.Module:
    return gl.zoo.lenet(classes=5, channels=channels, size=size, seed=0).double()


def labels(n: int) -> Tensor:
    return torch.arange(n) % 5


def numbers(
    x: Tensor, y: Tensor, model: nn.Module, noise: float, weights: Tensor | None = None
) -> dict[str, np.ndarray]:
    """The slow twin: K column by column from scipy's cosine transform, matrices inverted as they stand."""
    batch, channels, height, width = x.shape
    scale = {1: 24.75, 3: 29.38}[channels] * math.sqrt(height * width) / 32
    together = np.eye(channels)
    if channels == 3:
        together[[0, 1], [1, 0]], together[[0, 2], [2, 0]], together[[1, 2], [2, 1]] = 0.875, 0.759, 0.926
    values, vectors = np.linalg.eigh(together)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    columns = []
    for b, c, i, j in np.ndindex(*x.shape):
        unit = np.zeros((height, width))
        unit[i, j] = scale / (2.413 + math.hypot(i, j)) ** 1.923
        picture = np.zeros(x.shape)
        picture[b] = root[:, c, None, None] * idctn(unit, norm="ortho")
        columns.append(picture.ravel())
    k = np.stack(columns, 1)
    obs = gl.observe(model, x, y)
    rows = Jacobian(obs, x, y).dense().numpy()
    w = np.ones(len(rows)) if weights is None else weights.numpy()
    fisher = rows.T @ (rows * (w[:, None] / noise) ** 2)
    inverse = np.linalg.inv(fisher + np.linalg.inv(k @ k.T))
    off = x.numpy().ravel() - 0.5
    bias = inverse @ np.linalg.inv(k @ k.T) @ off
    variance = inverse @ fisher @ inverse

    def ratio(errors: np.ndarray) -> np.ndarray:
        return -10 * np.log10(errors.reshape(batch, -1).mean(1))

    return {
        "psnr": ratio(bias**2 + np.diag(variance)),
        "bayes": ratio(np.diag(inverse)),
        "unbiased": ratio(np.diag(np.linalg.inv(fisher))),
        "null_psnr": ratio(off**2),
        "dimensions": np.trace(inverse @ fisher),
    }


def agree(found: Decibels, level: int, right: dict[str, np.ndarray], near: float = 1e-4) -> None:
    for name in ("psnr", "bayes", "unbiased"):
        np.testing.assert_allclose(getattr(found, name)[level], right[name], atol=near, err_msg=name)
    np.testing.assert_allclose(found.null_psnr, right["null_psnr"], atol=1e-9)
    assert float(found.dimensions[level]) == pytest.approx(float(right["dimensions"]), rel=1e-6)


@pytest.mark.parametrize(("n", "channels"), [(1, 1), (2, 1), (1, 3)])
def test_the_dense_way_is_the_formula(n: int, channels: int) -> None:
    """Records of a batch are blocks of one inverse, not inverted one by one."""
    x, y, model = faces(n, channels=channels), labels(n), smooth(channels)
    found = decibels(model, x, y, noise=LEVELS)
    assert found.psnr.shape == (len(LEVELS), n)
    assert found.way == "dense"
    assert found.converged
    for level, noise in enumerate(LEVELS):
        agree(found, level, numbers(x, y, model, noise))


def test_weights_are_those_of_the_rows() -> None:
    x, y, model = faces(), labels(1), smooth()
    rng = torch.Generator().manual_seed(0)
    update = gl.observe(model, x, y).update
    weights = {name: torch.rand(g.shape, generator=rng, dtype=g.dtype) + 0.1 for name, g in update.items()}
    flat = torch.cat([w.flatten() for w in weights.values()])
    agree(decibels(model, x, y, noise=0.01, weights=weights), 0, numbers(x, y, model, 0.01, flat))
    kept = {name: (w > 0.4).double() for name, w in weights.items()}
    some = torch.where(flat > 0.4, 1.0, 0.0).double()
    agree(decibels(model, x, y, noise=0.01, weights=kept), 0, numbers(x, y, model, 0.01, some))


def test_even_weights_are_a_level_of_noise() -> None:
    x, y = faces(), labels(1)
    seen = gl.observe(smooth(), x, y)
    right = decibels(seen, x, y, noise=0.01)
    known = decibels(seen, x, y, noise=1.0, weights=dict.fromkeys(seen.update, 100.0))
    defended = decibels(smooth(), x, y, client=gl.defenses.GaussianNoise(std=0.01))
    for found in (known, defended):
        torch.testing.assert_close(found.psnr, right.psnr)
        torch.testing.assert_close(found.unbiased, right.unbiased)


def test_no_matrix_gives_the_same_within_what_it_says() -> None:
    x, y = faces(2, size=12), labels(2)
    model = smooth(size=12)
    right = decibels(model, x, y, noise=(1.0, 0.1, 0.01))
    found = decibels(model, x, y, noise=(1.0, 0.1, 0.01), exact=False)
    assert (found.way, right.way) == ("lanczos", "dense")
    assert found.converged
    assert not found.note
    assert bool(((found.psnr - right.psnr).abs() < AGREED + 2 * found.sampling[:, None]).all())
    assert 0 < float(found.sampling.max()) < AGREED
    # a few random pictures stand for all of them: their error is that of a sample, not of the method
    many = torch.stack([decibels(model, x, y, noise=0.1, exact=False, rng=s).bayes[0] for s in range(4)])
    assert float((many.mean(0) - right.bayes[1]).abs().max()) < 0.5
    assert float((found.dimensions / right.dimensions).log().abs().max()) < 0.5
    assert torch.equal(found.psnr, decibels(model, x, y, noise=(1.0, 0.1, 0.01), exact=False).psnr)
    other = decibels(model, x, y, noise=(1.0, 0.1, 0.01), exact=False, rng=1)
    assert not torch.equal(found.psnr, other.psnr)


def test_too_few_steps_err_towards_too_much_and_say_so() -> None:
    x, y, model = faces(1, size=12), labels(1), smooth(size=12)
    found = decibels(model, x, y, noise=(1.0, 1e-5), exact=False, steps=20)
    right = decibels(model, x, y, noise=(1.0, 1e-5))
    assert float(found.psnr[1]) > float(right.psnr[1])
    assert float(found.error[0]) <= AGREED < float(found.error[1])
    assert not found.converged
    assert "1e-05" in found.note


def test_float32_answers_only_where_its_rounding_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of more unknowns than are met here, which normalisation and soft labels come with too."""
    x, y, model = faces(2), labels(2), smooth()
    normal = gl.observe(model, (x - 0.4) / 0.25, y, normalization=((0.4,), (0.25,)))
    soft = nn.functional.one_hot(y, 5).double() * 0.9 + 0.02
    weighted = {name: u.abs() / u.abs().max() for name, u in normal.update.items()}
    cases = ((model, x, soft, None), (normal, normal.domain.from_pixels(x), y, weighted))
    for given, pixels, label, weights in cases:
        right = decibels(given, pixels, label, noise=(10.0, 1.0), weights=weights, exact=False)
        with monkeypatch.context() as patched:
            patched.setattr(sys.modules[decibels.__module__], "_SINGLE", 0)
            found = decibels(given, pixels, label, noise=(10.0, 1.0), weights=weights, exact=False)
        assert not torch.equal(found.psnr, right.psnr)  # it was indeed in float32
        torch.testing.assert_close(found.psnr, right.psnr, atol=0.01, rtol=0)
        torch.testing.assert_close(found.null_psnr, right.null_psnr, atol=1e-5, rtol=0)
    right = decibels(model, x, y, noise=1e-5, exact=False)
    monkeypatch.setattr(sys.modules[decibels.__module__], "_SINGLE", 0)
    assert torch.equal(decibels(model, x, y, noise=1e-5, exact=False).psnr, right.psnr)


def test_draws_that_memory_has_no_room_for_are_not_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[decibels.__module__]
    taken: list[int] = []
    runs = module.Runs.of
    monkeypatch.setattr(module.Runs, "of", lambda *given: taken.append(given[1]) or runs(*given))
    monkeypatch.setattr(module, "_SAMPLED", 0.0)
    for numbers, expected in ((2 * 64 * 200, [1]), (2**27, [4, 40])):
        taken.clear()
        monkeypatch.setattr(module, "_NUMBERS", numbers)
        decibels(smooth(), faces(), labels(1), noise=1.0, exact=False)
        assert taken == expected


def test_lanczos_applies_functions_of_a_matrix() -> None:
    rng = torch.Generator().manual_seed(0)
    half = torch.randn(30, 20, generator=rng, dtype=torch.float64)
    matrix, start = half @ half.T, torch.randn(30, generator=rng, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    right = vectors @ ((vectors.T @ start) / (1 + values.clamp_min(0)))
    run = Lanczos(lambda rows: rows @ matrix, torch.stack((start, vectors[:, -1], 0 * start)))
    run.grow(5)
    assert not run.ended
    early = run.apply(lambda v: 1 / (1 + v))[0][0]
    run.grow(99)
    assert run.ended  # 20 directions, and what is left of the start outside them
    assert run.steps == 21
    found, plain = run.apply(lambda v: 1 / (1 + v), torch.ones_like)
    torch.testing.assert_close(found[0], right)
    torch.testing.assert_close(found[1], vectors[:, -1] / (1 + values[-1]))
    torch.testing.assert_close(plain, run.starts)
    assert not bool(found[2].any())
    assert float((early - right).norm()) > 1e-3 * float(right.norm())


def test_loud_noise_leaves_the_null_and_faint_noise_the_unbiased_attacker() -> None:
    x, y, model = faces(2), labels(2), smooth()
    found = decibels(model, x, y, noise=(1e6, 1e-6))
    torch.testing.assert_close(found.psnr[0], found.null_psnr, atol=1e-6, rtol=0)
    assert float(found.leak[0].abs().max()) < 1e-6
    assert float(found.dimensions[0]) < 1e-6
    variance = prior_of((2, 1, 8, 8), Domain(), ONE).variance
    torch.testing.assert_close(found.bayes[0], torch.full_like(found.bayes[0], -10 * math.log10(variance)))
    torch.testing.assert_close(found.psnr[1], found.unbiased[1], atol=0.05, rtol=0)
    assert float(found.dimensions[1]) == pytest.approx(128, abs=1)
    torch.testing.assert_close(found.null_psnr, -10 * (x - 0.5).square().flatten(1).mean(1).log10())
    weaker = decibels(model, x, y, noise=(1e-1, 1e-2, 1e-3))
    assert bool((weaker.bayes.diff(dim=0) > 0).all())
    assert bool((weaker.dimensions.diff() > 0).all())


def narrow() -> nn.Module:
    """Its update is linear in the picture, with 20 of 64 directions in it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20, bias=False), nn.Linear(20, 3)).double()
    model[1].weight.requires_grad_(False)  # what is not trained is not sent
    return model


def weighed(output: Tensor, y: Tensor) -> Tensor:
    return (output * torch.arange(1, 1 + output.shape[1]).to(output)).sum()


def test_on_a_linear_model_it_is_the_mean_over_pictures_and_draws() -> None:
    """The most probable picture in closed form, for 4000 pictures of the prior, and 4000 draws of one."""
    x, y, noise, draws = faces(), labels(1), 0.5, 4000
    obs = gl.observe(narrow(), x, y, loss=weighed)
    found = decibels(obs, x, y, noise=noise)
    assert float(found.unbiased) == -math.inf  # 44 directions are not seen at all
    assert 1 < float(found.dimensions) < 20
    rows, prior = Jacobian(obs, x, y).dense(), prior_of(obs.x_shape, obs.domain, ONE)
    k = prior.spread(torch.eye(64).double().reshape(64, 1, 8, 8)).reshape(64, 64).T
    seen = rows @ k
    solve = torch.linalg.inv(seen.T @ seen + noise**2 * torch.eye(64)) @ seen.T
    rng = torch.Generator().manual_seed(0)
    blur = noise * torch.randn(draws, len(rows), generator=rng, dtype=torch.float64)
    truth = prior.coordinates(x - 0.5).reshape(64)
    for u, predicted in (
        (torch.randn(draws, 64, generator=rng, dtype=torch.float64), found.bayes),
        (truth.expand(draws, 64), found.psnr),
    ):
        rebuilt = (u @ seen.T + blur) @ solve.T
        error = ((rebuilt - u) @ k.T).square().mean()
        assert float(-10 * error.log10()) == pytest.approx(float(predicted), abs=0.1)


def test_the_attacker_reaches_it_on_a_network() -> None:
    """Gauss-Newton from plain grey, which holds the noisy update and the label; 6 draws at each level."""
    x, y, model = faces(), labels(1), smooth()
    predicted = decibels(model, x, y, noise=(1e-1, 1e-3))
    for level, noise in enumerate(predicted.noise):
        client = gl.defenses.GaussianNoise(std=noise)
        seen = [gl.observe(model, x, y, client=client, reveal=["labels"], rng=seed) for seed in range(6)]
        found = [gl.attacks.map()(one, rng=0) for one in seen]
        assert all(one.outcome is gl.Outcome.CONVERGED for one in found)
        error = torch.stack([(one.x - x).square().mean() for one in found]).mean()
        assert float(-10 * error.log10()) == pytest.approx(float(predicted.psnr[level]), abs=1.5)
    assert float(predicted.leak[1]) > 15


def test_rows_of_numbers_have_a_plain_prior() -> None:
    """N(mean, std²) is the identity after normalisation; errors are counted before it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    pixels = torch.rand(2, 6).double()
    normalization = ([0.2], [0.5])
    x = (pixels - 0.2) / 0.5
    obs = gl.observe(model, x, labels(2), normalization=normalization)
    rows = Jacobian(obs, x, labels(2)).dense()
    inverse = torch.linalg.inv(rows.T @ rows / 0.01**2 + torch.eye(12))
    bias = inverse @ x.flatten()
    error = 0.25 * (bias.square() + (inverse - inverse @ inverse).diagonal()).reshape(2, 6).mean(1)
    found = decibels(obs, x, labels(2), noise=0.01)
    torch.testing.assert_close(found.psnr[0], -10 * error.log10())
    torch.testing.assert_close(found.null_psnr, -10 * (pixels - 0.2).square().mean(1).log10())
    free = decibels(obs, x, labels(2), noise=0.01, exact=False)
    assert float((free.psnr - found.psnr).abs().max()) < AGREED + 3 * float(free.sampling)


def test_normalisation_changes_the_units_and_not_the_number() -> None:
    x, y, model = faces(channels=3), labels(1), smooth(3)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).double(), torch.tensor([0.2, 0.3, 0.4]).double()

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x * std_of(x) + mean_of(x))

    def std_of(x: Tensor) -> Tensor:
        return x.new_tensor([0.2, 0.3, 0.4])[:, None, None]

    def mean_of(x: Tensor) -> Tensor:
        return x.new_tensor([0.1, 0.2, 0.3])[:, None, None]

    normal = (x - mean[:, None, None]) / std[:, None, None]
    obs = gl.observe(Wrapped(), normal, y, normalization=(mean.tolist(), std.tolist()))
    found, right = decibels(obs, normal, y, noise=0.01), decibels(model, x, y, noise=0.01)
    torch.testing.assert_close(found.psnr, right.psnr)
    torch.testing.assert_close(found.bayes, right.bayes)


def test_local_training_and_kinks() -> None:
    x, y = faces(2), labels(2)
    model = gl.zoo.convnet(classes=5, channels=1, size=8, width=4, seed=0)
    for client in (None, gl.LocalSGD(2, 1, 0.1)):
        found = decibels(model, x, y, noise=0.001, client=client)
        assert bool(torch.isfinite(found.psnr).all())
        assert "Local" in found.note
        assert "Relu" in found.note
    assert not decibels(smooth(), faces(), labels(1), noise=0.1).note


@pytest.mark.parametrize(("size", "channels"), [((8, 8), 1), ((6, 10), 3), ((5, 7), 2)])
def test_the_prior_is_one_linear_map_for_any_shape(size: tuple[int, int], channels: int) -> None:
    shape = (2, channels, *size)
    prior = prior_of(shape, Domain(), ONE)
    rng = torch.Generator().manual_seed(0)
    u, g = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close((prior.spread(u) * g).sum(), (u * prior.gathered(g)).sum())
    torch.testing.assert_close(prior.coordinates(prior.spread(u)), u)
    n = channels * size[0] * size[1]
    k = prior.spread(torch.eye(n).double().reshape(n, *shape[1:])).flatten(1)
    assert float(k.square().sum() / n) == pytest.approx(prior.variance)
    of = k.reshape(n, channels, -1).permute(1, 0, 2).reshape(channels, -1)
    torch.testing.assert_close(
        torch.corrcoef(of) if channels > 1 else torch.eye(1).double(),
        correlations(channels),
        atol=0.2,
        rtol=0,
    )


def test_the_prior_expects_what_a_grey_guess_is_off_by() -> None:
    """The variance of pictures that it was fitted on, at every size; nothing here is measured elsewhere."""
    for size in (16, 32, 64):
        crops = [gl.zoo.pictures("photos", n=6, seed=s, size=size)[0] for s in (20, 23, 26)]
        null = -10 * (torch.cat(crops).double() - 0.5).square().mean().log10()
        natural = Natural.of((1, 3, size, size), ONE)
        assert -10 * math.log10(natural.variance) == pytest.approx(float(null), abs=1.0)
    assert float(spectrum(8, 16)[0, 3]) > float(spectrum(8, 16)[3, 0])  # 3 half-waves over the longer side


def test_what_is_not_seen_is_not_leaked() -> None:
    x, y = faces(), labels(1)
    obs = gl.observe(smooth(), x, y)
    none = dict.fromkeys(obs.update, 0.0)
    for exact in (True, False):
        blind = decibels(obs, x, y, noise=1e-6, weights=none, exact=exact)
        torch.testing.assert_close(blind.psnr[0], blind.null_psnr)
        assert float(blind.dimensions) == 0
    rng = torch.Generator().manual_seed(0)
    draws = {name: torch.rand(g.shape, generator=rng) for name, g in obs.update.items()}
    shares = [
        float(
            decibels(obs, x, y, noise=1e-3, weights={n: (d < share).double() for n, d in draws.items()}).bayes
        )
        for share in (0.02, 0.1, 0.5, 1.0)
    ]
    assert shares == sorted(shares)


X, Y = torch.zeros(1, 1, 8, 8), torch.tensor([1])


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"noise": 0.0}, InvalidInput, "above 0; came|several; came"),
        ({"noise": -1}, InvalidInput, "several; came -1"),
        ({"noise": []}, InvalidInput, "several; came"),
        ({"noise": (0.1, math.nan)}, InvalidInput, "several; came"),
        ({"noise": "0.1"}, InvalidInput, "several; came '0.1'"),
        ({"x": torch.zeros(2, 1, 8, 8)}, InvalidBatch, "of shape"),
        ({"x": torch.full((1, 1, 8, 8), math.nan)}, InvalidBatch, "finite"),
        ({"x": None}, InvalidBatch, "NoneType"),
        ({"y": torch.tensor([7])}, InvalidBatch, "from 0 to 4"),
        ({"y": 3}, InvalidBatch, "int"),
        ({"weights": [1.0]}, InvalidUpdate, "list"),
        ({"weights": {"conv1.weight": 1.0}}, InvalidUpdate, "missing"),
        ({"weights": {"nothing": 1.0}}, InvalidUpdate, "the weights do not fit"),
        ({"rng": -1}, InvalidInput, "seed"),
        ({"client": 3}, InvalidInput, "client"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, object], error: type[GradleakError], said: str) -> None:
    obs = gl.observe(smooth(), X, Y)
    given = {"x": X, "y": Y, "noise": 0.1, "exact": False} | change
    with pytest.raises(error, match=said):
        decibels(obs, given.pop("x"), given.pop("y"), **given)


def test_weights_below_zero_and_matrices_beyond_memory() -> None:
    obs = gl.observe(smooth(), X, Y)
    below = {name: torch.full_like(g, -1) for name, g in obs.update.items()}
    with pytest.raises(InvalidUpdate, match="negative"):
        decibels(obs, X, Y, noise=0.1, weights=below)
    with pytest.raises(InvalidUpdate, match="shape"):
        decibels(obs, X, Y, noise=0.1, weights={name: torch.ones(3) for name in below})
    with pytest.raises(InvalidUpdate, match="NaN or infinite"):
        decibels(obs, X, Y, noise=0.1, weights=dict.fromkeys(below, math.inf))
    large = torch.zeros(1, 25_000)
    wide = gl.observe(nn.Linear(25_000, 2), large, Y)
    with pytest.raises(InvalidInput, match="exact=False"):
        decibels(wide, large, Y, noise=0.1, exact=True)


def test_the_model_comes_back_as_it_was_and_float32_is_enough_to_hand_in() -> None:
    model = gl.zoo.lenet(classes=5, channels=1, size=8, seed=0).train()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    found = decibels(model, faces().float(), labels(1), noise=1e-3)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    right = decibels(model.double(), faces().float().double(), labels(1), noise=1e-3)
    torch.testing.assert_close(found.psnr, right.psnr)


def test_the_operator_and_its_matrix_are_one() -> None:
    x, y = faces(2), labels(2)
    obs = gl.observe(smooth(), x, y)
    seen = Seen(Jacobian(obs, x, y), prior_of(obs.x_shape, obs.domain, ONE))
    rng = torch.Generator().manual_seed(0)
    v = torch.randn(128, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(seen.gram() @ v, seen.product(v))
    both = torch.stack((v, 2 * v))
    torch.testing.assert_close(seen.products(both), both @ seen.gram())
    torch.testing.assert_close(seen.errors(both), torch.stack((seen.errors(v), 4 * seen.errors(v))))


def test_fewer_steps_never_say_that_less_leaks() -> None:
    x, y = gl.zoo.pictures("faces", size=16, n=1)
    model = gl.zoo.lenet(10, 3, 16, seed=0)
    few, many = (
        gl.risk.decibels(model, x, y % 10, noise=1e-4, exact=False, steps=steps) for steps in (12, 300)
    )
    exact = gl.risk.decibels(model, x, y % 10, noise=1e-4, exact=True)
    assert float(few.psnr) > float(many.psnr) - 0.1 > float(exact.psnr) - 0.5
    assert "Not converged" in few.note
    with pytest.raises(InvalidInput, match="steps as a whole number"):
        gl.risk.decibels(model, x, y % 10, steps=0)
