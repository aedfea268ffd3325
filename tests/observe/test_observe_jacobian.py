"""Products with the Jacobian of the update, and what its rank leaves open."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.observe.jacobian import Jacobian, open_share


def jacobian(model: nn.Module, x: Tensor, client: gl.LocalSGD | None = None) -> Jacobian:
    y = torch.arange(len(x)) % 5
    return Jacobian.even(gl.observe(model, x, y, client=client), x, y)


def dense(j: Jacobian) -> Tensor:
    """The slow twin: column by column."""
    return torch.stack([j.times(e.reshape(j.x.shape)) for e in torch.eye(j.x.numel()).double()], 1)


def normed(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3, padding=1), norm, nn.Sigmoid(), nn.Flatten(), nn.Linear(256, 5))
    return nn.Sequential(*layers).double()


class Attending(nn.Module):
    """A picture as four tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x.reshape(len(x), 4, 16)).mean(1))


NETWORKS = {
    "layer norm": lambda: normed(nn.LayerNorm([4, 8, 8])),
    "instance norm": lambda: normed(nn.InstanceNorm2d(4, affine=True)),
    "group norm": lambda: normed(nn.GroupNorm(2, 4)),  # which torch cannot batch backwards
    "batch norm, training": lambda: normed(nn.BatchNorm2d(4)).train(),
    "attention": lambda: Attending().double(),
    "max-pool": lambda: normed(nn.MaxPool2d(3, 1, 1)),
}


