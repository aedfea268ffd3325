"""What a defense costs: whole federated runs on toy problems, and the parts that they are made of."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import gradleak as gl
from gradleak.defenses import Course, Federation, Mask, Spread, Utility, utility
from gradleak.defenses.base import Defense
from gradleak.defenses.utility.federated import averaged, sends_weights, weights_by_round
from gradleak.defenses.utility.shares import shares
from gradleak.errors import InvalidBatch, InvalidInput, InvalidModel, InvalidUpdate
from gradleak.observe import Client, Task
from gradleak.observe.task import cross_entropy, split_tensors, structure_of
from gradleak.observe.uncertainty import undefended
from gradleak.trees import Tree

Records = tuple[Tensor, Tensor]


def blobs(n: int, seed: int, classes: int = 3) -> Records:
    """Points around corners that a linear layer tells apart, most of them of class 0."""
    rng = Generator().manual_seed(seed)
    y = torch.arange(n) % (classes + 1) % classes
    corners = 4 * torch.eye(classes, 4)
    return corners[y] + 0.5 * torch.randn(n, 4, generator=rng), y


def linear(seed: int = 0) -> nn.Module:
    return gl.zoo.mlp(3, sizes=(4, 8), seed=seed)


TRAIN, TEST = blobs(120, 0), blobs(80, 1)


def run(clients: Any, model: nn.Module | Callable[[int], nn.Module] = linear, **settings: Any) -> Utility:
    chosen = {"participants": 4, "rounds": 30, "batch_size": 8, "seeds": 2, **settings}
    return utility(model, TRAIN, TEST, clients=clients, **chosen)


def equal(a: Course, b: Course) -> bool:
    return torch.equal(a.accuracy, b.accuracy) and a.diverged == b.diverged


def weights_after(client: Client, federation: Federation, y: Tensor = TRAIN[1]) -> dict[str, Tensor]:
    params, constants = split_tensors(linear().double())
    task = Task(structure_of(linear().double()), constants, cross_entropy)
    mine = shares(y, federation.participants, None, Generator().manual_seed(1))
    rng = Generator().manual_seed(2)
    *_, last = weights_by_round(federation, client, task, params, TRAIN[0].double(), y, mine, rng)
    return last


def test_what_can_be_told_apart_is_learnt_without_a_defense() -> None:
    found = run(gl.OneGradient())
    assert list(found.courses) == ["none"]
    assert found.courses["none"].final.mean >= 0.98
    assert found.null == 0.5
    assert found.note == ""
    assert found.rounds == (3, 6, 9, 12, 15, 18, 21, 24, 27, 30)
    assert found.courses["none"].accuracy.shape == (2, 10)


def test_huge_noise_leaves_no_more_than_a_guess() -> None:
    """Of one linear layer: the gradients of a ReLU network grow with weights that noise has blown up."""
    found = run({"noise": gl.defenses.GaussianNoise(std=1e3)}, nn.Linear(4, 3), seeds=5)
    assert found.courses["none"].final.mean >= 0.98
    assert found.courses["noise"].final.mean < found.null + 0.15
    assert found.courses["noise"].diverged == (None,) * 5
    assert found.cost("noise").low > 0.2


@pytest.mark.parametrize(
    "bare", [gl.OneGradient(), gl.LocalSGD(2, 3, 0.05)], ids=["one gradient", "shuffled local training"]
)
def test_a_defense_that_does_nothing_costs_nothing_to_the_bit(bare: Client) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(), nn.Linear(16, 3)).train()
    found = run([Mask(bare, rate=0.0), bare], model, rounds=4, lr=0.01)
    first, second = found.courses.values()
    assert equal(first, second)
    assert found.courses["none"].client == repr(bare)


@dataclass(frozen=True)
class Watched(Defense):
    """Keeps what it was handed and which dice it has."""

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        SEEN.append((self.dice, x.clone(), {name: leaf.clone() for name, leaf in params.items()}))
        return self.client(task, params, x, y)


SEEN: list[tuple[int | None, Tensor, dict[str, Tensor]]] = []


def test_every_call_has_dice_and_records_of_its_own_and_all_clients_the_same_records() -> None:
    SEEN.clear()
    run({"none": Watched(), "noise": gl.defenses.GaussianNoise(Watched(), std=1.0)}, rounds=3, seeds=2)
    dice = [one for one, _, _ in SEEN]
    assert None not in dice
    per_run = 3 * 4
    assert len(SEEN) == 4 * per_run
    for start in range(0, len(SEEN), per_run):
        assert len(set(dice[start : start + per_run])) == per_run
    first, noisy, other = (SEEN[i * per_run : (i + 1) * per_run] for i in range(3))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(first, noisy, strict=True))
    assert not any(torch.equal(a[1], b[1]) for a, b in zip(first, other, strict=True))
    start = first[0][2], noisy[0][2], other[0][2]
    assert all(torch.equal(start[0][name], start[1][name]) for name in start[0])
    assert not all(torch.equal(start[0][name], start[2][name]) for name in start[0])
    rounds = {tuple(x.flatten().tolist()) for _, x, _ in first}
    assert len(rounds) == per_run


def test_one_local_step_is_a_gradient_step_of_the_server() -> None:
    plain = Federation(4, rounds=5, batch_size=8, lr=0.3, momentum=0.0)
    ours = weights_after(gl.LocalSGD(1, 8, 0.3), plain)
    theirs = weights_after(gl.OneGradient(), plain)
    for name, leaf in theirs.items():
        torch.testing.assert_close(ours[name], leaf, rtol=0, atol=1e-12)


def test_the_server_steps_as_torch_does_on_all_records_at_once() -> None:
    """With every record in every batch, the mean of the shares' gradients is the gradient of all."""
    federation = Federation(4, rounds=6, batch_size=None, lr=0.2, momentum=0.8)
    model = linear().double()
    descent = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.8)
    x, y = TRAIN[0][:118].double(), TRAIN[1][:118]  # shares of 30, 30, 29 and 29
    for _ in range(6):
        descent.zero_grad()
        cross_entropy(model(x), y).backward()
        descent.step()
    ours = weights_after(gl.OneGradient(), federation, y)
    for name, leaf in model.named_parameters():
        torch.testing.assert_close(ours[name], leaf.detach(), rtol=0, atol=1e-12)


