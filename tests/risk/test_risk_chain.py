"""JᵀJ by each layer's own rule, against the Jacobian written down by autograd."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.observe.jacobian import Jacobian
from gradleak.risk import chain
from gradleak.risk.chain import gram
from gradleak.risk.gram import jacobian


def drawn(*layers: nn.Module) -> nn.Module:
    model = nn.Sequential(*layers)
    rng = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data = 0.8 * torch.rand(p.shape, generator=rng) - 0.4
    return model.eval()


def convolved(activation: nn.Module, **given: object) -> nn.Module:
    first = nn.Conv2d(1, 3, 3, **given)  # type: ignore[arg-type]
    width = first(torch.zeros(1, 1, 8, 8)).shape[-1]
    second = nn.Conv2d(3, 4, (2, 3), stride=(2, 1), padding=(0, 1))
    return drawn(
        first,
        activation,
        nn.Sequential(second, activation),
        nn.Flatten(),
        nn.Linear(4 * (width // 2) * width, 5),
    )


def batch(n: int) -> tuple[Tensor, Tensor]:
    return gl.zoo.pictures("faces", n=n, size=8, channels=1)[0].double(), torch.arange(n) % 5


def compare(j: Jacobian) -> None:
    found, matrix = gram(j), j.dense()
    twin = matrix.T @ matrix
    torch.testing.assert_close(found, twin, rtol=1e-10, atol=1e-13 * float(twin.norm()))
    assert torch.equal(found, found.T)


BY_RULES: dict[str, Callable[[], nn.Module]] = {
    "lenet": lambda: gl.zoo.lenet(classes=5, channels=1, size=8, init="uniform", seed=0),
    "cnn6": lambda: gl.zoo.cnn6(classes=5, channels=1, size=8, seed=0),
    "two linear layers": lambda: drawn(
        nn.Flatten(), nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 5, bias=False)
    ),
    "one linear layer": lambda: drawn(nn.Flatten(), nn.Linear(64, 5)),
    "stride, no padding, no bias": lambda: convolved(nn.GELU(), stride=2, bias=False),
    "padding wider than high": lambda: convolved(nn.SiLU(), padding=(1, 1)),
    "ReLU": lambda: convolved(nn.ReLU(), padding=1),
    "LeakyReLU": lambda: convolved(nn.LeakyReLU(0.2), padding=1),
    "ELU": lambda: convolved(nn.ELU(), padding=1),
    "Softplus": lambda: convolved(nn.Softplus(beta=3), padding=1),
}


@pytest.mark.parametrize("records", [1, 3])
@pytest.mark.parametrize("model", BY_RULES)
def test_it_is_that_of_the_jacobian_written_down(
    model: str, records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the rules found it: autograd's way is shut."""
    monkeypatch.setattr(Jacobian, "gram", None)
    monkeypatch.setattr(chain, "_NUMBERS", 7 * 2000)  # several blocks, the last one shorter
    compare(jacobian(BY_RULES[model](), *batch(records)))


@pytest.mark.parametrize(
    "y", [torch.tensor([[0.1, 0.2, 0.3, 0.0, 0.4]]), torch.tensor([1])], ids=["soft", "hard"]
)
def test_any_loss_of_the_logits_will_do(y: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(output: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(output, y) + output.pow(4).mean() * output.exp().mean()

    monkeypatch.setattr(Jacobian, "gram", None)
    compare(jacobian(BY_RULES["lenet"](), batch(1)[0], y, loss=loss))


def test_a_loss_may_be_linear_or_look_at_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(output: Tensor, y: Tensor) -> Tensor:
        return output[:, 0].sum() if output[0, 0].item() < 1000 else output.square().sum()

    monkeypatch.setattr(Jacobian, "gram", None)
    compare(jacobian(BY_RULES["lenet"](), *batch(2), loss=loss))


def frozen() -> nn.Module:
    model = BY_RULES["two linear layers"]()
    model[1].weight.requires_grad_(False)
    return model


def twice() -> nn.Module:
    same = nn.Linear(64, 64)
    return drawn(nn.Flatten(), same, nn.Tanh(), same, nn.Tanh(), nn.Linear(64, 5))


def tied() -> nn.Module:
    model = drawn(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Linear(64, 5))
    model[3].weight = model[1].weight
    return model


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


WITHOUT: dict[str, Callable[[], nn.Module]] = {
    "frozen": frozen,
    "a layer twice": twice,
    "tied weights": tied,
    "pool": lambda: convolved(nn.MaxPool2d(3, 1, 1), padding=1),
    "norm": lambda: drawn(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 5)),
    "dilation": lambda: convolved(nn.Tanh(), dilation=2, padding=2),
    "padding by name": lambda: convolved(nn.Tanh(), padding="same"),
    "padding by reflection": lambda: convolved(nn.Tanh(), padding=1, padding_mode="reflect"),
    "groups": lambda: drawn(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 5)
    ),
    "a sequence of its own": lambda: drawn(
        nn.Flatten(), Residual(nn.Linear(64, 64), nn.Tanh()), nn.Linear(64, 5)
    ),
    "linear over columns": lambda: drawn(nn.Linear(8, 8), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)),
}


@pytest.mark.parametrize("model", WITHOUT)
def test_without_a_rule_it_is_autograds(model: str) -> None:
    j = jacobian(WITHOUT[model](), *batch(2))
    assert chain._layers(j) is None
    compare(j)


def test_without_a_rule_for_the_client_or_the_weights_it_is_autograds() -> None:
    x, y = batch(2)
    j = jacobian(BY_RULES["lenet"](), x, y)
    assert chain._layers(j) is not None
    local = jacobian(BY_RULES["lenet"](), x, y, client=gl.LocalSGD(2, 1, 0.1, order="given"))
    for other in (local, replace(j, weights=dict.fromkeys(j.update, 2.0))):
        assert chain._layers(other) is None
        compare(other)


def test_a_rule_that_comes_out_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a model's own code changes what its layers do."""
    monkeypatch.setattr(chain._Activation, "pulled", lambda self, turned: turned * self.steep)
    compare(jacobian(BY_RULES["lenet"](), *batch(1)))


def test_hooks_are_left_to_autograd() -> None:
    layers = OrderedDict(flatten=nn.Flatten(), one=nn.Linear(64, 30), two=nn.Linear(30, 5))
    model = nn.Sequential(layers)
    model.one.register_forward_hook(lambda module, args, output: output.square())
    j = jacobian(model, *batch(1))
    assert chain._layers(j) is None
    compare(j)


def test_a_matrix_too_large_to_write_down_is_autograds(monkeypatch: pytest.MonkeyPatch) -> None:
    j = jacobian(BY_RULES["lenet"](), *batch(1))
    expected = gram(j)
    monkeypatch.setattr(chain, "_MEMORY", 0)
    monkeypatch.setattr(Jacobian, "gram", lambda self: "autograd's")
    assert gram(j) == "autograd's"
    assert expected.shape == (64, 64)
