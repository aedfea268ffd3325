"""The error of a perfect attacker, against dense twins, drawn noise, and the other way to compute it."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.risk.gram import Spectrum, jacobian, krylov, spectrum
from gradleak.risk.influence import influence, influence_of
from gradleak.risk.prediction import Prediction

SGD = gl.LocalSGD(2, 1, 0.1, order="given")


def faces(n: int, size: int = 8) -> Tensor:
    return gl.zoo.pictures("faces", n=n, size=size, channels=1)[0].double()


def labels(n: int) -> Tensor:
    return torch.arange(n) % 5


def convnet() -> nn.Module:
    """Its second layer reads more than the picture holds, so that every direction is determined."""
    return gl.zoo.lenet(classes=5, channels=1, size=8, init="uniform", seed=0)


def dense(model: nn.Module, x: Tensor, y: Tensor, client: Callable[..., object] | None = None) -> np.ndarray:
    """The slow twin: the update's derivative along every pixel, by torch's own double backward."""
    obs = gl.observe(model.double(), x, y, client=client)
    task = replace(obs.task, transformed=False, whole=True)

    def sent(x: Tensor) -> Tensor:
        return torch.cat([leaf.reshape(-1) for leaf in obs.client(task, obs.params, x, y).values()])

    units = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    return torch.stack([torch.autograd.functional.jvp(sent, x, unit)[1] for unit in units], 1).numpy()


def drawn(model: nn.Module, std: float, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: std * torch.randn(p.shape, generator=rng, dtype=torch.float64)
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("client", [None, SGD])
@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_it_is_the_formula_of_the_paper(client: object, damping: float) -> None:
    """The step is (JᵀJ + ε)⁻¹ Jᵀδ, and for noise the mean of its square, sample by sample."""
    model, x, y = convnet(), faces(2), labels(2)
    J = dense(model, x, y, client)
    damped = np.linalg.inv(J.T @ J + damping * np.eye(J.shape[1])) @ J.T
    found = influence(model, x, y, noise=[1e-3, 0.1], damping=damping, client=client)
    each = np.square(damped).sum(1).reshape(2, -1).mean(1)
    np.testing.assert_allclose(found.rmse, np.sqrt(each) * [[1e-3], [0.1]], rtol=1e-6)
    assert found.rmse.shape == (2, 2)
    assert found.way == "exact"
    assert found.error == 0
    assert (found.unknowns, found.protected, found.damping) == (128, 0, damping)

    delta = drawn(model, 0.01)
    moved = damped @ torch.cat([leaf.reshape(-1) for leaf in delta.values()]).numpy()
    found = influence(model, x, y, perturbation=delta, damping=damping, client=client)
    np.testing.assert_allclose(found.rmse, np.sqrt(np.square(moved).reshape(2, -1).mean(1)), rtol=1e-6)
    torch.testing.assert_close(found.psnr, -20 * found.rmse.log10())
    flat = torch.cat([leaf.reshape(-1) for leaf in delta.values()]).numpy()
    lower = np.linalg.norm(J.T @ flat) / np.linalg.norm(J, 2) ** 2
    assert float(found.lower) == pytest.approx(lower / math.sqrt(128), rel=1e-9)
    assert float(found.lower) < float(found.rmse.square().mean().sqrt())


def test_both_ways_agree_within_one_percent() -> None:
    model, x, y = convnet(), faces(1), labels(1)
    delta = drawn(model, 0.01)
    levels, draw = {"noise": [1e-3, 0.1]}, {"perturbation": delta}
    for damping, given in ((0.0, levels), (0.0, draw), (0.1, draw)):
        right = influence(model, x, y, exact=True, damping=damping, **given)
        found = influence(model, x, y, exact=False, damping=damping, **given)
        off = float((found.rmse / right.rmse - 1).abs().max())
        assert off < 0.01, (damping, list(given))
        assert off < 3 * found.error + 1e-9
        assert found.way == "matrix-free"
        assert found.protected == 0
        torch.testing.assert_close(found.lower, right.lower, rtol=0.05, atol=0)
        torch.testing.assert_close(found.dimensions.double(), right.dimensions.double(), rtol=0.1, atol=2)


def test_noise_on_a_linear_map_does_what_is_predicted() -> None:
    """A client that sends A x: the perfect attacker is least squares, and the prediction exact."""
    matrix = torch.randn(40, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def client(task: object, params: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"weight": (matrix @ x.flatten()).reshape(8, 5)}

    x, y = torch.rand(1, 12, dtype=torch.float64), torch.tensor([0])

    class Whole(nn.Module):
        """Twelve pixels in, eight logits out, and one weight of [8, 5]."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(8, 5, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :5] @ self.weight.T

    found = influence(Whole(), x, y, noise=0.3, client=client)
    inverse = torch.linalg.pinv(matrix)
    draws = 0.3 * torch.randn(20_000, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    measured = (draws @ inverse.T).square().mean().sqrt()
    assert float(found.rmse) == pytest.approx(float(measured), rel=0.01)
    exactly = influence(Whole(), x, y, client=client, perturbation={"weight": draws[0].reshape(8, 5)})
    assert float(exactly.rmse) == pytest.approx(float((inverse @ draws[0]).square().mean().sqrt()), rel=1e-9)


def test_least_squares_from_a_noisy_update_errs_as_predicted() -> None:
    """Gauss–Newton from the true picture, which is where a perfect attacker ends."""
    model, x, y = convnet().double(), faces(1), labels(1)
    delta = drawn(model, 1e-4)
    found = influence(model, x, y, perturbation=delta)
    sent = torch.cat([u.reshape(-1) for u in gl.observe(model, x, y).update.values()])
    sent += torch.cat([u.reshape(-1) for u in delta.values()])
    guess = x.clone()
    for _ in range(4):
        now = torch.cat([u.reshape(-1) for u in gl.observe(model, guess, y).update.values()])
        J = torch.from_numpy(dense(model, guess, y))
        guess += torch.linalg.lstsq(J, (sent - now)[:, None]).solution.reshape(x.shape)
    assert float((guess - x).square().mean().sqrt()) == pytest.approx(float(found.rmse), rel=0.02)


def test_damping_has_its_limits() -> None:
    model, x, y = convnet(), faces(1), labels(1)
    exact = spectrum(jacobian(model, x, y))
    delta = drawn(model, 0.01)
    free = influence_of(exact, perturbation=delta)
    little = influence_of(exact, perturbation=delta, damping=1e-12 * float(exact.values[-1]))
    torch.testing.assert_close(little.rmse, free.rmse, rtol=1e-3, atol=0)
    much = 1e9 * float(exact.values[-1])
    heavy = influence_of(exact, perturbation=delta, damping=much)
    b = math.sqrt(64) * float(heavy.lower) * float(exact.values[-1])  # ‖Jᵀδ‖
    assert float(heavy.rmse) == pytest.approx(b / much / math.sqrt(64), rel=1e-6)
    noisy = [float(influence_of(exact, noise=1e-3, damping=d).rmse) for d in (0.0, 1e-3, 1.0)]
    assert noisy == sorted(noisy, reverse=True)


def narrow() -> nn.Module:
    """Three numbers of a picture are all that reaches what is trained."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False), nn.Tanh(), nn.Linear(3, 5)).double()
    model[1].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("exact", [True, False])
def test_what_does_not_reach_the_update_has_no_finite_error(exact: bool) -> None:
    model, x, y = narrow(), faces(1), labels(1)
    for given in ({"noise": [0.01, 0.1]}, {"perturbation": lambda u: {k: 1.1 * v for k, v in u.items()}}):
        found = influence(model, x, y, exact=exact, **given)
        assert bool(found.rmse.isinf().all())
        assert bool((found.psnr == -math.inf).all())
        assert found.protected == 61 if exact else abs(found.protected - 61) <= 2
        assert "no finite error" in found.verdict
        damped = influence(model, x, y, exact=exact, damping=1e-3, **given)
        assert bool(damped.rmse.isfinite().all())
        assert bool((damped.rmse > 0).all())


def test_only_the_sample_in_the_null_space_is_infinite() -> None:
    """The second record's picture is multiplied by 0 on its way."""

    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = gl.zoo.mlp(sizes=(64, 32), classes=5, seed=0)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x * torch.tensor([1.0, 0.0]).to(x)[:, None, None, None][: len(x)])

    found = influence(Deaf(), faces(2), labels(2), noise=1e-3)
    assert found.protected >= 64
    assert bool(found.rmse[1].isinf())


