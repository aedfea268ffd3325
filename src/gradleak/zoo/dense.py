"""A network of linear layers alone, where a gradient gives most away."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from torch import nn

from gradleak.errors import InvalidInput
from gradleak.zoo.building import SLOPE, check, one_of, seeded, whole

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(SLOPE),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def mlp(
    classes: int = 10,
    channels: int = 3,
    size: int = 32,
    *,
    sizes: Sequence[int] | None = None,
    activation: str = "relu",
    seed: int | None = None,
) -> nn.Sequential:
    """MLP: linear layers with biases on the flattened input.

    ``sizes`` are the widths from the flattened input to the last hidden layer: (3072, 256, 256) is a 32x32
    colour picture and two hidden layers. When it is given, ``channels`` and ``size`` have no say; when it is
    not, they make the first width and 256, 256 follow. The leaky slope is R-GAP's 0.2.
    """
    check(classes, channels, size)
    one_of("activation", activation, _ACTIVATIONS)
    if sizes is not None and not isinstance(sizes, Iterable):
        raise InvalidInput(f"sizes must be several whole numbers, like (3072, 256); got {sizes!r}")
    widths = (channels * size**2, 256, 256) if sizes is None else tuple(sizes)
    if not widths:
        raise InvalidInput(
            "sizes must hold at least the number of inputs, like (3072, 256); got an empty one"
        )
    for width in widths:
        whole("each of sizes", width, 1)
    with seeded(seed):
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for i, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
            layers[f"linear{i}"] = nn.Linear(fan_in, fan_out)
            layers[f"act{i}"] = _ACTIVATIONS[activation]()
        layers["linear"] = nn.Linear(widths[-1], classes)
        model = nn.Sequential(layers)
    return model.eval()
