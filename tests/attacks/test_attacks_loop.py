from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks import matching as m
from gradleak.attacks.matching.layout import Parts
from gradleak.attacks.matching.problem import Problem
from gradleak.attacks.matching.trial import Trial, best_of
from gradleak.errors import InvalidInput, InvalidModel, MissingInformation
from gradleak.labels.inferred import FirstThatAnswers
from gradleak.observe import OneGradient
from gradleak.randomness import spawn


def net(seed=0, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Sigmoid(), nn.Linear(16, 5)).to(dtype)


def record(seed=0, b=1, reveal=(), model=None, **more):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(b, 3, 2, 2, generator=rng, dtype=torch.float64)
    y = torch.randint(5, (b,), generator=rng)
    return gl.observe(model or net(seed), x, y, reveal=reveal, **more)


def attack(**changes):
    parts = {"labels": gl.labels.joint(), "evaluations": 60, "tolerance": 0.0, "init": m.Uniform()}
    return m.Matching("test", **(parts | changes))


def adam(steps=60, **changes):
    return attack(optimizer=m.Adam(steps), evaluations=steps + 1, **changes)


BOTH = pytest.mark.parametrize("make", [attack, adam], ids=["lbfgs", "adam"])


@BOTH
@pytest.mark.parametrize("labels", [gl.labels.joint(), gl.labels.known()], ids=["joint", "known"])
def test_the_score_is_that_of_the_returned_point(make, labels):
    obs = record(b=2, reveal=("labels",))
    found = make(labels=labels, trials=3, priors=(m.Energy(0.1),))(obs, rng=1)
    y = found.y if found.probabilities is None else found.probabilities
    again = m.SquaredError()(obs.simulate(found.x, y), obs.update)
    assert float(again) == pytest.approx(found.score, rel=1e-9)
    if found.probabilities is not None:
        assert torch.equal(found.probabilities.argmax(-1), found.y)


@BOTH
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(make):
    obs = record()
    first, again, other = (make(trials=2)(obs, rng=seed) for seed in (3, 3, 4))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.probabilities, again.probabilities)
    assert (first.score, first.history, first.trial_outcomes) == (
        again.score,
        again.history,
        again.trial_outcomes,
    )
    assert not torch.equal(first.x, other.x)


def test_a_generator_serves_as_well_as_a_seed():
    obs = record()
    assert torch.equal(attack()(obs, rng=torch.Generator().manual_seed(7)).x, attack()(obs, rng=7).x)


@BOTH
@pytest.mark.parametrize("shared", [True, False], ids=["one model", "a model each"])
def test_records_together_are_records_one_by_one(make, shared):
    model = net()
    records = [record(seed, model=model if shared else None) for seed in range(4)]
    chosen = make(evaluations=30) if make is attack else make(steps=30)
    together = chosen.together(records, rng=0)
    for obs, rng, found in zip(records, spawn(0, 4), together, strict=True):
        alone = chosen(obs, rng=rng)
        torch.testing.assert_close(found.x, alone.x, rtol=1e-6, atol=1e-8)
        assert found.score == pytest.approx(alone.score, rel=1e-5)
        assert found.cost.matching_gradients == alone.cost.matching_gradients


def test_trials_together_are_trials_one_by_one():
    obs = record()
    chosen = adam(steps=40)
    best = replace(chosen, trials=6)(obs, rng=5)
    alone = [_trial(chosen, obs, rng) for rng in spawn(5, 6)]
    winner = min(alone, key=lambda found: found.score)
    torch.testing.assert_close(best.x, winner.x, rtol=1e-6, atol=1e-8)
    assert len({round(found.score, 12) for found in alone}) == 6


def _trial(chosen, obs, rng):
    """One trial, started by hand from the generator that the attack would give it."""
    guess = chosen.labels(obs, rng=rng)
    start = chosen.init(obs.x_shape, rng)

    @dataclass(frozen=True)
    class Same:
        citations: tuple[str, ...] = ()

        def __call__(self, obs, *, rng):
            return guess

    return replace(chosen, labels=Same(), init=m.Given(start))(obs, rng=0)


