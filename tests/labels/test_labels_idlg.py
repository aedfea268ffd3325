"""The sign rule against the definition it rests on, and against noise, which it must not survive."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradleak import LocalAdam, LocalSGD, Observation, OneGradient, labels, observe, zoo
from gradleak.labels import LabelGuess, Unanswerable
from gradleak.labels.idlg import cancels, opposed, row_products
from gradleak.trees import map_tree

RNG = torch.Generator()


def guess(obs: Observation) -> LabelGuess:
    answer = labels.idlg()(obs, rng=RNG)
    assert isinstance(answer, LabelGuess), answer
    return answer


def why_not(obs: Observation) -> str:
    answer = labels.idlg()(obs, rng=RNG)
    assert isinstance(answer, Unanswerable), answer
    return answer.reason


def net(seed: int, classes: int, bias: bool, activation: str = "relu") -> nn.Sequential:
    model = zoo.mlp(classes, sizes=(6, 12), activation=activation, seed=seed)
    if not bias:
        torch.manual_seed(seed)
        model.linear = nn.Linear(12, classes, bias=False)
    # Weights as large as after some training, so that not all classes are equally likely.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + seed % 7)
    return model.double()


def one(seed: int, classes: int, *shape: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(1, *(shape or (6,)), generator=rng, dtype=torch.float64)
    return x, torch.randint(classes, (1,), generator=rng)


def brute_force(model: nn.Module, x: Tensor, update: Any) -> list[int]:
    """The slow twin: every label whose gradient, for this very record, is the update."""
    found = []
    for label in range(model(x).shape[1]):
        model.zero_grad()
        F.cross_entropy(model(x), torch.tensor([label])).backward()
        if all(torch.allclose(p.grad, update[n], rtol=1e-6, atol=1e-12) for n, p in model.named_parameters()):
            found.append(label)
    return found


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_it_finds_what_trying_every_label_finds(bias: bool, activation: str) -> None:
    certain = 0
    for seed in range(60):
        classes = 3 + seed % 8
        model = net(seed, classes, bias, activation)
        x, y = one(seed, classes)
        obs = observe(model, x, y)
        answer = guess(obs)
        assert answer.y is not None
        assert answer.logits is None
        assert brute_force(model, x, obs.update) == answer.y.tolist() == y.tolist()
        certain += answer.certain
    assert certain > 50  # and not merely right: it knows that it is


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("init", ["uniform", "default"])
def test_what_is_certain_is_right(dtype: torch.dtype, init: str) -> None:
    outcomes = []
    for seed in range(40):
        model = zoo.lenet(10, 1, 8, init=init, seed=seed).to(dtype)
        x, y = one(seed, 10, 1, 8, 8)
        answer = labels.idlg()(observe(model, x, y), rng=RNG)
        if isinstance(answer, LabelGuess):
            assert answer.y is not None
            outcomes.append((answer.certain, answer.y.tolist() == y.tolist()))
    assert (True, False) not in outcomes
    assert outcomes.count((True, True)) >= 30


def test_two_classes() -> None:
    certain = 0
    for seed in range(30):
        x, y = one(seed, 2)
        answer = guess(observe(net(seed, 2, bias=True), x, y))
        assert answer.y is not None
        assert answer.y.tolist() == y.tolist()
        certain += answer.certain  # not where the record is fitted so well that only rounding is left
        # Without a bias the features' own sign is unknown, and with it which of the two rows is which.
        assert "nothing but their sign" in why_not(observe(net(seed, 2, bias=False), x, y))
    assert certain > 20


def products_by_definition(rows: Tensor) -> list[list[float]]:
    return [[sum(float(a * b) for a, b in zip(r, s, strict=True)) for s in rows] for r in rows]


def test_products_are_what_they_say() -> None:
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[2] = 0
    products = products_by_definition(rows)
    sums = [sum(p for j, p in enumerate(row) if j != i) for i, row in enumerate(products)]
    torch.testing.assert_close(row_products(rows), torch.tensor(sums, dtype=torch.float64))
    alone = [
        any(map(float, rows[i])) and all(p <= 0 for j, p in enumerate(row) if j != i)
        for i, row in enumerate(products)
    ]
    assert opposed(rows).tolist() == alone


def test_only_the_labels_row_is_opposed_to_all_others() -> None:
    features = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    for label in range(4):
        p = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
        p[label] -= 1
        rows = p[:, None] * features
        assert opposed(rows).tolist() == [i == label for i in range(4)]
        assert int(row_products(rows).argmin()) == label
        torch.testing.assert_close(row_products(rows), -p.square() * features.square().sum())
        assert cancels(rows)
        assert not cancels(rows + torch.eye(4, 3, dtype=torch.float64))
    # Where only two rows are left, either could be the label's.
    ambiguous = torch.tensor([[-0.5], [0.5], [0.0]], dtype=torch.float64) * features
    assert opposed(ambiguous).tolist() == [True, True, False]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_noise_of_the_gradients_own_size_breaks_it_and_it_says_so(bias: bool) -> None:
    rng = torch.Generator().manual_seed(1)

    def noisy(leaf: Tensor) -> Tensor:
        return leaf + leaf.abs().max() * torch.randn(leaf.shape, generator=rng, dtype=leaf.dtype)

    right = 0
    for seed in range(60):
        model = net(seed, 10, bias)
        x, y = one(seed, 10)
        update = map_tree(noisy, observe(model, x, y).update)
        answer = labels.idlg()(Observation.from_update(model, update, x_shape=(1, 6)), rng=RNG)
        if isinstance(answer, LabelGuess):
            assert not answer.certain
            right += answer.y is not None and answer.y.tolist() == y.tolist()
    assert right < 50


def test_another_loss_or_client_is_never_certain() -> None:
    model = net(0, 5, bias=True)
    x, y = one(0, 5)

    def smooth(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y, label_smoothing=0.1)

    class Flipped(OneGradient):  # what a client that sends its step, not its gradient, would send
        def __call__(self, *args: Any) -> dict[str, Tensor]:
            return {name: -leaf for name, leaf in super().__call__(*args).items()}

    assert guess(observe(model, x, y)).certain
    assert not guess(observe(model, x, y, loss=smooth)).certain
    for classes in (2, 5):
        model, (x, y) = net(0, classes, bias=True), one(0, classes)
        assert not guess(observe(model, x, y, client=Flipped())).certain


def test_a_batch_is_refused_with_its_size() -> None:
    x, _ = one(0, 5)
    obs = observe(net(0, 5, bias=True), x.repeat(3, 1), torch.tensor([0, 1, 2]))
    assert "this batch holds 3" in why_not(obs)


class Turned(nn.Module):
    """Its logits are not what its last layer gives, but their opposites."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return -self.out(x)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.out(x).tanh())


