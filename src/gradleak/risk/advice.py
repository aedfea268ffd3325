"""Small changes of one layer after which its own equations no longer determine its input."""

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import singledispatch
from math import ceil

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidInput, UnsupportedLayer
from gradleak.randomness import Rng, generator, reseed, undisturbed
from gradleak.risk.equations import stacked_rank
from gradleak.risk.links import Link, Network
from gradleak.risk.rank import LayerRank, counted, read, stand_in, stretches

Setting = tuple[str, int, int]  # its name, its value, and what it becomes
_STRIDES = 4


@dataclass(frozen=True)
class Change:
    """One setting of one layer, changed, and what that leaves open of the layer's input.

    ``deficit`` of ``unknowns`` dimensions are open, by ``evidence``: "counts", or "stand-in" for a rank at a
    random input with the changed layers initialised afresh. ``virtual`` constraints of the layers before it,
    as published, are there to be used against it by a stronger attacker than R-GAP.
    """

    layer: str
    setting: str
    before: int
    after: int
    deficit: int
    unknowns: int
    virtual: int
    evidence: str
    parameters: int
    parameters_after: int

    @property
    def size(self) -> float:
        """How many parameters come or go, as a share of those there were."""
        return abs(self.parameters_after - self.parameters) / self.parameters

    @property
    def says(self) -> str:
        change = f"{self.layer}: {self.setting} {self.before} -> {self.after}"
        open_ = f"leaves {self.deficit} of {self.unknowns} dimensions open"
        virtual = (
            f"; {self.virtual} virtual constraints from earlier layers could close that"
            if self.virtual >= self.deficit
            else ""
        )
        return f"{change} ({self.parameters_after - self.parameters:+d} parameters) {open_}{virtual}"

    def to_dict(self) -> dict[str, object]:
        return asdict(self) | {"size": self.size, "says": self.says}


def advise(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    exact: bool = True,
    share: float = 0.05,
    layers: Collection[str] | None = None,
    rng: Rng = 0,
) -> list[Change]:
    """Per layer and setting, the least change after which a ``share`` of its input is open; smallest first.

    Fewer outputs, or a larger stride. A rank deficit stops an attacker who goes layer by layer; it is no
    promise against one who uses all layers at once, or knows what pictures look like. Widths are searched
    by halving: fewer outputs never give more equations. ``exact=False`` counts, which takes no time and
    misses equations that repeat each other. ``layers`` are the paths to try, all by default.
    """
    if not 0 < share <= 1:
        raise InvalidInput(f"expected a share of the input in (0, 1]; came {share!r}")
    with undisturbed(torch.device("cpu")):
        net, shape = read(model, input_shape)
        if net.breaks:
            raise UnsupportedLayer(f"advice needs a chain; came {counted(net, shape, 1).verdict}")
        paths = [link.path for link in net.links]
        unknown = sorted(set(layers or ()) - set(paths))
        if unknown:
            raise InvalidInput(f"expected layers among {', '.join(paths)}; came {', '.join(unknown)}")
        seed = int(torch.randint(2**31, (), generator=generator(rng)))
        search = _Search(net, shape, exact, share, seed)
        found = [change for at in search.places(layers) for change in search.at(at)]
    return sorted(found, key=lambda change: change.size)