def test_averaging_is_the_mean_weighted_by_records() -> None:
    a, b = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([5.0, 6.0])}
    assert averaged([(a, 8), (b, 8)])["w"].tolist() == [3.0, 4.0]
    assert averaged([(a, 3), (b, 1)])["w"].tolist() == [2.0, 3.0]


def test_only_some_take_part_in_a_round() -> None:
    SEEN.clear()
    run({"none": Watched()}, rounds=5, seeds=1, per_round=2, batch_size=None)
    assert len(SEEN) == 10
    taken = [tuple(x.flatten().tolist()) for _, x, _ in SEEN]
    assert len(set(taken)) > 2  # others in other rounds
    assert all(taken[i] != taken[i + 1] for i in range(0, 10, 2))  # nobody twice in one


@pytest.mark.parametrize("alpha", [None, 1e-9, 0.1, 1.0, 1e9])
def test_every_record_has_one_owner_and_shares_are_even(alpha: float | None) -> None:
    y = torch.tensor([0] * 40 + [5] * 25 + [7] * 38)
    split = shares(y, 10, alpha, Generator().manual_seed(0))
    assert sorted(torch.cat(split).tolist()) == list(range(103))
    assert sorted({len(share) for share in split}) == [10, 11]


def test_a_small_alpha_skews_the_labels() -> None:
    y = torch.arange(2000) % 10

    def purity(alpha: float | None) -> float:
        split = shares(y, 10, alpha, Generator().manual_seed(0))
        return sum(float(y[share].bincount().max()) / len(share) for share in split) / 10

    assert purity(1e-6) > 0.8
    assert purity(1e-6) > purity(0.5) + 0.1 > purity(1000.0) + 0.2
    assert purity(1000.0) < 0.16
    assert purity(None) < 0.16


def test_the_first_participants_mix_is_a_dirichlet_draw() -> None:
    """Of a Dirichlet(a, a) and n draws, the count's variance is that of a beta-binomial distribution."""
    y = torch.arange(60) % 2  # no label runs out while the first participant draws
    alpha, n = 0.7, 20
    rng = Generator().manual_seed(0)
    counts = torch.tensor([float((y[shares(y, 3, alpha, rng)[0]] == 0).sum()) for _ in range(400)])
    expected = n * 0.25 * (2 * alpha + n) / (2 * alpha + 1)
    assert float(counts.mean()) == pytest.approx(n / 2, abs=3 * math.sqrt(expected / 400))
    assert float(counts.var()) == pytest.approx(expected, rel=0.2)  # a binomial one would be 5


