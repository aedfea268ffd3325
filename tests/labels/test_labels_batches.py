"""Labels of whole batches: against the truth, against slow twins, and where they must not claim anything."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import milp
from torch import Tensor, nn

from gradleak import LocalSGD, Observation, labels, observe, zoo
from gradleak.labels import LabelGuess, Unanswerable
from gradleak.labels.allocate import allocate
from gradleak.labels.evidence import evidence
from gradleak.labels.presence import nonnegative
from gradleak.labels.prototypes import prototypes
from gradleak.labels.sparse import span
from gradleak.trees import map_tree, scale

STRATEGIES = {
    "row_minimum": labels.row_minimum(),
    "row_sum": labels.row_sum(),
    "zero_shot": labels.zero_shot(),
    "zero_shot features": labels.zero_shot("features"),
    "simulated": labels.simulated(),
    "combined": labels.combined(),
    "factorized": labels.factorized(ways=20),
    "best": labels.best(ways=20),
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def convnet(seed: int = 0, last: str = "relu") -> nn.Sequential:
    torch.manual_seed(seed)
    act: nn.Module = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}[last]()
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 24, 3, 2, 1), act, nn.Flatten(), nn.Linear(96, 10)
    ).eval()


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    return zoo.pictures("digits", size=8)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A ReLU network at about 90 %, from the first 1200 digits."""
    x, y = digits()
    model = convnet(1)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    draws = rng(1)
    for _ in range(150):
        chosen = torch.randint(1200, (32,), generator=draws)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    accuracy = float((model(x[1200:]).argmax(1) == y[1200:]).double().mean())
    assert 0.8 < accuracy < 0.98
    return model


def batch(seed: int, k: int) -> tuple[Tensor, Tensor]:
    x, y = digits()
    chosen = 1200 + torch.randint(len(x) - 1200, (k,), generator=rng(seed))
    return x[chosen], y[chosen]


def settled(answer: Any) -> LabelGuess:
    assert isinstance(answer, LabelGuess), answer
    assert answer.y is not None
    return answer


def agreement(answer: Any, y: Tensor) -> float:
    guess = settled(answer)
    assert torch.equal(guess.counts.cpu(), torch.bincount(guess.y.cpu(), minlength=10))
    return float(torch.minimum(guess.counts, torch.bincount(y, minlength=10)).sum()) / len(y)


# counts


@pytest.mark.parametrize("seed", range(6))
def test_allocation_is_the_nearest_whole_vector(seed: int) -> None:
    """The slow twin: an integer program over the records, one by one."""
    draws = rng(seed)
    wanted = 3 * torch.randn(4, generator=draws, dtype=torch.float64)
    total = 6
    least = torch.tensor([1, 0, 0, 1])
    # every count of a class costs what the distance grows by: increasing, so a program takes them in order
    units = [(n, c) for n in range(4) for c in range(total)]
    cost = [(c + 1 - float(wanted[n])) ** 2 - (c - float(wanted[n])) ** 2 for n, c in units]
    low = [float(c < int(least[n])) for n, c in units]
    solved = milp(
        np.array(cost),
        integrality=np.ones(len(units)),
        bounds=(np.array(low), np.ones(len(units))),
        constraints=(np.ones((1, len(units))), total, total),
    )
    by_program = [
        sum(round(v) for (n, _), v in zip(units, solved.x, strict=True) if n == m) for m in range(4)
    ]
    assert allocate(wanted, total, least=least).tolist() == by_program


def test_allocation_survives_nonsense() -> None:
    wanted = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.2])
    assert int(allocate(wanted, 5).sum()) == 5
    assert allocate(torch.zeros(3), 1, least=torch.ones(3).long()).sum() == 1
    assert allocate(torch.ones(3), 4, only=torch.tensor([False, True, False])).tolist() == [0, 4, 0]


def test_counts_come_from_settled_and_from_soft_labels() -> None:
    assert LabelGuess(y=torch.tensor([2, 0, 2]), classes=4).counts.tolist() == [1, 0, 2, 0]
    soft = torch.tensor([[0.0, 3.0], [1.0, 0.0], [0.0, 2.0]])
    assert LabelGuess(logits=soft).counts.tolist() == [1, 2]
    with pytest.raises(ValueError, match="number of classes"):
        _ = LabelGuess(y=torch.tensor([0])).counts


# the published rules


