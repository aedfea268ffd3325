"""The network that DLG attacked, and most papers after it: three smooth convolutions and one linear layer."""

from collections import OrderedDict

from torch import nn

from gradleak.zoo.building import check, one_of, seeded, side

_KERNEL, _PADDING, _WIDTH, _STRIDES = 5, 2, 12, (2, 2, 1)
_REACH = 0.5


def lenet(
    classes: int = 100, channels: int = 3, size: int = 32, *, init: str = "uniform", seed: int | None = None
) -> nn.Sequential:
    """DLG's LeNet: 3 sigmoid convolutions of 12 channels, then a linear layer.

    Zhu, Liu, Han 2019, from the released code. ``init="uniform"`` is theirs and draws every weight and every
    bias from U(-0.5, 0.5); ``init="default"`` is torch's own.
    """
    check(classes, channels, size)
    one_of("init", init, ("uniform", "default"))
    features = _WIDTH * side(size, *((_KERNEL, stride, _PADDING) for stride in _STRIDES)) ** 2
    with seeded(seed):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, stride in enumerate(_STRIDES, start=1):
            layers[f"conv{i}"] = nn.Conv2d(channels, _WIDTH, _KERNEL, stride, _PADDING)
            layers[f"act{i}"] = nn.Sigmoid()
            channels = _WIDTH
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(features, classes)
        model = nn.Sequential(layers)
        if init == "uniform":
            for parameter in model.parameters():
                nn.init.uniform_(parameter, -_REACH, _REACH)
    return model.eval()