def test_a_cost_is_paired_by_seed() -> None:
    def course(*final: float) -> Course:
        return Course("", torch.tensor(final, dtype=torch.float64)[:, None], (None,) * 3)

    courses = {"none": course(0.9, 0.5, 0.7), "defense": course(0.8, 0.4, 0.6)}
    found = Utility(courses, "none", (1,), 0.1, 100, Federation(), None)
    cost = found.cost("defense")
    assert cost.mean == pytest.approx(0.1)
    assert cost.std == pytest.approx(0, abs=1e-12)  # though each one's own spread is 0.2
    assert found.courses["defense"].final.std == pytest.approx(0.2)
    assert found.cost("none") == Spread(0, 0, 0, 0)


def test_an_interval_is_students() -> None:
    spread = Spread.of([1.0, 2.0, 3.0])
    assert (spread.mean, spread.std) == (2, 1)
    assert spread.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(Spread.of([1.0]).high)
    assert Spread.of([1.0]).to_dict() == {"mean": 1.0, "std": None, "low": None, "high": None}


def test_a_run_that_diverges_is_a_result() -> None:
    @dataclass(frozen=True)
    class Explodes(Defense):
        def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            assert all(bool(leaf.isfinite().all()) for leaf in params.values())
            return {name: leaf * 1e30 for name, leaf in self.client(task, params, x, y).items()}

    found = run({"explodes": Explodes()})
    assert equal(found.courses["none"], run(gl.OneGradient()).courses["none"])
    ended = found.courses["explodes"]
    assert all(1 <= n <= 3 for n in ended.diverged if n is not None)
    assert None not in ended.diverged
    assert bool((ended.accuracy == found.null).all())
    assert json.loads(json.dumps(found.to_dict()))["clients"]["explodes"]["diverged"] == list(ended.diverged)


def test_a_baseline_that_does_not_learn_is_said() -> None:
    assert "no cost can be told" in run(gl.OneGradient(), lr=1e-9).note


def test_model_and_randomness_come_back_and_a_seed_says_it_all() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 3)).train()
    before = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    clients = {"noise": gl.defenses.GaussianNoise(gl.LocalSGD(1, 4, 0.05), std=0.1)}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = run(clients, model, rounds=4, rng=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())
    torch.manual_seed(6)
    assert first.to_dict() == run(clients, model, rounds=4, rng=7).to_dict()
    assert first.to_dict() != run(clients, model, rounds=4, rng=8).to_dict()


def test_weights_that_a_function_draws_globally_follow_the_seed() -> None:
    def build(seed: int) -> nn.Module:
        made.append(nn.Linear(4, 3))
        return made[-1]

    made: list[nn.Module] = []
    state = torch.get_rng_state()
    run(gl.OneGradient(), build, rounds=1)
    run(gl.OneGradient(), build, rounds=1)
    weights = [one.weight.tolist() for one in made if isinstance(one, nn.Linear)]
    assert weights[:2] == weights[2:]
    assert weights[0] != weights[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_rests_while_accuracy_is_told() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9)).train()
    found = run({"none": gl.LocalSGD(1, 8, 0.1)}, model, rounds=40)
    assert found.courses["none"].final.mean >= 0.98


def test_one_logit_is_judged_by_its_sign() -> None:
    x, y = blobs(60, 0, classes=2)
    found = utility(
        gl.zoo.mlp(1, sizes=(4, 4), seed=0),
        (x, y),
        (x, y),
        clients=gl.OneGradient(),
        loss=gl.logistic,
        participants=3,
        rounds=40,
        batch_size=8,
        seeds=1,
    )
    assert found.courses["none"].final.mean >= 0.98


def test_progress_tells_client_and_share() -> None:
    told: list[tuple[str, float]] = []
    run(
        {"mask": Mask(rate=0.5)},
        rounds=2,
        seeds=1,
        progress=lambda name, share: told.append((name, share)),
    )
    assert told == [("none", 0.25), ("none", 0.5), ("mask", 0.75), ("mask", 1.0)]


