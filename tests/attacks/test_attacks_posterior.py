"""MAP: what it must solve exactly, what it must not, and that it knows no more than the update tells."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks.kinks import kinked
from gradleak.attacks.posterior.merit import Posterior
from gradleak.attacks.posterior.newton import Newton
from gradleak.attacks.posterior.softened import softened
from gradleak.attacks.posterior.trust import Trust, excess
from gradleak.attacks.posterior.walk import walk
from gradleak.defenses import Clip, Dropout, GaussianNoise, LowPrecision, Mask, Prune, Sign, Withhold
from gradleak.errors import InvalidInput

FACES = gl.zoo.pictures("faces", size=16, n=4, channels=1)[0]
LABELS = torch.tensor([3, 1, 4, 1])


def smooth(seed: int = 0) -> nn.Module:
    return gl.zoo.lenet(10, 1, 16, seed=seed)


def reached(client: object, model: nn.Module | None = None, n: int = 1, **options: object) -> list[float]:
    x, y = FACES[:n], LABELS[:n]
    seen = gl.observe(model or smooth(), x, y, client=client, reveal=["labels"])
    found = gl.attacks.map(**options)(seen, rng=0)
    return gl.metrics.score(found.x, found.y, x, y, classes=10).psnr.tolist()


@pytest.mark.parametrize(
    "client",
    [
        gl.OneGradient(),
        Clip(norm=1e-3),
        Dropout(rate=0.5),
        Mask(rate=0.5),
        Mask(rate=0.5, rescaled=True),
        Prune(fraction=0.5),
        gl.LocalSGD(2, 1, 0.02, order="given"),
    ],
    ids=repr,
)
def test_what_hides_nothing_is_undone_to_rounding(client) -> None:
    assert min(reached(client)) > 60


@pytest.mark.parametrize(
    "client",
    [GaussianNoise(std=1e-1), GaussianNoise(std=1e-3), LowPrecision(format="bf16")],
    ids=repr,
)
def test_what_hides_something_is_undone_as_far_as_decibels_says(client) -> None:
    """Three pictures on a network each; the mean of what one draw scatters about."""
    misses = []
    for seed in range(3):
        x, y, model = FACES[seed : seed + 1], LABELS[seed : seed + 1], smooth(seed)
        seen = gl.observe(model, x, y, client=client, reveal=["labels"])
        found = gl.attacks.map()(seen, rng=0)
        told = gl.risk.decibels(seen, x, y)
        misses.append(float(gl.metrics.psnr(found.x, x)) - float(told.psnr[0, 0]))
    assert abs(sum(misses) / 3) < 2.5


def test_a_heavy_mask_hides_no_more_than_decibels_says() -> None:
    for seed in range(3):
        x, y = FACES[seed : seed + 1], LABELS[seed : seed + 1]
        seen = gl.observe(smooth(seed), x, y, client=Mask(rate=0.97), reveal=["labels"])
        found = gl.attacks.map()(seen, rng=0)
        assert float(gl.metrics.psnr(found.x, x)) > float(gl.risk.decibels(seen, x, y).psnr[0, 0]) - 1


def test_more_noise_is_more_safety_and_all_of_it_is_grey() -> None:
    levels = [reached(GaussianNoise(std=std))[0] for std in (1e-3, 1e-2, 1e-1, 1e3)]
    assert levels == sorted(levels, reverse=True)
    grey = float(gl.metrics.psnr(torch.full_like(FACES[:1], 0.5), FACES[:1]))
    assert levels[-1] == pytest.approx(grey, abs=0.5)


def test_the_prior_is_worth_what_matching_alone_lacks() -> None:
    seen = gl.observe(smooth(), FACES[:1], LABELS[:1], client=GaussianNoise(std=3e-2), reveal=["labels"])
    probable, matched = (
        float(gl.metrics.psnr(attack(seen, rng=0).x.clamp(0, 1), FACES[:1]))
        for attack in (gl.attacks.map(), gl.attacks.dlg(evaluations=300))
    )
    assert probable > matched + 5


def test_twins_of_one_label_part() -> None:
    """From plain grey they would get the same gradient for ever."""
    x, y = FACES[:3], torch.tensor([2, 2, 2])
    found = gl.attacks.map()(gl.observe(smooth(), x, y, reveal=["labels"]), rng=0)
    assert float(gl.metrics.score(found.x, found.y, x, y, classes=10).psnr.min()) > 60


def test_kinks_are_crossed_where_entries_are_trusted_one_by_one() -> None:
    found = [reached(None, gl.zoo.convnet(10, 1, 16, width=16, seed=seed))[0] for seed in range(3)]
    assert min(found) > 60


def test_a_wrong_picture_is_believed_to_add_the_same_to_every_entry() -> None:
    """Entries known to a thousandth and to one are off alike: neither has a say of its own."""
    deviations = torch.tensor([1e-3, 1e-3, 1.0, 1.0, math.inf], dtype=torch.float64)
    known = {"w": 1 / deviations}
    off = {"w": torch.tensor([7.0, -7.0, 7.0, 7.0, 0.0], dtype=torch.float64) * known["w"]}
    added = 49 - (1 + 1e-6) / 2
    variances = deviations[:4].square() + added
    sizes = Trust.by_misfit(off, known).sizes["w"]
    torch.testing.assert_close(sizes[:4] * deviations[:4].square(), variances)
    cost = Trust.by_misfit(off, known).cost(off)
    assert cost == pytest.approx(float((49 / variances).sum()))
    # what is no more than noise adds nothing, and the middle entry does not see the outlier
    quiet = {"w": torch.tensor([0.5, -0.5, 0.5, 0.5, 0.0], dtype=torch.float64)}
    assert bool((Trust.by_misfit(quiet, known).sizes["w"] == 1).all())
    one = {"w": torch.tensor([0.5, -0.5, 0.5, 1e3, 0.0], dtype=torch.float64)}
    assert bool((Trust.by_entries(one, known).sizes["w"] == 1).all())
    assert float(Trust.by_misfit(one, known).sizes["w"][3]) > 1e5


def test_kinks_are_rounded_inside_and_nowhere_else() -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bend = float(x.square().mean().sqrt()) / 4
    rounded = bend * torch.log1p((x / bend).exp())
    written_over = x.clone()
    with softened(4.0):
        ways = (torch.relu(x), x.relu(), nn.ReLU()(x), nn.functional.relu(x))
        leaky = nn.LeakyReLU(0.2)(x)
        nn.functional.relu(written_over, inplace=True)
        assert float(torch.relu(torch.zeros(2)).abs().max()) < 1e-30
    for one in ways:
        torch.testing.assert_close(one, rounded)
    torch.testing.assert_close(leaky, 0.2 * x + 0.8 * rounded)
    assert torch.equal(written_over, x.clamp_min(0))
    assert torch.equal(torch.relu(x), x.clamp_min(0))
    with softened(None):
        assert torch.equal(torch.relu(x), x.clamp_min(0))
    with softened(1e6):
        torch.testing.assert_close(torch.relu(x), x.clamp_min(0), atol=1e-5, rtol=0)


def test_a_kinked_network_under_rounding_is_undone_as_far_as_decibels_says() -> None:
    for seed in range(2):
        x, y = FACES[seed : seed + 1].double(), LABELS[seed : seed + 1]
        model = gl.zoo.mlp(10, sizes=(256, 64, 64), activation="relu", seed=seed).double()
        for name in ("fp16", "bf16"):
            seen = gl.observe(model, x, y, client=LowPrecision(format=name), reveal=["labels"])
            found = gl.attacks.map()(seen, rng=0)
            assert found.outcome is gl.Outcome.CONVERGED
            told = float(gl.risk.decibels(seen, x, y).psnr[0, 0])
            assert float(gl.metrics.psnr(found.x, x)) > told - 3


def test_an_answer_is_judged_by_the_network_as_it_is() -> None:
    """Also one that was still being looked for on a rounder network."""
    model, x, y = gl.zoo.convnet(10, 1, 16, width=8, seed=0).double(), FACES[:1].double(), LABELS[:1]
    posterior = Posterior.of(gl.observe(model, x, y, reveal=["labels"]), y)
    start = torch.zeros(256, dtype=torch.float64)
    for now in walk(posterior, start, steps=4, iterations=5, kinked=True):
        residual = posterior.residual(now.u)
        assert now.score == pytest.approx(posterior.unexplained(residual))
        assert now.excess == pytest.approx(max(excess(residual, posterior.known).values()))


def test_labels_are_read_off_what_a_defense_left() -> None:
    for client in (Mask(rate=0.7), Prune(fraction=0.99), GaussianNoise(std=1e-2), Sign(), Dropout(rate=0.5)):
        for seed in range(4):
            seen = gl.observe(smooth(seed), FACES[seed : seed + 1], LABELS[seed : seed + 1], client=client)
            guess = gl.labels.inferred()(seen, rng=0)
            assert guess.y.tolist() == [int(LABELS[seed])], client
            assert not guess.certain


def test_a_label_that_nothing_tells_is_tried_out() -> None:
    seen = gl.observe(smooth(), FACES[:1], LABELS[:1], client=Withhold(layers=("linear",)))
    found = gl.attacks.map()(seen, rng=0)
    assert found.y.tolist() == [3]
    assert float(gl.metrics.psnr(found.x, FACES[:1])) > 60
    batch = gl.observe(smooth(), FACES[:2], LABELS[:2], client=Withhold(layers=("linear",)))
    assert gl.attacks.map()(batch, rng=0).outcome is gl.Outcome.NOT_APPLICABLE


def test_the_router_takes_it_for_what_is_defended() -> None:
    for client in (Mask(rate=0.5), GaussianNoise(Clip(norm=0.1), std=1e-5)):
        x, y = FACES[:1], LABELS[:1]
        found = gl.attack(gl.observe(smooth(), x, y, client=client), rng=0)
        assert any(
            said.startswith("optimisation by map, since the update is defended") for said in found.decisions
        )
        assert found.y.tolist() == y.tolist()
        assert float(gl.metrics.psnr(found.x, x)) > 40


def test_a_closed_form_answers_a_defended_update_that_it_explains() -> None:
    """A factor is all that clipping brings, and the ratio of two gradients does not see it."""
    x, y = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double(), LABELS[:1]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 10)).double()
    found = gl.attack(gl.observe(model, x, y, client=Clip(norm=1e-3)), rng=0)
    assert found.outcome is gl.Outcome.CONVERGED
    assert float(gl.metrics.psnr(found.x, x)) > 100
    assert not any("optimisation" in said for said in found.decisions)


def test_the_merit_is_what_is_written_beside_it() -> None:
    model, x, y = smooth().double(), FACES[:1].double(), LABELS[:1]
    seen = gl.observe(model, x, y, client=GaussianNoise(std=0.1), reveal=["labels"])
    posterior = Posterior.of(seen, y)
    u = 0.3 * torch.randn(256, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    residual = posterior.residual(u)
    sent = seen.simulate(posterior.pictures(u), y)
    for name, leaf in residual.items():
        torch.testing.assert_close(leaf, (sent[name] - seen.update[name]) / 0.1)
    full = Trust.full(residual)
    assert full.cost(residual) == pytest.approx(sum(float(r.square().sum()) for r in residual.values()))
    # Gauss-Newton's slope is half the cost's own gradient, whichever way residuals are trusted
    for trust in (
        full,
        Trust.by_blocks(residual, posterior.known),
        Trust.by_misfit(residual, posterior.known),
        Trust.by_entries(residual, posterior.known),
    ):
        weights = trust.weights(residual)
        linear = posterior.linear(u, weights)
        rest = torch.cat([(residual[name] * weights[name]).flatten() for name in residual])
        slope = linear.transposed(rest)
        direction = torch.randn(256, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        h = 1e-5
        rise = (
            trust.cost(posterior.residual(u + h * direction))
            - trust.cost(posterior.residual(u - h * direction))
        ) / (2 * h)
        assert rise == pytest.approx(2 * float(slope @ direction), rel=1e-5)


def test_a_step_solves_what_a_dense_solver_solves() -> None:
    model, x, y = smooth().double(), FACES[:1].double(), LABELS[:1]
    posterior = Posterior.of(gl.observe(model, x, y, client=GaussianNoise(std=1e-3)), y)
    u = torch.zeros(256, dtype=torch.float64)
    residual = posterior.residual(u)
    weights = Trust.by_blocks(residual, posterior.known).weights(residual)
    linear = posterior.linear(u, weights)
    slope = torch.randn(256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = linear.gram() + torch.eye(256, dtype=torch.float64)
    exact = -torch.linalg.solve(matrix, slope)
    newton = Newton(iterations=5)
    assert torch.allclose(newton.step(linear, slope, loose=False), exact, rtol=1e-6, atol=1e-9)
    assert newton.factors == 1
    again = newton.step(linear, slope, loose=False)  # the factor is kept, and fits at once
    assert newton.factors == 1
    assert torch.allclose(again, exact, rtol=1e-6, atol=1e-9)


def test_entries_that_are_not_seen_have_no_say() -> None:
    seen = gl.observe(smooth(), FACES[:1], LABELS[:1], client=Mask(rate=0.5), reveal=["labels"])
    posterior = Posterior.of(seen, LABELS[:1])
    assert all(bool((posterior.known[name][leaf == 0] == 0).all()) for name, leaf in seen.update.items())
    residual = posterior.residual(torch.zeros(256, dtype=torch.float64))
    share = {
        name: float(leaf.square().sum()) / (int((leaf != 0).sum()) + 1) for name, leaf in residual.items()
    }
    assert excess(residual, posterior.known) == pytest.approx(share, rel=1e-3)


def test_the_same_seed_is_the_same_answer_and_the_model_comes_back() -> None:
    model = smooth()
    before = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    state = torch.random.get_rng_state()
    seen = gl.observe(model, FACES[:2], LABELS[:2], client=GaussianNoise(std=1e-2))
    a, b = (gl.attacks.map(steps=6)(seen, rng=5) for _ in "ab")
    assert torch.equal(a.x, b.x)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())
    assert not kinked(seen)
    steps = list(gl.attacks.map(steps=3).iterate(seen, rng=5))
    assert [one.outcome for one in steps] == [gl.Outcome.RUNNING] * 2 + [gl.Outcome.BUDGET]
    assert steps[-1].cost.matching_gradients > 3


def test_the_attacker_is_not_told_the_dice() -> None:
    """The same update from other dice is the same to him: nothing in the observation holds them."""
    seen = gl.observe(smooth(), FACES[:1], LABELS[:1], client=GaussianNoise(std=1e-2), rng=1)
    assert seen.client.dice is None
    other = gl.observe(smooth(), FACES[:1], LABELS[:1], client=GaussianNoise(std=1e-2), rng=2)
    swapped = replace(other, update=seen.update)
    assert torch.equal(gl.attacks.map(steps=3)(seen, rng=0).x, gl.attacks.map(steps=3)(swapped, rng=0).x)
    ordered = gl.observe(smooth(), FACES[:1], LABELS[:1], client=Mask(rate=0.5), reveal=["order"])
    assert ordered.client.dice is None


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"steps": 1.5}, {"iterations": -1}, {"iterations": math.nan}]
)
def test_what_does_not_fit_is_said(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="whole numbers of 1 or more"):
        gl.attacks.map(**wrong)


def test_an_update_of_nothing_has_no_answer() -> None:
    seen = gl.observe(smooth(), FACES[:1], LABELS[:1], reveal=["labels"])
    nothing = replace(seen, update={name: torch.zeros_like(leaf) for name, leaf in seen.update.items()})
    assert gl.attacks.map(steps=3)(nothing, rng=0).outcome is gl.Outcome.NOT_APPLICABLE