class Tied(nn.Module):
    def __init__(self, *, last_first: bool) -> None:
        super().__init__()
        if last_first:  # whoever comes first gives the weight its name
            self.out, self.first = nn.Linear(6, 6), nn.Linear(6, 6)
        else:
            self.first, self.out = nn.Linear(6, 6), nn.Linear(6, 6)
        self.out.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.first(x).tanh())


def frozen_head() -> nn.Module:
    model = net(0, 5, bias=True)
    model.linear.requires_grad_(False)
    return model


NO_HEAD = {
    "activation": lambda: nn.Sequential(nn.Linear(6, 5), nn.Sigmoid()),
    "a function": Turned,
    "runs twice": Twice,
    "tied": lambda: Tied(last_first=False),
    "tied the other way": lambda: Tied(last_first=True),
    "frozen": frozen_head,
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (6, 1)), nn.Conv1d(6, 5, 1), nn.Flatten()),
    "two heads": lambda: nn.Sequential(nn.Linear(6, 4), nn.ConstantPad1d((0, 1), 0.0)),
}


@pytest.mark.parametrize("build", NO_HEAD.values(), ids=NO_HEAD.keys())
def test_a_model_without_a_linear_head_is_refused(build: Any) -> None:
    obs = observe(build().double(), *one(0, 2))
    assert "does not end in a linear layer" in why_not(obs)


def test_a_linear_model_is_its_own_head() -> None:
    x, y = one(3, 5)
    for model in (nn.Linear(6, 5), nn.Linear(6, 5, bias=False)):
        answer = guess(observe(model.double(), x, y))
        assert answer.y is not None
        assert answer.y.tolist() == y.tolist()


def test_a_bias_that_is_frozen_is_no_bias() -> None:
    model = net(0, 5, bias=True)
    model.linear.bias.requires_grad_(False)
    x, y = one(0, 5)
    answer = guess(observe(model, x, y))
    assert answer.y is not None
    assert answer.y.tolist() == y.tolist()


def test_a_gradient_in_which_nothing_stands_out_is_refused() -> None:
    model = net(0, 5, bias=True)
    x, y = one(0, 5)
    update = {**observe(model, x, y).update, "linear.bias": torch.zeros(5, dtype=torch.float64)}
    assert "should stand out" in why_not(Observation.from_update(model, update, x_shape=(1, 6)))


def test_it_draws_nothing_and_leaves_no_hooks() -> None:
    obs = observe(net(0, 5, bias=True), *one(0, 5))
    before, own = torch.get_rng_state(), RNG.get_state()
    guess(obs)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(RNG.get_state(), own)
    assert not any(module._forward_hooks for module in obs.model.modules())


def test_the_sign_is_that_of_the_gradient_where_weights_were_sent() -> None:
    """W_T − W_0 points the other way, and one that Adam made points nowhere in particular."""
    x, _ = zoo.pictures("faces", n=1, size=8, channels=1)
    y = torch.tensor([3])
    for model in (zoo.mlp(sizes=(64, 12), classes=5, seed=0), zoo.lenet(classes=5, channels=1, size=8)):
        for client in (OneGradient(), LocalSGD(1, 1, 0.1), LocalSGD(3, 1, 0.01, 0.9, 1e-3)):
            answer = guess(observe(model, x, y, client=client))
            assert answer.y is not None
            assert answer.y.tolist() == [3]
            assert answer.certain is (client == OneGradient())
        assert "no gradient" in why_not(observe(model, x, y, client=LocalAdam(2, 1, 0.01)))