@dataclass(frozen=True)
class Counting(OneGradient):
    calls: list

    def __call__(self, task, params, x, y):
        self.calls.append(1)
        return super().__call__(task, params, x, y)


@BOTH
def test_the_cost_is_the_number_of_simulated_updates(make):
    calls = []
    obs = record(assumed=Counting(calls))
    found = make()(obs, rng=0)
    assert found.cost.matching_gradients == len(calls) <= 61
    assert (found.cost.trials, found.cost.seconds > 0) == (1, True)


@BOTH
def test_the_cost_counts_every_trial(make):
    calls = []
    obs = record(model=nn.Sequential(Stubborn(), *net()), assumed=Counting(calls))
    found = (make(trials=3, evaluations=7) if make is attack else make(steps=6, trials=3))(obs, rng=0)
    probes = 1  # of a sweep, which the model refuses
    assert found.cost.matching_gradients == 21 == len(calls) - probes
    assert found.cost.trials == 3


class Silent:
    """An optimizer that asks for the same point for ever."""

    citations = ()

    def descend(self, start, space, rng):
        while True:
            yield start + 0


def trial(*answers, outcome=gl.Outcome.RUNNING):
    guess = gl.labels.LabelGuess(y=torch.zeros(1, dtype=torch.long))
    one = Trial(0, Parts(torch.zeros(1, 3, 2, 2)), guess, torch.Generator())
    one.begin(Silent(), m.Space(12))
    for n, (value, mismatch) in enumerate(answers):
        one.question = torch.full((12,), float(n))
        one.answer(value, mismatch, torch.zeros(12))
    one.end(outcome)
    return one


def test_the_best_point_is_that_of_the_lowest_objective_not_mismatch():
    one = trial((1.0, 0.1), (0.8, 0.6), (0.9, 0.0))
    assert (one.best_value, one.best_mismatch, float(one.best_point[0])) == (0.8, 0.6, 1.0)
    assert one.history == [(1, 0.1), (2, 0.6)]


def test_a_trial_that_converged_speaks_for_its_record_whatever_the_priors_say():
    problem = Problem([record()], (0, 0), torch.zeros(2, 1, dtype=torch.long), m.SquaredError())
    spared = trial((0.1, 0.1), outcome=gl.Outcome.SPARED)
    converged = trial((0.3, 0.0), outcome=gl.Outcome.CONVERGED)
    for trials in ([spared, converged], [converged, spared]):
        found = best_of([(problem, one) for one in trials], 0.0, torch.float64)
        assert (found.outcome, found.score) == (gl.Outcome.CONVERGED, 0.0)


def test_the_tolerance_is_for_the_mismatch_without_the_priors():
    obs = record(reveal=("labels",))
    x = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = adam(labels=gl.labels.known(), priors=(m.Energy(10.0),), tolerance=1e-9, init=m.Given(x))
    found = chosen(obs)
    assert (found.outcome, found.cost.matching_gradients) == (gl.Outcome.CONVERGED, 1)


def test_threads_that_share_an_observation_do_not_disturb_each_other():
    obs = record()
    assert len({id(model) for model in (obs.model, obs.task.model, obs.task.model)}) == 3
    alone = [attack()(obs, rng=seed).x for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: attack()(obs, rng=seed).x, range(4)))
    assert all(map(torch.equal, alone, found))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_own_mode_neither_matters_nor_changes(mode):
    obs = record()
    expected = attack()(obs, rng=0).x
    with mode():
        here = gl.Observation.from_update(net(), obs.update, x_shape=obs.x_shape)
        candidates = attack(report_every=20).iterate(here, rng=0)
        next(candidates)
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() is (mode is torch.inference_mode)
        *_, found = candidates
    assert torch.equal(found.x, expected)


class OwnDtype(nn.Sequential):
    def forward(self, x):
        return super().forward(x.float())


def test_a_model_that_fixes_its_dtype_is_told_apart_from_a_wrong_loss():
    obs = record(model=OwnDtype(*net(dtype=torch.float32)))
    with pytest.raises(InvalidModel, match=r"computes in torch.float64.*pass double=False"):
        attack(double=True)(obs)
    assert attack()(obs).score < 1