@pytest.mark.parametrize(
    "build", [convnet, lambda s: zoo.lenet(10, 1, 8, seed=s), lambda s: zoo.mlp(10, 1, 8, seed=s)]
)
def test_zero_shot_counts_repeats_where_distinct_labels_cannot(build: Any) -> None:
    counted, distinct = [], []
    for seed in range(4):
        x, _ = batch(seed, 8)
        y = torch.tensor([1, 1, 1, 4, 4, 7, 7, 7])
        obs = observe(build(seed), x, y)
        for form in ("bias", "features"):
            counted.append(agreement(labels.zero_shot(form)(obs, rng=rng()), y))
        counted.append(agreement(labels.best()(obs, rng=rng()), y))
        distinct.append(agreement(labels.row_minimum()(obs, rng=rng()), y))
        distinct.append(agreement(labels.row_sum()(obs, rng=rng()), y))
    assert min(counted) == 1
    assert max(distinct) < 0.5  # three classes are there: at best three of eight


def test_the_bias_form_is_exact_with_the_true_probabilities(trained: nn.Module) -> None:
    """The identity it rests on, for the very batch instead of dummies."""
    x, y = batch(3, 12)
    found = evidence(observe(trained.double(), x, y))
    assert not isinstance(found, Unanswerable)
    assert found.bias is not None
    p = trained(x.double()).softmax(-1).mean(0)
    trained.float()
    counts = 12 * (p - found.bias)
    torch.testing.assert_close(counts, torch.bincount(y, minlength=10).double(), atol=1e-9, rtol=0)


def test_distinct_labels_are_found_and_too_many_refused() -> None:
    x, _ = batch(0, 4)
    y = torch.tensor([0, 3, 5, 8])
    obs = observe(convnet(), x, y)
    for rule in (labels.row_minimum(), labels.row_sum()):
        assert settled(rule(obs, rng=rng())).y.tolist() == [0, 3, 5, 8]
        x12, y12 = batch(1, 12)
        answer = rule(observe(convnet(), x12, y12), rng=rng())
        assert isinstance(answer, Unanswerable)
        assert "repeat" in answer.reason


def test_local_training_with_little_drift_and_with_much() -> None:
    right: dict[str, list[float]] = {"start": [], "two-point": [], "simulated": [], "best": []}
    for seed in range(4):
        x, _ = batch(seed, 16)
        y = torch.multinomial(torch.tensor([0.5, 0.3, 0.1, 0.1] + [0.01] * 6), 16, True, generator=rng(seed))
        slow = observe(convnet(seed), x, y, client=LocalSGD(3, 8, 0.01))
        for rule in (labels.zero_shot(path="start"), labels.zero_shot(), labels.simulated(), labels.best()):
            assert agreement(rule(slow, rng=rng()), y) == 1
        fast = observe(zoo.lenet(10, 1, 8, seed=seed), x, y, client=LocalSGD(3, 8, 0.1))
        right["start"].append(agreement(labels.zero_shot(path="start")(fast, rng=rng()), y))
        right["two-point"].append(agreement(labels.zero_shot(path="two-point")(fast, rng=rng()), y))
        right["simulated"].append(agreement(labels.simulated()(fast, rng=rng()), y))
        answer = settled(labels.best()(fast, rng=rng()))
        right["best"].append(agreement(answer, y))
        assert not answer.certain
    mean = {name: sum(values) / 4 for name, values in right.items()}
    assert mean["start"] + 0.1 < mean["two-point"]  # the drift is what makes the difference
    assert mean["two-point"] <= mean["simulated"] + 0.05
    assert mean["best"] > 0.6


# presence


def test_presence_is_never_wrong(trained: nn.Module) -> None:
    seen = there = 0
    for model in (trained, convnet(), zoo.lenet(10, 1, 8, seed=0)):
        for k in (2, 5, 16, 40):
            for seed in range(4):
                x, y = batch(seed, k)
                answer = labels.presence()(observe(model, x, y), rng=rng())
                assert isinstance(answer, labels.Presence)
                assert answer.proven
                assert set(answer.present.nonzero()[:, 0].tolist()) <= set(y.tolist())
                seen += int(answer.present.sum())
                there += len(set(y.tolist()))
    assert seen > 0.8 * there


@pytest.mark.parametrize("last", ["tanh", "gelu"])
def test_presence_is_refused_where_features_can_be_negative(last: str) -> None:
    obs = observe(convnet(0, last), *batch(0, 4))
    assert nonnegative(obs, rng()) is None
    answer = labels.presence()(obs, rng=rng())
    assert isinstance(answer, Unanswerable)
    assert "never negative" in answer.reason


