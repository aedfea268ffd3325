"""The two networks of R-GAP: invertible layer by layer, one of them with a hole in its rank."""

from collections import OrderedDict

from torch import nn

from gradleak.zoo.building import SLOPE, check, seeded, side

# (channels out, kernel, stride, padding), from the released code
_CNN6 = ((12, 4, 2, 2), (36, 3, 2, 1), (36, 3, 1, 1), (36, 3, 1, 1), (64, 3, 2, 1), (128, 3, 1, 1))
_CNN6_D = (_CNN6[0], (20, 3, 2, 1), *_CNN6[2:])


def cnn6(classes: int = 1, channels: int = 3, size: int = 32, *, seed: int | None = None) -> nn.Sequential:
    """R-GAP's CNN6: 6 LeakyReLU convolutions and a linear layer, no biases.

    Zhu and Blaschko 2021. With ``classes=1``, as published, there is one logit for the logistic loss. We take
    the last convolution to be followed by a LeakyReLU like the others; the linear layer has no bias either.
    """
    return _chain(_CNN6, classes, channels, size, seed)


def cnn6_d(classes: int = 1, channels: int = 3, size: int = 32, *, seed: int | None = None) -> nn.Sequential:
    """R-GAP's CNN6-d: CNN6 with 20 channels after its second convolution, not 36.

    At 32x32 that layer's constraints no longer determine its input, so the recursion fails there. Only the
    second convolution is narrower; the third takes its 20 channels back to 36.
    """
    return _chain(_CNN6_D, classes, channels, size, seed)


def _chain(
    table: tuple[tuple[int, int, int, int], ...], classes: int, channels: int, size: int, seed: int | None
) -> nn.Sequential:
    check(classes, channels, size)
    features = table[-1][0] * side(size, *(geometry[1:] for geometry in table)) ** 2
    with seeded(seed):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (out, kernel, stride, padding) in enumerate(table, start=1):
            layers[f"conv{i}"] = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
            layers[f"act{i}"] = nn.LeakyReLU(SLOPE)
            channels = out
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(features, classes, bias=False)
        model = nn.Sequential(layers)
    return model.eval()
