"""Down a chain from its head to the data, one layer's rule at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from gradleak.attacks.closed_form.head import HeadGuess, head_guesses
from gradleak.attacks.closed_form.joint import Pair
from gradleak.errors import MissingInformation, UnsupportedLayer
from gradleak.layers import Layer, Signal, invert
from gradleak.observe import Observation, logistic

_TRANSPARENT = (nn.Flatten, nn.Identity)
_HOPELESS = 0.3
"""A layer whose equations are this far from being met was given a wrong reading of the head."""


@dataclass(frozen=True, eq=False)
class Descent:
    """What the recursion found on its way: the data, and each layer's residual and deficit by path."""

    x: Tensor  # without a batch axis
    y: int
    residuals: dict[str, float]
    deficits: dict[str, int]

    @property
    def lost(self) -> str:
        """In words, which layers left dimensions open."""
        open_layers = [f"{path} leaves {n} dimensions open" for path, n in self.deficits.items() if n]
        return "; ".join(open_layers)


def split_head(layers: Sequence[Layer]) -> tuple[list[Layer], Layer]:
    """The layers below the last linear one, and that one."""
    body = list(layers)
    while body and isinstance(body[-1].module, _TRANSPARENT):
        body.pop()
    if not body or not isinstance(body[-1].module, nn.Linear):
        end = body[-1].name if body else "nothing"
        raise UnsupportedLayer(f"the recursion starts at a linear layer that makes the logits; here is {end}")
    return body[:-1], body[-1]


def readings(obs: Observation, head: Layer) -> list[HeadGuess]:
    """The possible readings of the head; known labels rule some out."""
    found = head_guesses(head, "logistic" if obs.loss is logistic else "cross_entropy")
    if obs.labels is not None:
        found = [guess for guess in found if guess.y == int(obs.labels[0])]
    if not found:
        raise MissingInformation(f"the gradient of {head.name} is not one that a single record can cause")
    return found


def descend(body: Sequence[Layer], head: Layer, guess: HeadGuess, *, tolerance: float) -> Descent | None:
    """Fold the rules from the head down; None where a layer contradicts the reading of the head."""
    signal = Signal(guess.features, head.params["weight"].T @ guess.delta)
    residuals: dict[str, float] = {}
    deficits: dict[str, int] = {}
    remaining = list(body)
    while remaining:
        layer = remaining.pop()
        found = invert(layer.module, layer, signal, tolerance=tolerance)
        if found.deficit and _can_be_joined(remaining):
            # The layer's own equations leave dimensions open; those of the layer below can close them.
            activation, lower = remaining.pop(), remaining.pop()
            found = Pair(lower, activation, layer, signal).solve(found, tolerance=tolerance)
            layer = lower
        residuals[layer.path], deficits[layer.path] = found.residual, found.deficit
        if not found.residual < _HOPELESS:
            return None
        signal = found.signal
    return Descent(signal.value, guess.y, residuals, deficits)


def _can_be_joined(below: Sequence[Layer]) -> bool:
    """Whether an activation and a linear layer come next."""
    return (
        len(below) >= 2
        and isinstance(below[-2].module, nn.Linear | nn.Conv1d | nn.Conv2d)
        and below[-1].in_shape == below[-1].out_shape
        and not below[-1].grads
    )