def test_presence_is_no_proof_by_dummies_alone_or_after_local_steps() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x.flatten(1).square())

    x, y = batch(0, 4)
    torch.manual_seed(0)
    for obs in (observe(Hidden(), x, y), observe(convnet(), x, y, client=LocalSGD(2, 2, 0.01))):
        answer = labels.presence()(obs, rng=rng())
        assert isinstance(answer, labels.Presence)
        assert not answer.proven
        assert not settled(labels.combined()(obs, rng=rng())).certain


# taking the gradient apart


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_trained_relu_network_falls_apart_into_its_records(trained: nn.Module, dtype: torch.dtype) -> None:
    certain = 0
    for seed in range(5):
        k = 4 + seed % 3
        x, y = batch(100 + seed, k)
        model = convnet(1).to(dtype)
        model.load_state_dict(trained.state_dict())
        answer = labels.factorized()(observe(model, x.to(dtype), y), rng=rng())
        if isinstance(answer, LabelGuess) and answer.certain:
            assert answer.y is not None
            assert answer.y.tolist() == y.sort().values.tolist()
            assert answer.confidence == 1
            certain += 1
    assert certain >= 2


def test_what_is_certain_is_right_and_noise_is_not_certain(trained: nn.Module) -> None:
    rules = [labels.best(ways=20), labels.factorized(ways=20), labels.combined()]
    claims = 0
    for seed in range(4):
        x, y = batch(200 + seed, 3 + seed)
        obs = observe(trained, x, y)
        draws = rng(seed)

        def noisy(leaf: Tensor, draws: torch.Generator = draws) -> Tensor:
            return leaf + 0.3 * leaf.std() * torch.randn(leaf.shape, generator=draws)

        bad = dataclasses.replace(obs, update=map_tree(noisy, obs.update))
        for rule in rules:
            answer = rule(obs, rng=rng())
            if isinstance(answer, LabelGuess) and answer.certain:
                claims += 1
                assert answer.y is not None
                assert answer.y.tolist() == y.sort().values.tolist()
            answer = rule(bad, rng=rng())
            if isinstance(answer, LabelGuess) and answer.certain:
                assert answer.y is not None  # a proven class stays proven when noise is small beside it
                assert answer.y.tolist() == y.sort().values.tolist()
            if rule is rules[1]:
                assert isinstance(answer, Unanswerable) or not answer.certain
    assert claims >= 4


def test_the_span_holds_the_records_and_nothing_of_noise() -> None:
    draws = rng(0)
    D = torch.randn(5, 20, generator=draws, dtype=torch.float64)
    A = torch.randn(5, 31, generator=draws, dtype=torch.float64).relu()
    G = D.mT @ A + 1e-9 * torch.randn(20, 31, generator=draws, dtype=torch.float64)
    found = span(G, 8, 1e-16)
    assert found.rank == 5
    torch.testing.assert_close(A @ found.V.mT @ found.V, A, atol=1e-6, rtol=0)
    assert float(found.misfit(D).max()) < 1e-6
    assert float(found.misfit(torch.randn(50, 20, generator=draws, dtype=torch.float64)).min()) > 0.1


def test_prototypes_are_taken_for_their_class(trained: nn.Module) -> None:
    kinds = prototypes(observe(trained, *batch(0, 2)), rng())
    assert (kinds.p.argmax(1) == torch.arange(10)).double().mean() >= 0.9
    assert torch.allclose(kinds.p.sum(1), torch.ones(10, dtype=torch.float64))


# the choice


def test_best_beats_both_nulls_and_the_published_rule_on_a_trained_network(trained: nn.Module) -> None:
    best, published, flat = [], [], []
    for seed in range(8):
        x, y = batch(300 + seed, 6)
        obs = observe(trained, x, y)
        best.append(agreement(labels.best(ways=10)(obs, rng=rng()), y))
        published.append(agreement(labels.zero_shot()(obs, rng=rng()), y))
        flat.append(float(torch.bincount(y, minlength=10).clamp_max(0.6).sum()) / 6)
    assert sum(best) > sum(flat) + 0.2
    assert sum(best) > sum(published) + 0.2


def test_one_class_for_each_record_is_certain() -> None:
    x, _ = batch(0, 3)
    answer = settled(labels.best()(observe(convnet(), x, torch.tensor([7, 2, 5])), rng=rng()))
    assert answer.certain
    assert answer.y.tolist() == [2, 5, 7]