def test_attention_is_observed_and_attacked_from_both_sides():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        model = nn.Sequential(layer, nn.Flatten(), nn.Linear(32, 4)).eval().double()
    x = torch.rand(1, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flags = (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
    seen = gl.observe(model, x, torch.tensor([1]))
    built = gl.Observation.from_update(model, seen.update, x_shape=(1, 4, 8))
    a, b = (attack(labels=gl.labels.idlg())(obs, rng=0) for obs in (seen, built))
    assert torch.equal(a.x, b.x)
    assert a.score < 1e-3
    assert float((a.x - x).abs().max()) < 0.2
    assert flags == (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())


def test_candidates_only_get_better_and_the_last_is_the_answer():
    obs = record()
    chosen = attack(report_every=5, trials=2)
    candidates = list(chosen.iterate(obs, rng=0))
    scores = [found.score for found in candidates]
    assert scores == sorted(scores, reverse=True)
    assert len(candidates) > 5
    assert all(found.outcome is gl.Outcome.RUNNING for found in candidates[:-1])
    assert torch.equal(candidates[-1].x, chosen(obs, rng=0).x)


def test_a_caller_may_stop_when_it_likes():
    chosen = attack(report_every=3)
    first = next(iter(chosen.iterate(record(), rng=0)))
    assert first.cost.matching_gradients == 3


def test_the_history_pairs_spent_gradients_with_falling_scores():
    found = attack(evaluations=40)(record(), rng=0)
    spent, scores = zip(*found.history, strict=True)
    assert list(spent) == sorted(set(spent))
    assert scores[-1] == found.score
    assert spent[0] == 1


def test_converged_means_the_tolerance_was_met_and_spares_the_others():
    found = attack(tolerance=1e-6, evaluations=500, trials=3)(record(), rng=0)
    assert found.outcome is gl.Outcome.CONVERGED
    assert found.score <= 1e-6
    assert sorted(set(found.trial_outcomes)) == ["converged", "spared"]
    assert attack(tolerance=1e-6, evaluations=3)(record(), rng=0).outcome is gl.Outcome.BUDGET


@dataclass(frozen=True)
class SomeFarAway:
    """A start from which the first numbers already overflow, for every other trial."""

    def __call__(self, shape, rng):
        start = torch.rand(shape, generator=rng, dtype=torch.float64)
        odd = int(torch.randint(2, (), generator=rng))
        return start * (float("inf") if odd else 1)


@BOTH
def test_a_diverged_trial_ends_and_the_others_go_on(make):
    found = make(init=SomeFarAway(), trials=8)(record(), rng=0)
    outcomes = set(found.trial_outcomes)
    assert gl.Outcome.DIVERGED in outcomes
    assert len(outcomes) > 1
    assert found.score < 0.5
    assert bool(torch.isfinite(found.x).all())


def test_when_all_trials_diverge_the_reconstruction_says_so():
    found = attack(init=lambda shape, rng: torch.full(shape, float("nan"), dtype=torch.float64), trials=2)(
        record()
    )
    assert found.outcome is gl.Outcome.DIVERGED
    assert found.score == float("inf")


def test_an_attack_that_cannot_be_run_says_why_instead_of_guessing():
    found = attack(labels=gl.labels.known())(record())
    assert (found.outcome, found.x, found.y) == (gl.Outcome.NOT_APPLICABLE, None, None)
    assert "reveal" in found.reason
    mixed = attack(labels=gl.labels.known()).together([record(0), record(1, reveal=("labels",))])
    assert [one.x is None for one in mixed] == [True, False]
    assert mixed[1].score < 1e-6


def test_an_update_of_zeros_is_nothing_to_match():
    obs = record()
    zero = replace(obs, update={n: torch.zeros_like(u) for n, u in obs.update.items()})
    found = attack()(zero)
    assert found.outcome is gl.Outcome.NOT_APPLICABLE
    assert "zero everywhere" in found.reason


def test_settled_and_learnt_labels_can_stand_side_by_side():
    # The sign rule answers for one record alone, so the labels of the pair that keeps them are learnt.
    labels = FirstThatAnswers((gl.labels.known(), gl.labels.idlg(), gl.labels.joint()))
    chosen = adam(labels=labels, steps=20)
    found = chosen.together([record(0), record(1, reveal=("labels",))], rng=0)
    assert [one.probabilities is None for one in found] == [True, True]
    pair = chosen.together([record(0, b=2), record(1, b=2, reveal=("labels",))], rng=0)
    assert [one.probabilities is None for one in pair] == [False, True]
    alone = chosen(record(0, b=2), rng=spawn(0, 2)[0])
    torch.testing.assert_close(pair[0].x, alone.x)


class Stubborn(nn.Module):
    """Asks for a number inside its forward, which vmap cannot answer."""

    def forward(self, x):
        return x * 2 if float(x.detach().sum()) > -1e9 else x


def test_what_vmap_cannot_run_is_run_in_turn():
    plain, stubborn = net(), net()
    doubled = nn.Sequential(Doubled(), *plain)
    stubborn = nn.Sequential(Stubborn(), *stubborn)
    chosen = adam(steps=15, trials=3)
    a, b = (chosen(record(0, model=model), rng=0) for model in (doubled, stubborn))
    torch.testing.assert_close(a.x, b.x, rtol=1e-6, atol=1e-9)
    y = torch.zeros(2, 1, dtype=torch.long)
    problems = [
        Problem([record(0, model=model)], (0, 0), y, m.SquaredError()) for model in (doubled, stubborn)
    ]
    assert [problem.vectorises for problem in problems] == [True, False]


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2


NORMS = {
    "layer": lambda: nn.LayerNorm([4, 6, 6]),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "batch": lambda: nn.BatchNorm2d(4, track_running_stats=False),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
def test_layers_whose_second_derivative_vmap_gets_wrong_are_run_in_turn(norm, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), NORMS[norm](), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 4)
        )
    rng = torch.Generator().manual_seed(0)
    y = torch.tensor([0, 1, 2])
    obs = gl.observe(model.to(dtype), torch.rand(3, 1, 8, 8, generator=rng), y)
    problem = Problem([obs], (0, 0), y.expand(2, -1), m.SquaredError(), (m.TotalVariation(10.0),))
    points = torch.rand(2, problem.layout.pixels, generator=rng).to(dtype)
    together = problem.evaluate(points, [0, 1], points.new_zeros(2))
    alone = problem.evaluate(points[1:], [1], points.new_zeros(1))
    assert not problem.vectorises
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1], b[0], rtol=1e-6, atol=1e-9)