def test_a_function_of_the_update_is_the_difference_that_it_makes() -> None:
    model, x, y = convnet(), faces(1), labels(1)
    update = gl.observe(model.double(), x, y).update
    clipped = {k: 0.9 * v for k, v in update.items()}
    one = influence(model, x, y, perturbation=lambda u: {k: 0.9 * v for k, v in u.items()})
    two = influence(model, x, y, perturbation={k: clipped[k] - v for k, v in update.items()})
    torch.testing.assert_close(one.rmse, two.rmse)
    assert float(influence(model, x, y, perturbation=lambda u: u).rmse) == 0


def steps_of(delta: np.ndarray, model: nn.Module, x: Tensor, y: Tensor, client: object = None) -> np.ndarray:
    """The slow twin's squared error of each record, for one change of the update or for a row of each."""
    moved = np.atleast_2d(delta) @ np.linalg.pinv(dense(model, x, y, client)).T
    return np.square(moved).reshape(len(moved), len(x), -1).mean(2)


def sent(client: object, model: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """What the victim sends, who runs on its own."""
    update = gl.observe(model.double(), x, y, client=client, rng=5).update
    return torch.cat([leaf.reshape(-1) for leaf in update.values()]).numpy()


@pytest.mark.parametrize("client", [gl.OneGradient(), SGD], ids=["one", "local"])
@pytest.mark.parametrize(
    "defense",
    [
        gl.defenses.Prune(fraction=0.3),
        gl.defenses.LowPrecision(format="bf16"),
        gl.defenses.Clip(norm=1e-3),
        gl.defenses.LowPrecision(gl.defenses.Clip(norm=0.5), format="fp16"),
    ],
    ids=["prune", "bf16", "clip", "both"],
)
def test_a_defense_without_dice_is_the_difference_that_it_makes(defense: object, client: object) -> None:
    model, x, y = convnet(), faces(1), labels(1)
    around = defense.around(client)
    if isinstance(defense.client, gl.defenses.Clip):
        around = defense.around(defense.client.around(client))
    right = np.sqrt(steps_of(sent(around, model, x, y) - sent(client, model, x, y), model, x, y, client)[0])
    for given in ({"perturbation": defense, "client": client}, {"perturbation": around}):
        found = influence(model, x, y, **given)
        np.testing.assert_allclose(found.rmse, right, rtol=1e-6)
        assert found.of == f"what {type(defense).__name__} does, which throws no dice"
        assert found.error == 0
        assert f"This is {found.of}." in repr(found)


def test_a_defense_that_throws_dice_is_a_mean_over_throws() -> None:
    """A mask's deviation from the update has a known second moment, entry by entry."""
    model, x, y = convnet(), faces(2), labels(2)
    defense, update = gl.defenses.Mask(rate=0.3), sent(None, model, x, y)
    inverse = np.linalg.pinv(dense(model, x, y))
    mean = -0.3 * inverse @ update
    spread = np.square(inverse) @ (0.3 * 0.7 * np.square(update))
    right = np.sqrt((np.square(mean) + spread).reshape(2, -1).mean(1))
    known = spectrum(jacobian(model, x, y))
    found = [influence_of(known, perturbation=defense, rng=seed) for seed in range(12)]
    assert {one.of for one in found} == {"the mean over 32 throws of Mask's dice"}
    rmse = torch.stack([one.rmse for one in found])
    assert len(set(rmse[:, 0].tolist())) == 12
    off = (rmse.square().mean(0).sqrt() / torch.from_numpy(right) - 1).abs()
    typical = sum(one.error for one in found) / 12
    assert 0 < typical < 0.2
    assert float(off.max()) < 3 * typical / math.sqrt(12)
    scatter = float((rmse.std(0) / rmse.mean(0)).max())
    assert scatter == pytest.approx(typical, rel=0.6)
    other = influence_of(known.jacobian, perturbation=defense)
    assert other.of == "the mean over 4 throws of Mask's dice"
    assert float((other.rmse / torch.from_numpy(right) - 1).abs().max()) < 4 * other.error


def test_a_defense_that_only_adds_noise_has_a_closed_form() -> None:
    model, x, y = convnet(), faces(1), labels(1)
    for client in (gl.OneGradient(), SGD):
        plain = influence(model, x, y, noise=[0.01], client=client)
        gauss, laplace = (
            gl.defenses.GaussianNoise(client, std=0.01),
            gl.defenses.LaplaceNoise(client, scale=0.01),
        )
        for defense, factor in ((gauss, 1.0), (laplace, math.sqrt(2))):
            found = influence(model, x, y, perturbation=defense)
            torch.testing.assert_close(found.rmse, factor * plain.rmse[0])
            assert found.noise == pytest.approx((0.01 * factor,))
            assert found.of.startswith("the mean over all noise of that std")
    mixed = gl.defenses.GaussianNoise(gl.defenses.Clip(norm=1e9), std=0.01)  # which clips nothing
    drawn = influence(model, x, y, perturbation=mixed)
    assert drawn.of == "the mean over 32 throws of GaussianNoise's dice"
    right = influence(model, x, y, noise=0.01)
    assert float((drawn.rmse / right.rmse - 1).abs().max()) < 4 * drawn.error


def test_only_the_defense_throws_dice_and_not_the_order_of_records() -> None:
    """Noise so small that what an order would change is all there is."""
    shuffled = gl.LocalSGD(1, 1, 0.5)
    defense = gl.defenses.GaussianNoise(gl.defenses.Clip(shuffled, norm=1e9), std=1e-12)
    found = influence(convnet(), faces(2), labels(2), perturbation=defense)
    assert float(found.rmse.max()) < 1e-6


def test_a_defense_that_is_known_is_another_client() -> None:
    """Rows that a mask drops tell nothing, and what is clipped tells as much as its noise leaves."""
    model, x, y = convnet().double(), faces(1), labels(1)
    defense = gl.defenses.Mask(rate=0.4)
    J = dense(model, x, y) * (sent(defense, model, x, y) != 0)[:, None]
    right = 0.01 * math.sqrt(np.trace(np.linalg.inv(J.T @ J)) / 64)
    obs = gl.observe(model, x, y, client=defense, rng=5)
    found = influence(obs, x, y, noise=0.01)
    assert float(found.rmse) == pytest.approx(right, rel=1e-6)
    assert float(influence(model, x, y, noise=0.01, client=defense).rmse) != pytest.approx(right, rel=1e-3)


def test_pixels_are_those_before_the_normalisation() -> None:
    """The same network on the same picture, once with its normalisation inside and once outside."""
    inside = convnet().double()

    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = inside

        def forward(self, x: Tensor) -> Tensor:
            return self.net((x - 0.4) / 0.25)

    x, y = faces(1), labels(1)
    delta = drawn(inside, 1e-3)
    plain = influence(Normalising(), x, y, perturbation={f"net.{k}": v for k, v in delta.items()})
    noisy = influence(Normalising(), x, y, noise=1e-3)
    seen = gl.observe(inside, (x - 0.4) / 0.25, y, normalization=((0.4,), (0.25,)))
    for exact in (True, False):
        found = influence(seen, (x - 0.4) / 0.25, y, perturbation=delta, exact=exact)
        torch.testing.assert_close(found.rmse, plain.rmse, rtol=1e-6 if exact else 0.01, atol=0)
        torch.testing.assert_close(found.null_psnr, plain.null_psnr)
    found = influence(seen, (x - 0.4) / 0.25, y, noise=1e-3)
    torch.testing.assert_close(found.rmse, noisy.rmse, rtol=1e-6, atol=0)
    gray = float(-10 * (x - 0.5).square().mean().log10())
    assert float(plain.null_psnr) == pytest.approx(gray)


def test_one_number_has_no_levels_and_0_no_error() -> None:
    model, x, y = convnet(), faces(2), labels(2)
    one = influence(model, x, y, noise=1e-3)
    assert one.rmse.shape == one.psnr.shape == one.null_psnr.shape == (2,)
    assert one.lower.shape == one.dimensions.shape == ()
    many = influence(model, x, y, noise=torch.tensor([0.0, 1e-3, 10.0]))
    torch.testing.assert_close(many.rmse[1], one.rmse)
    assert many.rmse[0].tolist() == [0, 0]
    assert many.dimensions[0] == 128 > many.dimensions[2]
    assert influence(model, x, y, noise=[1e-3]).rmse.shape == (1, 2)


def test_it_says_what_it_found_in_a_sentence() -> None:
    model, x, y = convnet(), faces(1), labels(1)
    found = influence(model, x, y, noise=[1e-4, 1e3])
    assert f"reaches {float(found.psnr[0, 0]):.1f} dB, where mid-gray has" in repr(found)
    assert "at noise 0.0001; 64 of 64 directions" in repr(found)
    assert "no better than mid-gray" in repr(influence(model, x, y, noise=1e3))
    assert repr(found) == f"Prediction({found.verdict})"


def test_the_choice_of_the_way_is_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = convnet(), faces(1), labels(1)
    module = sys.modules["gradleak.risk.influence"]  # its name in the package is the function's
    monkeypatch.setattr(module, "_MOST_EXACT", 63)
    assert influence(model, x, y, perturbation=drawn(model, 0.1)).way == "matrix-free"
    assert influence(model, x, y, noise=1e-3, exact=True).way == "exact"
    monkeypatch.setattr(module, "_MOST_EXACT", 64)
    assert influence(model, x, y, noise=1e-3).way == "exact"
    monkeypatch.setattr(module, "_free_memory", lambda device: 2**20)
    assert influence(model, x, y, perturbation=drawn(model, 0.1)).way == "matrix-free"


def test_a_spectrum_serves_many_and_lanczos_is_the_same_function() -> None:
    known = spectrum(jacobian(convnet(), faces(1), labels(1)))
    assert isinstance(known, Spectrum)
    b = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    largest = float(known.values[-1])

    def f(v: Tensor) -> Tensor:
        return 1 / (v + 0.01 * largest)

    found = krylov(known.jacobian, b, f, tolerance=1e-10)
    right = torch.stack([known.apply(f, one) for one in b])
    torch.testing.assert_close(found.applied, right, rtol=1e-6, atol=1e-9 * float(right.abs().max()))
    quadrature = (found.weights * f(found.nodes)).sum(1) * b.square().sum(1)
    torch.testing.assert_close(quadrature, (b * right).sum(1), rtol=1e-6, atol=0)


def test_the_model_and_the_dice_come_back_as_they_were() -> None:
    model, x, y = convnet().train(), faces(1), labels(1)
    before = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    given = {"perturbation": drawn(model, 0.1), "exact": False, "damping": 0.1}
    first = influence(model, x, y, rng=7, **given)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())
    again = influence(model, x, y, rng=7, **given)
    assert torch.equal(first.rmse, again.rmse)