@pytest.mark.parametrize("name", STRATEGIES)
def test_nobody_reads_the_revealed_labels(name: str, trained: nn.Module) -> None:
    x, y = batch(5, 5)
    hidden = observe(trained, x, y)
    lied = observe(trained, x, y, reveal=("labels",))
    object.__setattr__(lied, "labels", (y + 1) % 10)
    answers = [STRATEGIES[name](obs, rng=rng(3)) for obs in (hidden, lied)]
    if isinstance(answers[0], Unanswerable):
        assert answers[0] == answers[1]
    else:
        first, second = map(settled, answers)
        assert first.y.tolist() == second.y.tolist()
        assert (first.certain, first.confidence) == (second.certain, second.confidence)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_generator_alone_decides(name: str, trained: nn.Module) -> None:
    obs, before = observe(trained, *batch(6, 6)), torch.get_rng_state()
    answers = [STRATEGIES[name](obs, rng=rng(4)) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    if isinstance(answers[0], Unanswerable):
        assert answers[0] == answers[1]
    else:
        assert settled(answers[0]).y.tolist() == settled(answers[1]).y.tolist()
        assert settled(answers[0]).confidence == settled(answers[1]).confidence


def test_labels_come_sorted_on_the_models_device(trained: nn.Module) -> None:
    obs = observe(trained, *batch(7, 12))
    for name, rule in STRATEGIES.items():
        answer = rule(obs, rng=rng())
        if isinstance(answer, LabelGuess):
            assert answer.y is not None
            assert answer.y.dtype is torch.int64
            assert answer.y.device == obs.like.device
            assert answer.y.tolist() == answer.y.sort().values.tolist(), name
            assert answer.classes == 10
            assert not answer.certain or answer.confidence == 1
            assert answer.confidence is None or 0 <= answer.confidence <= 1


# bad input


def squares(output: Tensor, y: Tensor) -> Tensor:
    return (output.sum(1) - y).square().mean()


def no_head(x: Tensor, y: Tensor) -> Observation:
    return observe(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh()), x, y)


def another_loss(x: Tensor, y: Tensor) -> Observation:
    return observe(convnet(), x, y.float(), loss=squares)


def silent(x: Tensor, y: Tensor) -> Observation:
    obs = observe(convnet(), x, y)
    return dataclasses.replace(obs, update=scale(obs.update, 0.0))


BAD = {
    "no linear head": (no_head, "linear layer"),
    "loss": (another_loss, "cross entropy"),
    "zero": (silent, "zero"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", STRATEGIES)
def test_bad_input_is_answered_with_a_reason(name: str, case: str) -> None:
    build, reason = BAD[case]
    answer = STRATEGIES[name](build(*batch(0, 3)), rng=rng())
    assert isinstance(answer, Unanswerable)
    assert reason in answer.reason


@pytest.mark.parametrize(
    "build",
    [
        lambda: labels.zero_shot("weights"),  # type: ignore[arg-type]
        lambda: labels.zero_shot(pictures="cats"),  # type: ignore[arg-type]
        lambda: labels.zero_shot(path="end"),  # type: ignore[arg-type]
        lambda: labels.zero_shot(dummies=0),
        lambda: labels.simulated(-1),
        lambda: labels.simulated(damping=0),
    ],
)
def test_impossible_settings_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match="came"):
        build()


# a gradient that is none


def test_honest_gradients_are_not_doubted(trained: nn.Module) -> None:
    models = (trained, convnet(), zoo.lenet(10, 1, 8, seed=0), zoo.mlp(10, 1, 8, seed=0), convnet(0, "tanh"))
    for model in models:
        for k in (1, 2, 6, 16):
            for seed in range(3):
                assert labels.wrong_sign_or_scale(observe(model, *batch(seed, k))) is None
    x, y = batch(0, 8)
    assert labels.wrong_sign_or_scale(observe(convnet(), x, y, client=LocalSGD(3, 4, 0.5))) is None


@pytest.mark.parametrize(("k", "factor"), [(1, -1.0), (1, 0.01), (3, -0.01), (4, -1.0), (8, 8.0)])
def test_a_wrong_sign_or_scale_is_named(k: int, factor: float, trained: nn.Module) -> None:
    x, y = batch(1, k)
    for model in (convnet(), trained) if factor < 1 else (convnet(),):
        obs = observe(model, x, y)
        bad = dataclasses.replace(obs, update=scale(obs.update, factor))
        fault = labels.wrong_sign_or_scale(bad)
        assert fault is not None
        assert ("sign" in fault) == (factor < 0)
        answer = labels.best(ways=5)(bad, rng=rng())
        if isinstance(answer, LabelGuess):
            assert not answer.certain
            assert answer.note == fault
            assert answer.confidence is not None
            assert answer.confidence <= 0.1