def test_clients_know_what_they_send_and_what_is_below() -> None:
    local = gl.LocalSGD(1, 4, 0.1)
    noisy = gl.defenses.GaussianNoise(Mask(local, rate=0.5), std=1.0)
    assert sends_weights(noisy)
    assert sends_weights(gl.Summed(2, noisy))
    assert not sends_weights(Mask(rate=0.5))
    assert undefended(noisy) == local
    assert undefended(gl.Summed(2, noisy)) == gl.Summed(2, local)
    assert undefended(gl.Summed(2, (noisy, Mask(rate=0.5)))) == gl.Summed(2, (local, gl.OneGradient()))
    found = run([noisy], rounds=1, seeds=1)
    assert list(found.courses) == ["none", repr(noisy)]
    assert found.courses["none"].client == repr(local)


def norm(train: bool, **settings: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, **settings), nn.Linear(8, 3)).train(train)


def test_batch_norm_is_refused_where_it_mixes_records() -> None:
    for mixing in (norm(True), norm(False, track_running_stats=False)):
        with pytest.raises(InvalidModel, match=r"layer '1' \(BatchNorm1d\).*GroupNorm, or model.eval\(\)"):
            run(gl.OneGradient(), mixing)
    assert run(gl.OneGradient(), norm(False), rounds=1).rounds == (1,)


def test_clients_that_cannot_be_compared_are_refused() -> None:
    local = gl.LocalSGD(1, 4, 0.1)
    with pytest.raises(InvalidInput, match="one and the same client"):
        run([Mask(rate=0.1), Mask(local, rate=0.1)])
    with pytest.raises(InvalidInput, match="each client once"):
        run([Mask(rate=0.1), Mask(rate=0.1)])
    with pytest.raises(InvalidInput, match="came none"):
        run({})
    with pytest.raises(InvalidInput, match="client as a function"):
        run({"none": 3})
    with pytest.raises(InvalidInput, match="a sum of both"):
        run([gl.Summed(2, (local, gl.OneGradient()))])
    with pytest.raises(InvalidUpdate, match=r"linear1\.bias is missing"):
        run(lambda task, params, x, y: {"linear.weight": params["linear.weight"]})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"participants": 0}, "participants as a whole number of 1 or more; came 0"),
        ({"seeds": 0}, "seeds as a whole number of 1 or more; came 0"),
        ({"rounds": 0}, "rounds as a whole number"),
        ({"rounds": True}, "rounds as a whole number"),
        ({"evaluations": 0}, "evaluations as a whole number"),
        ({"batch_size": 0}, "batch_size as a whole number"),
        ({"batch_size": 31}, "batches of 31; came 120, of which some would have 30"),
        ({"participants": 121, "batch_size": None}, "121 participants"),
        ({"per_round": 5}, "per_round of at most the 4 participants; came 5"),
        ({"lr": 0}, "lr as a number above 0"),
        ({"momentum": 1}, "momentum"),
        ({"alpha": 0}, "alpha as a number above 0"),
    ],
)
def test_settings_that_make_no_run_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises((InvalidInput, InvalidBatch), match=said):
        run(gl.OneGradient(), **settings)


@pytest.mark.parametrize(
    ("model", "train", "said"),
    [
        (nn.Flatten(), TRAIN, "it has no parameters"),
        (nn.Linear(4, 2), TRAIN, "labels from 0 to 1"),
        (nn.Linear(4, 1), TRAIN, "came one logit"),
        (nn.Linear(5, 3), TRAIN, "cannot take a batch of shape"),
        (nn.Linear(4, 3), TRAIN[0], "as a pair"),
        (nn.Linear(4, 3), (TRAIN[0], TRAIN[1][:5]), "expected 120 class indices"),
        (nn.Linear(4, 3), (TRAIN[0], TRAIN[1].float()), "expected 120 class indices"),
        (nn.Linear(4, 3), (TRAIN[0] / 0, TRAIN[1]), "finite"),
        (nn.Linear(4, 3), (TRAIN[1][:, None], TRAIN[1]), "as floats"),
        ("linear", TRAIN, "model, or what makes one"),
        (lambda seed: None, TRAIN, "torch.nn.Module"),
    ],
)
def test_models_and_records_that_do_not_fit_are_refused(model: Any, train: Any, said: str) -> None:
    with pytest.raises((InvalidInput, InvalidModel), match=said):
        utility(model, train, TEST, clients=gl.OneGradient(), participants=2)