class Dice(nn.Module):
    """Draws on its own, where no dropout layer can be put at rest."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convnet()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + torch.rand_like(x))


class Mute(nn.Module):
    """Ignores its picture."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), 5)


def run(**given: object) -> Prediction:
    model, x, y = given.pop("model", None) or convnet(), faces(1), labels(1)
    return influence(model, given.pop("x", x), given.pop("y", y), **given)  # type: ignore[arg-type]


def seen() -> gl.Observation:
    return gl.observe(convnet(), faces(1), labels(1))


BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: run(), gl.errors.InvalidInput, "one of them; came neither"),
    (lambda: run(noise=1.0, perturbation={}), gl.errors.InvalidInput, "came both"),
    (lambda: run(noise=-1e-3), gl.errors.InvalidInput, "std of 0 or more.*came -0.001"),
    (lambda: run(noise=[1e-3, math.nan]), gl.errors.InvalidInput, "finite std"),
    (lambda: run(noise=[]), gl.errors.InvalidInput, "finite std"),
    (lambda: run(noise="much"), gl.errors.InvalidInput, "expected noise as a std.*came 'much'"),
    (lambda: run(noise=1.0, damping=-1), gl.errors.InvalidInput, "damping as a finite number.*came -1"),
    (lambda: run(noise=1.0, damping=math.inf), gl.errors.InvalidInput, "damping"),
    (lambda: run(noise=1.0, rng="x", exact=False), gl.errors.InvalidInput, "expected a seed"),
    (lambda: run(noise=1.0, x=faces(1) * math.nan), gl.errors.InvalidBatch, "finite"),
    (lambda: run(noise=1.0, y=labels(2)), gl.errors.InvalidBatch, "one label for each"),
    (lambda: run(noise=1.0, y=torch.tensor([9])), gl.errors.InvalidBatch, "labels from 0 to 4"),
    (lambda: run(perturbation={"a": torch.ones(2)}), gl.errors.InvalidUpdate, "is missing"),
    (lambda: run(perturbation=lambda u: {}), gl.errors.InvalidUpdate, "is missing"),
    (
        lambda: run(perturbation=gl.defenses.Clip(SGD, norm=1.0), client=gl.LocalSGD(3, 1, 0.1)),
        gl.errors.InvalidInput,
        "put the defense around no client",
    ),
    (lambda: run(perturbation=7), gl.errors.InvalidInput, "tensors by parameter name.*came int"),
    (
        lambda: run(perturbation=lambda u: {k: v / 0 for k, v in u.items()}),
        gl.errors.InvalidUpdate,
        "NaN or infinite",
    ),
    (lambda: run(noise=1.0, model=Dice()), gl.errors.NotDeterministic, "two different outputs"),
    (lambda: run(noise=1.0, model=Mute()), gl.errors.InvalidModel, "does not change when the pictures"),
    (lambda: run(noise=1.0, model=seen(), client=SGD), gl.errors.InvalidInput, "Observation has a client"),
    (lambda: run(noise=1.0, model=seen(), x=faces(2)), gl.errors.InvalidBatch, r"shape \[1, 1, 8, 8\]"),
    (lambda: run(noise=1.0, model=seen(), x=faces(1) * math.nan), gl.errors.InvalidBatch, "finite"),
    (lambda: run(noise=1.0, model=seen(), y=torch.tensor([9])), gl.errors.InvalidBatch, "0 to 4"),
    (lambda: run(noise=1.0, model=seen(), y=labels(3)), gl.errors.InvalidBatch, "one label for each"),
]


@pytest.mark.parametrize(("bad", "error", "said"), BAD, ids=[said[:28] for _, _, said in BAD])
def test_what_cannot_be_used_is_refused(bad: Callable[[], object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        bad()


@pytest.mark.parametrize("exact", [True, False])
def test_an_update_that_does_not_see_the_picture_is_refused(exact: bool) -> None:
    """Through an observation: nothing asked this client before."""

    def silent(task: object, params: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {name: torch.ones_like(p) + 0 * x.sum() for name, p in params.items()}

    obs = gl.observe(convnet(), faces(1), labels(1), assumed=silent)
    with pytest.raises(gl.errors.InvalidInput, match="does not change when they change"):
        influence(obs, faces(1), labels(1), noise=1.0, exact=exact)


def test_a_client_that_throws_dice_is_refused() -> None:
    def noisy(task: object, params: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {name: torch.rand_like(p) * x.sum() for name, p in params.items()}

    obs = gl.observe(convnet(), faces(1), labels(1), assumed=noisy)
    with pytest.raises(gl.errors.NotDeterministic, match=r"came two different ones in .*draws at random"):
        influence(obs, faces(1), labels(1), noise=1.0)