@pytest.mark.parametrize("client", [None, gl.LocalSGD(2, 1, 0.1, order="given")], ids=["one", "local"])
@pytest.mark.parametrize("network", NETWORKS)
def test_many_products_at_once_are_those_one_by_one(network: str, client: gl.LocalSGD | None) -> None:
    # Not weighted evenly: before a BatchNorm a bias has a gradient of nothing but rounding.
    j = replace(jacobian(NETWORKS[network](), faces(2), client), weights=None)
    matrix = dense(j)
    torch.testing.assert_close(j.dense(), matrix)
    torch.testing.assert_close(j.gram(), matrix.T @ matrix)
    torch.testing.assert_close(j.gram(memory=0), matrix.T @ matrix)
    assert torch.equal(j.gram(memory=0), j.gram(memory=0).T)
    us = torch.randn(3, j.rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(j.transposed_all(us).flatten(1), us @ matrix)


def test_products_that_torch_batches_wrongly_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = torch.autograd.grad

    def wrong(*args: object, is_grads_batched: bool = False, **given: object) -> tuple[Tensor, ...]:
        found = honest(*args, is_grads_batched=is_grads_batched, **given)  # type: ignore[arg-type]
        return tuple(g if g is None else g * 1.001 for g in found) if is_grads_batched else found

    monkeypatch.setattr(torch.autograd, "grad", wrong)
    j = jacobian(normed(nn.Identity()), faces(1))
    matrix = dense(j)
    torch.testing.assert_close(j.dense(), matrix)
    torch.testing.assert_close(j.gram(memory=0), matrix.T @ matrix)


def test_a_parameter_whose_update_does_not_see_the_picture_is_a_row_of_zeros() -> None:
    def client(task: object, params: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        sent = gl.OneGradient()(task, params, x, y)  # type: ignore[arg-type]
        return sent | {"4.bias": torch.ones(5, dtype=torch.float64)}

    j = jacobian(normed(nn.Identity()), faces(1), client)  # type: ignore[arg-type]
    matrix = j.dense()
    assert bool((j.split(matrix[:, 3])["4.bias"] == 0).all())
    torch.testing.assert_close(dense(j), matrix)
    torch.testing.assert_close(j.gram(memory=0), matrix.T @ matrix)
    assert bool(matrix.any())


LOCAL = gl.LocalSGD(2, 1, 0.1, order="given")


def bent(task: object, params: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """A head's gradient of rank 1 at this very batch alone."""
    sent = gl.OneGradient()(task, params, x, y)  # type: ignore[arg-type]
    away = (x - faces(1)).sum() * torch.eye(5, 256, dtype=torch.float64)
    return sent | {"4.weight": sent["4.weight"] + away}


@pytest.mark.parametrize(
    ("records", "client", "weighted", "rows"),
    [
        (1, None, False, 40 + 256 + 5 + 5),
        (1, LOCAL, False, 40 + 2 * (256 + 5) + 5),
        (1, None, True, 40 + 5 * 257),
        (3, None, False, 40 + 5 * 257),
        (1, bent, False, 40 + 5 * 257),
    ],
    ids=["one record", "two steps", "weights by entry", "too many records", "not on the surface"],
)
def test_a_gradient_of_low_rank_is_squared_by_fewer_rows(
    records: int, client: object, weighted: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    j = jacobian(normed(nn.Identity()), faces(records), client)  # type: ignore[arg-type]
    if weighted:
        rng = torch.Generator().manual_seed(0)
        j = replace(j, weights={n: torch.rand(u.shape, generator=rng).double() for n, u in j.update.items()})
    matrix = dense(j)
    module = sys.modules[Jacobian.__module__]
    squared, seen = module._squared, []
    monkeypatch.setattr(module, "_squared", lambda m: seen.append(len(m)) or squared(m))
    torch.testing.assert_close(
        j.gram(), matrix.T @ matrix, rtol=1e-11, atol=1e-13 * float(matrix.norm()) ** 2
    )
    assert seen == [rows]  # and one matrix, not a second one after the first was found wrong


DEFENDED = {
    "mask": gl.defenses.Mask(rate=0.4, rescaled=True),
    "mask of local": gl.defenses.Mask(LOCAL, rate=0.4),
    "prune": gl.defenses.Prune(fraction=0.5, per="layer"),
    "clip": gl.defenses.Clip(norm=0.05),
    "clip each tensor of local": gl.defenses.Clip(LOCAL, norm=0.01, per="layer"),
    "mask of clip of local": gl.defenses.Mask(gl.defenses.Clip(LOCAL, norm=0.05), rate=0.4),
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("defense", DEFENDED)
def test_of_a_defended_client_it_is_the_slope_of_what_the_victim_sends(defense: str, mode: str) -> None:
    """The twin moves the victim's own pictures a little, and holds its dice."""
    model = normed(nn.BatchNorm2d(4)).train(mode == "train")
    x, y, client = faces(2), torch.tensor([1, 3]), DEFENDED[defense]

    def sent(x: Tensor) -> Tensor:
        update = gl.observe(model, x, y, client=client, rng=3).update
        return torch.cat([leaf.flatten() for leaf in update.values()])

    obs = gl.observe(model, x, y, client=client, rng=3)
    j = Jacobian(obs, x, y)
    torch.testing.assert_close(torch.cat([u.flatten() for u in j.update.values()]), sent(x))
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        v = torch.randn(x.shape, generator=rng, dtype=torch.float64)
        slope = (sent(x + 1e-5 * v) - sent(x - 1e-5 * v)) / 2e-5
        torch.testing.assert_close(j.times(v), slope, rtol=1e-6, atol=1e-7 * float(slope.abs().max()))
        if "mask" in defense:
            assert 0.3 < float((slope == 0).double().mean()) < 0.5
    matrix = dense(j)
    torch.testing.assert_close(j.gram(), matrix.T @ matrix)


def faces(n: int) -> Tensor:
    return gl.zoo.pictures("faces", n=n, size=8, channels=1)[0].double()


@pytest.mark.parametrize("client", [None, gl.LocalSGD(2, 1, 0.1)])
def test_both_products_are_those_of_one_matrix(client: gl.LocalSGD | None) -> None:
    model = gl.zoo.convnet(classes=5, channels=1, size=8, width=4, seed=0).double()
    j = jacobian(model, faces(2), client)
    matrix = dense(j)
    u = torch.randn(j.rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(matrix.T @ u, j.transposed(u).flatten())
    v = torch.randn(j.x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-6
    there, back = (j.obs.simulate(j.x + sign * step * v, j.y) for sign in (1, -1))
    slope = torch.cat(
        [((there[n] - back[n]) / (2 * step) / j.obs.simulate(j.x, j.y)[n].norm()).flatten() for n in there]
    )
    torch.testing.assert_close(j.times(v), slope, rtol=1e-4, atol=1e-4)


def test_the_open_share_is_the_nullity_over_the_columns() -> None:
    """A layer of rank 3 that is not trained lets three directions of its picture through."""
    torch.manual_seed(0)
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False), nn.Tanh(), nn.Linear(3, 5)).double()
    for parameter in narrow[1].parameters():
        parameter.requires_grad_(False)  # what is not trained is not sent
    j = jacobian(narrow, faces(1))
    rank = int(torch.linalg.matrix_rank(dense(j)))
    assert rank == 3
    rng = torch.Generator().manual_seed(0)
    shares = [open_share(j, rng) for _ in range(40)]
    assert sum(shares) / 40 == pytest.approx(1 - rank / 64, abs=0.02)
    whole = jacobian(gl.zoo.mlp(sizes=(64, 32), classes=5, seed=0).double(), faces(1))
    assert int(torch.linalg.matrix_rank(dense(whole))) == 64
    assert open_share(whole, rng) < 1e-6


def test_it_stops_where_enough_is_known_and_never_exceeds_the_whole() -> None:
    j = jacobian(gl.zoo.convnet(classes=5, channels=1, size=8, width=4, seed=0), faces(2).float())
    rng = torch.Generator().manual_seed(0)
    assert open_share(j, rng, iterations=0) <= 1
    assert 0.1 < open_share(j, rng, enough=0.5) <= 0.5
    assert 0 <= open_share(j, rng, iterations=400) <= 0.2