@dataclass(frozen=True)
class _Search:
    net: Network
    shape: tuple[int, ...]
    exact: bool
    share: float
    seed: int

    def places(self, layers: Collection[str] | None) -> list[int]:
        """The last layer's width is the number of classes, and stays."""
        ranked = [i for i, layer in enumerate(self._counted(self.net.links)) if layer.ranked]
        return [i for i in ranked[:-1] if layers is None or self.net.links[i].path in layers]

    def at(self, at: int) -> Iterator[Change]:
        module = self.net.links[at].module
        # one unit's gradient is the whole input of a linear layer that reads one vector, however narrow
        if isinstance(module, nn.Linear) and len(self.net.links[at].in_shape) > 1:
            yield from self._narrowest(at, "out_features", module.out_features)
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            if module.groups == 1:
                yield from self._narrowest(at, "out_channels", module.out_channels)
            stride = max(module.stride)
            tried = (self._change(at, ("stride", stride, n)) for n in range(stride + 1, _STRIDES + 1))
            yield from [change for change in tried if change is not None][:1]

    def _narrowest(self, at: int, name: str, width: int) -> Iterator[Change]:
        """The widest layer that is narrow enough, between one output and as many as it has."""
        found, low, high = (self._change(at, (name, width, 1)) if width > 1 else None), 1, width
        while found is not None and high - low > 1:
            middle = (low + high) // 2
            tried = self._change(at, (name, width, middle))
            if tried is None:
                high = middle
            else:
                found, low = tried, middle
        if found is not None:
            yield found

    def _change(self, at: int, setting: Setting) -> Change | None:
        """The change where it leaves enough open, None where it does not, or where the network breaks."""
        reseed(self.seed, torch.device("cpu"))
        try:
            links = _rebuilt(self.net.links, self.shape, at, setting)
        except (RuntimeError, ValueError, ZeroDivisionError):  # a picture smaller than a kernel
            return None
        layers = self._counted(links)
        one = layers[at]
        least = max(1, ceil(self.share * one.unknowns))
        deficit, evidence = max(one.unknowns - one.forward - one.gradient, 0), "counts"
        if self.exact:
            rank = self._rank(links, layers, at)
            if rank is not None:
                deficit, evidence = one.unknowns - rank, "stand-in"
        if deficit < least:
            return None
        return Change(
            one.path,
            *setting,
            deficit,
            one.unknowns,
            one.virtual or 0,
            evidence,
            _parameters(self.net.links),
            _parameters(links),
        )

    def _rank(self, links: Sequence[Link], layers: Sequence[LayerRank], at: int) -> int | None:
        sent = stand_in(links, self.shape, 1, self.seed)
        after = next(after for here, after in stretches(layers) if here == at)
        return stacked_rank(links[at], sent[at], [(links[j], sent[j - 1].value) for j in after])

    def _counted(self, links: Sequence[Link]) -> tuple[LayerRank, ...]:
        return counted(Network(tuple(links), (), ()), self.shape, 1).layers


def _rebuilt(links: Sequence[Link], input_shape: tuple[int, ...], at: int, setting: Setting) -> list[Link]:
    """The chain with one setting changed, and whatever comes after it made to fit; the rest is as it was."""
    x, found = torch.zeros(1, *input_shape), list[Link]()
    for i, link in enumerate(links):
        shape = tuple(x.shape[1:])
        module, weights = link.module, dict(link.weights)
        if i == at or shape != link.in_shape:
            fresh = fitted(module, shape, {setting[0]: setting[2]} if i == at else {})
            if i == at or _shapes(fresh) != _shapes(module):
                weights = {
                    name: t.detach() for name, t in (*fresh.named_parameters(), *fresh.named_buffers())
                }
            module = fresh
        floats = {n: t.float() if t.is_floating_point() else t for n, t in weights.items()}
        with torch.no_grad():
            x = torch.func.functional_call(module, floats, (x,))
        found.append(
            replace(link, module=module, weights=weights, in_shape=shape, out_shape=tuple(x.shape[1:]))
        )
    return found


@singledispatch
def fitted(module: nn.Module, shape: tuple[int, ...], settings: dict[str, int]) -> nn.Module:
    """The layer made for inputs of ``shape``, with ``settings`` changed; any that does not ask is itself."""
    return copy.deepcopy(module)


@fitted.register(nn.Linear)
def _linear(module: nn.Linear, shape: tuple[int, ...], settings: dict[str, int]) -> nn.Module:
    return nn.Linear(shape[-1], settings.get("out_features", module.out_features), module.bias is not None)


@fitted.register(nn.Conv1d)
@fitted.register(nn.Conv2d)
def _convolution(
    module: nn.Conv1d | nn.Conv2d, shape: tuple[int, ...], settings: dict[str, int]
) -> nn.Module:
    build: Callable[..., nn.Module] = type(module)
    return build(
        shape[0],
        settings.get("out_channels", module.out_channels),
        module.kernel_size,
        settings.get("stride", module.stride),
        module.padding,
        module.dilation,
        module.groups,
        module.bias is not None,
        module.padding_mode,
    )


@fitted.register(nn.modules.batchnorm._BatchNorm)
def _batch_norm(
    module: nn.modules.batchnorm._BatchNorm, shape: tuple[int, ...], settings: dict[str, int]
) -> nn.Module:
    norm = type(module)(shape[0], module.eps, module.momentum, module.affine, module.track_running_stats)
    return norm.eval()


@fitted.register(nn.GroupNorm)
def _group_norm(module: nn.GroupNorm, shape: tuple[int, ...], settings: dict[str, int]) -> nn.Module:
    return nn.GroupNorm(module.num_groups, shape[0], module.eps, module.affine)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    tensors: list[tuple[str, Tensor]] = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.shape for name, tensor in tensors}


def _parameters(links: Sequence[Link]) -> int:
    return sum(link.weights[name].numel() for link in links for name in link.trained)
