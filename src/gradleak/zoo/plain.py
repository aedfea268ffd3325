"""A plain ReLU network of four convolutions, in the three usual ways of halving a picture."""

from collections import OrderedDict

from torch import nn

from gradleak.zoo.building import check, one_of, seeded, whole


def convnet(
    classes: int = 10,
    channels: int = 3,
    size: int = 32,
    *,
    pool: str = "stride",
    width: int = 32,
    seed: int | None = None,
) -> nn.Sequential:
    """ConvNet: 4 ReLU convolutions of 3x3, halved after the second and fourth, and a linear layer.

    ``width`` channels in the first two convolutions, twice as many in the others. ``pool="stride"`` halves
    inside the convolution, rounding up; ``"avg"`` and ``"max"`` halve after its ReLU, rounding down.
    """
    check(classes, channels, size)
    one_of("pool", pool, ("stride", "avg", "max"))
    whole("width", width, 1)
    with seeded(seed):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, out in enumerate((width, width, 2 * width, 2 * width), start=1):
            halves = i % 2 == 0
            layers[f"conv{i}"] = nn.Conv2d(channels, out, 3, 2 if halves and pool == "stride" else 1, 1)
            layers[f"act{i}"] = nn.ReLU()
            if halves:
                size = (size + 1) // 2 if pool == "stride" else size // 2
            if halves and pool != "stride":
                layers[f"pool{i}"] = nn.AvgPool2d(2) if pool == "avg" else nn.MaxPool2d(2)
            channels = out
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(channels * size**2, classes)
        model = nn.Sequential(layers)
    return model.eval()
