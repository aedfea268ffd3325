"""Rank analysis: do a layer's own equations determine its input, once the layers after it are solved?

Zhu and Blaschko 2021 (R-GAP) recover a network from its end: of layer i they know z_i and k_i = dL/dz_i and
solve W_i x_i = z_i together with the gradient's equations. The input is lost where these have too low a rank.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradleak.errors import InvalidInput, InvalidModel
from gradleak.layers import Signal
from gradleak.observe import Observation, Task
from gradleak.observe.checks import check_fit
from gradleak.observe.task import split_tensors, structure_of
from gradleak.randomness import Rng, generator, undisturbed
from gradleak.risk.count import Count, Role, count
from gradleak.risk.equations import Sent, forward_rank, stacked_rank
from gradleak.risk.links import Link, Network, network
from gradleak.risk.wording import verdict

UNRANKED = "too large to be ranked in numbers, or of a kind without a rule: counts only"


@dataclass(frozen=True)
class LayerRank:
    """One layer's unknowns and equations, all of them for the whole batch.

    ``unknowns`` |x_i|, ``forward`` |z_i| and ``gradient`` |dW_i| are counts. ``virtual`` is V_i as published,
    Σ_{n<i} max(|z_n| − |x_n|, 0): the outputs of an earlier layer that is wider than its input lie in the
    column space of its weight. Only a chain has these. ``index`` is RA-i,

        RA-i = V_i − max(|x_i| − |z_i| − |dW_i|, 0),

    in the form in which we recall it: the paper's body was not at hand, so read its sign, not its digits.
    ``determined`` bounds by counting what this layer and all after it say about its input:
    min(|x_i|, |dW_i| + what is determined of x_{i+1}). None of them sees that
    equations may repeat each other.

    ``rank`` is that of [W_i; K_i] in numbers, so ``deficit`` = |x_i| − rank dimensions are open;
    ``virtual_rank`` is V_i as Σ_{n<i} |z_n| − rank W_n, over those n whose outputs are known in full, and
    computed up to the last deficient layer, behind which nobody needs it. They are None where nothing was
    computed. Layers without weights have counts and notes only.
    """

    path: str
    kind: str
    role: str
    ranked: bool
    unknowns: int
    forward: int
    gradient: int
    virtual: int | None = None
    index: int | None = None
    determined: int | None = None
    rank: int | None = None
    virtual_rank: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def enough(self) -> bool:
        """The naive verdict: there are as many equations as unknowns."""
        return self.forward + self.gradient >= self.unknowns

    @property
    def deficit(self) -> int | None:
        return None if self.rank is None else self.unknowns - self.rank


@dataclass(frozen=True)
class RankReport:
    """The layers in order, and what they say together.

    ``evidence`` is what the ranks rest on: "counts", "stand-in" (a random input and a random gradient at the
    output, so ranks are those of a typical record), or "signals" (what an attacker recovered). ``breaks``
    name where the network is no chain; ``loose`` are trained parameters of no leaf layer, counted nowhere.
    """

    input_shape: tuple[int, ...]
    batch: int
    evidence: str
    layers: tuple[LayerRank, ...]
    breaks: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()

    @property
    def ranked(self) -> tuple[LayerRank, ...]:
        return tuple(layer for layer in self.layers if layer.ranked)

    @property
    def index(self) -> int | None:
        """The network's: its layers' least RA-i."""
        return min((layer.index for layer in self.ranked if layer.index is not None), default=None)

    @property
    def deficient(self) -> tuple[LayerRank, ...]:
        return tuple(layer for layer in self.ranked if layer.deficit)

    @property
    def verdict(self) -> str:
        return verdict(self)

    def layer(self, path: str) -> LayerRank:
        found = [layer for layer in self.layers if layer.path == path]
        if not found:
            raise InvalidInput(
                f"expected one of the layers {', '.join(layer.path for layer in self.layers)}; came '{path}'"
            )
        return found[0]

    def to_dict(self) -> dict[str, object]:
        layers = [asdict(one) | {"enough": one.enough, "deficit": one.deficit} for one in self.layers]
        said = {"verdict": self.verdict, "index": self.index}
        return said | asdict(self) | {"layers": [one | {"notes": list(one["notes"])} for one in layers]}

    def table(self) -> list[dict[str, str]]:
        """A row per layer with weights; what was not computed is a dash."""
        return [
            {
                "layer": one.path,
                "kind": one.kind,
                "unknowns": str(one.unknowns),
                "forward": str(one.forward),
                "gradient": str(one.gradient),
                "virtual": _or_dash(one.virtual if one.virtual_rank is None else one.virtual_rank),
                "RA-i": _or_dash(one.index),
                "rank": _or_dash(one.rank),
                "open": _or_dash(one.deficit),
            }
            for one in self.ranked
        ]


def rank(
    model: nn.Module,
    input_shape: Sequence[int],
    observation: Observation | None = None,
    *,
    signals: Sequence[Signal] | None = None,
    exact: bool = True,
    batch: int = 1,
    rng: Rng = 0,
) -> RankReport:
    """Count every layer's equations, and in a chain rank them.

    ``input_shape`` has no batch axis. With an ``observation``, its parameters and its batch size are used.
    The ranks need the activations and their gradients, which are private: they are ``signals`` where an
    attacker recovered them (one per layer of gradleak.layers.chain, at that layer's output, of one record),
    and otherwise those of a random input drawn from ``rng``. The loss enters only through the gradient at
    the output, for which a random one stands in. A rank is generic: all inputs but exceptional ones share
    it, as long as no unit switches off; where one does (ReLU, max-pool), it is that of the stand-in.

    The model and the global random state come back as they were.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InvalidInput(f"expected a batch of 1 or more records; came {batch!r}")
    with undisturbed(torch.device("cpu")):
        net, shape = read(model, input_shape, observation)
        size = batch if observation is None else observation.batch_size
        report = counted(net, shape, size)
        if signals is not None:
            if net.breaks:
                raise InvalidInput(f"signals belong to the layers of a chain; came {report.verdict}")
            return ranked(report, net.links, _given(net.links, signals, size), "signals")
        if net.breaks or not exact:
            return report
        return ranked(report, net.links, stand_in(net.links, shape, size, rng), "stand-in")


def counted(net: Network, input_shape: tuple[int, ...], batch: int) -> RankReport:
    """The counts alone; for what is no chain, they stand for each layer by itself."""
    counts = [count(link.module, link) for link in net.links]
    layers, virtual = [], 0
    for link, one in zip(net.links, counts, strict=True):
        x, z = batch * one.unknowns, batch * one.forward
        chained = one.ranked and not net.breaks
        index = virtual - max(x - z - one.gradient, 0) if chained else None
        layers.append(
            LayerRank(
                link.path,
                type(link.module).__name__,
                one.role.value,
                one.ranked,
                x,
                z,
                one.gradient,
                virtual if index is not None else None,
                index,
                notes=one.notes,
            )
        )
        virtual += max(z - x, 0) if one.ranked else 0
    if not net.breaks:
        layers = _determined(layers)
    told = _given_away(net.links, counts)
    if told is not None and not net.breaks:
        layers[told] = replace(layers[told], notes=(*layers[told].notes, given_away(batch)))
    return RankReport(input_shape, batch, "counts", tuple(layers), net.breaks, net.loose)


def ranked(report: RankReport, links: Sequence[Link], sent: Sequence[Sent], evidence: str) -> RankReport:
    """The report with every weighted layer's rank added, and virtual ranks as far as a layer needs them."""
    layers = list(report.layers)
    for here, after in stretches(layers):
        rank = stacked_rank(links[here], sent[here], [(links[j], sent[j - 1].value) for j in after])
        notes = layers[here].notes if rank is not None else (*layers[here].notes, UNRANKED)
        layers[here] = replace(layers[here], rank=rank, notes=notes)
    last = max((i for i, layer in enumerate(layers) if layer.deficit), default=-1)
    virtual: int | None = 0
    for here, after in stretches(layers):
        if here > last or virtual is None:
            break
        layers[here] = replace(layers[here], virtual_rank=virtual)
        # what a ReLU hides leaves no equation that holds as it stands
        if here < last and all(layers[j].role == Role.LOSSLESS.value for j in after):
            inside = forward_rank(links[here])
            virtual = None if inside is None else virtual + report.batch * (links[here].outputs - inside)
    return replace(report, evidence=evidence, layers=tuple(layers))


def stand_in(links: Sequence[Link], input_shape: tuple[int, ...], batch: int, rng: Rng) -> list[Sent]:
    """What would pass at every layer's output for a random batch and a random gradient at the end."""
    draws = generator(rng)
    x = torch.rand((batch, *input_shape), generator=draws, dtype=torch.float64)
    values: list[Tensor] = [x.requires_grad_()]
    for link in links:
        weights = {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in link.weights.items()
        }
        values.append(functional_call(link.module, weights, (values[-1],)))
    if not all(bool(value.isfinite().all()) for value in values):
        raise InvalidModel("expected weights that give finite numbers; came NaN or infinite ones")
    back = torch.randn(values[-1].shape, generator=draws, dtype=torch.float64)
    deltas = torch.autograd.grad(values[-1], values[1:], back, materialize_grads=True)
    return [Sent(value.detach(), delta) for value, delta in zip(values[1:], deltas, strict=True)]


def given_away(batch: int) -> str:
    if batch == 1:
        return (
            "linear, with a bias, and first: the ratio of its two gradients is the input itself (Phong 2018)"
        )
    return (
        "linear, with a bias, and first: the ratios of its two gradients are weighted means of the inputs "
        "(Phong 2018)"
    )


def read(
    model: nn.Module, input_shape: Sequence[int], obs: Observation | None = None
) -> tuple[Network, tuple[int, ...]]:
    """The model's layers, with an observation's numbers where there is one, and the shape of a record."""
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if not shape or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
        raise InvalidInput(
            f"expected a record's shape without a batch axis, like (3, 32, 32); came {input_shape}"
        )
    trained, constants = split_tensors(model)
    if not trained:
        raise InvalidModel("expected a model with parameters that need gradients; came one without")
    training = {path: module.training for path, module in model.named_modules()}
    if obs is not None:
        if not isinstance(obs, Observation):
            raise InvalidInput(f"expected an Observation; came {type(obs).__name__}")
        check_fit("observation's parameters", obs.params, trained)
        if tuple(obs.x_shape[1:]) != shape:
            raise InvalidInput(f"the observation's records have shape {tuple(obs.x_shape[1:])}; came {shape}")
        trained, constants = dict(obs.params), dict(obs.constants)
    task = Task(structure_of(model).eval(), constants, nn.functional.mse_loss)
    try:
        return network(task, trained, shape, training), shape
    except Exception as error:  # whatever the model's own code raises
        raise InvalidInput(f"the model cannot take one record of shape {shape}: {error}") from error


def _given(links: Sequence[Link], signals: Sequence[Signal], batch: int) -> list[Sent]:
    if batch != 1:
        raise InvalidInput(f"signals are one record's; came a batch of {batch}")
    if len(signals) != len(links):
        raise InvalidInput(
            f"expected a signal for each of the {len(links)} layers "
            f"({', '.join(link.path for link in links)}); came {len(signals)}"
        )
    for link, signal in zip(links, signals, strict=True):
        if {tuple(signal.value.shape), tuple(signal.grad.shape)} != {link.out_shape}:
            raise InvalidInput(
                f"expected signals of shape {link.out_shape} at the output of {link.name}; came "
                f"{tuple(signal.value.shape)} and {tuple(signal.grad.shape)}"
            )
    if not all(bool(s.value.isfinite().all() and s.grad.isfinite().all()) for s in signals):
        raise InvalidInput("expected signals that are finite; came NaN or infinite ones")
    return [Sent(s.value.cpu().double()[None], s.grad.cpu().double()[None]) for s in signals]


def stretches(layers: Sequence[LayerRank]) -> Iterator[tuple[int, range]]:
    """Each layer with an index, and the layers between it and the next one."""
    at = [i for i, layer in enumerate(layers) if layer.ranked]
    for here, following in zip(at, [*at[1:], len(layers)], strict=True):
        yield here, range(here + 1, following)


def _determined(layers: Sequence[LayerRank]) -> list[LayerRank]:
    """From the end to the beginning: no more is known of an input than the equations that reach it."""
    known, found = layers[-1].forward if layers else 0, []
    for layer in reversed(layers):
        known = min(layer.unknowns, known + layer.gradient)
        found.append(replace(layer, determined=known))
    return found[::-1]


def _given_away(links: Sequence[Link], counts: Sequence[Count]) -> int | None:
    """Which layer is linear, has a bias, and reads the input, or what the input follows from."""
    for i, (link, one) in enumerate(zip(links, counts, strict=True)):
        if one.ranked:
            plain = isinstance(link.module, nn.Linear) and {"weight", "bias"} <= link.trained
            return i if plain and prod(link.in_shape[:-1]) == 1 else None
        if one.role is not Role.LOSSLESS:
            return None
    return None


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)