ZOO = {
    "lenet": lambda: gl.zoo.lenet(10, size=16, seed=0),
    **{
        f"convnet {pool}": lambda pool=pool: gl.zoo.convnet(size=16, pool=pool, width=8, seed=0)
        for pool in ("max", "avg", "stride")
    },
    **{
        f"resnet {norm}": lambda norm=norm: gl.zoo.resnet(size=16, norm=norm, width=8, seed=0).eval()
        for norm in ("group", "batch")
    },
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ZOO)
def test_the_zoos_models_still_run_in_one_sweep(name, dtype):
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    obs = gl.observe(ZOO[name]().to(dtype), x, torch.tensor([1]))
    y = torch.ones(2, 1, dtype=torch.long)
    assert Problem([obs], (0, 0), y, m.SquaredError()).vectorises
    assert Problem([obs], (0, 0), y, m.Cosine(), (m.TotalVariation(0.1, 0.001),)).vectorises


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def topped(*layers, dtype=torch.float64):
    return nn.Sequential(*net(), *layers).to(dtype)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"model": topped(nn.Sigmoid())}, {"model": topped(nn.Tanh())}),
        ({"model": topped(nn.ReLU())}, {"model": topped(nn.ReLU6())}),
        ({"model": topped(nn.Softplus(1))}, {"model": topped(nn.Softplus(2))}),
        ({"model": topped(Times(1))}, {"model": topped(Times(2))}),
        ({}, {"model": net(dtype=torch.float32)}),
        ({}, {"normalization": ((0.1,), (1.0,))}),
        ({}, {"normalization": ((0.0,), (0.5,))}),
        ({}, {"loss": lambda output, y: nn.functional.cross_entropy(output, y)}),
    ],
    ids=["class", "same here", "setting", "hidden setting", "dtype", "mean", "std", "loss"],
)
def test_records_of_two_kinds_are_not_solved_together(one, other):
    one, other = record(0, **one), record(0, **other)
    adam(steps=2).together([one, one])
    for pair in ([one, other], [other, one]):
        with pytest.raises(InvalidInput, match="one by one"):
            adam(steps=2).together(pair)


def test_no_records_together_are_no_answers():
    assert attack().together([]) == []


def test_inside_the_box_no_pixel_leaves_it_whatever_the_normalisation():
    obs = record(normalization=((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))
    found = adam(box=True, init=m.Gaussian(0, 3))(obs, rng=0)
    pixels = obs.domain.to_pixels(found.x)
    assert float(pixels.min()) >= -1e-12
    assert float(pixels.max()) <= 1 + 1e-12
    free = obs.domain.to_pixels(adam(init=m.Gaussian(0, 3))(obs, rng=0).x)
    assert float(free.abs().max()) > 1


def test_double_computes_in_float64_and_answers_in_the_models_dtype():
    model = net(dtype=torch.float32)
    obs = record(model=model)
    plain, double = (attack(double=double, evaluations=200)(obs, rng=0) for double in (False, True))
    assert double.x.dtype is plain.x.dtype is torch.float32
    assert double.score < plain.score
    assert obs.like.dtype is torch.float32


def test_an_attack_leaves_observation_model_and_random_state_as_they_were():
    model = net()
    model.train()
    obs = record(model=model)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    kept = {n: u.clone() for n, u in obs.update.items()}
    state = torch.get_rng_state()
    hooks = [len(module._forward_hooks) for module in (*model.modules(), *obs.model.modules())]
    for chosen in (attack(trials=2), adam(trials=2), gl.attacks.idlg(evaluations=5)):
        chosen(obs, rng=0)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items())
    assert all(torch.equal(u, kept[n]) for n, u in obs.update.items())
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert hooks == [len(module._forward_hooks) for module in (*model.modules(), *obs.model.modules())]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: attack(trials=0), "trials"),
        (lambda: attack(evaluations=0), "evaluations"),
        (lambda: attack(tolerance=float("nan")), "tolerance"),
        (lambda: attack(tolerance="0"), "tolerance"),
        (lambda: attack(trials=2.5), "whole numbers"),
        (lambda: attack(evaluations=1.5), "whole numbers"),
        (lambda: attack(labels="known"), "function as labels.*came 'known'"),
        (
            lambda: attack(init=lambda shape, rng: torch.zeros(3))(record()),
            r"\[1, 3, 2, 2\] .*came shape \[3\]",
        ),
        (lambda: attack(init=lambda shape, rng: None)(record()), "came NoneType"),
        (lambda: m.LBFGS(history=0), "history"),
        (lambda: m.LBFGS(history=-1), "history"),
        (lambda: m.Adam(1.5), "steps"),
        (lambda: m.Adam(5, lr=float("nan")), "came 5 and nan"),
        (lambda: m.Adam(5, lr="a"), "learning rate"),
        (lambda: attack(box=True), "Box prior"),
        (lambda: attack().together([record(0), record(0, b=2)]), "one by one"),
    ],
)
def test_wrong_hyper_parameters_are_refused(make, says):
    with pytest.raises(InvalidInput, match=says):
        make()


def test_a_loss_that_takes_no_probabilities_is_explained():
    obs = record(loss=nn.functional.nll_loss)
    with pytest.raises(MissingInformation, match="class indices, or probabilities"):
        attack()(obs)


@pytest.mark.gpu
@BOTH
def test_everything_runs_on_a_gpu_and_starts_from_the_same_point(make):
    model = net()
    here, there = record(model=model), record(model=net().cuda())
    a, b = (make(trials=2)(obs, rng=0) for obs in (here, there))
    assert b.x.device.type == "cuda"
    assert b.history[0][1] == pytest.approx(a.history[0][1], rel=1e-6)
