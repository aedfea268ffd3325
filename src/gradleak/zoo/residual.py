"""Residual networks with the small-picture stem: a 3x3 convolution that keeps every pixel."""

from collections import OrderedDict

from torch import Tensor, nn

from gradleak.errors import InvalidInput
from gradleak.zoo.building import check, one_of, seeded, whole

# basic blocks per stage; each stage doubles the channels and, but for the first, halves the picture
_STAGES = {8: (1, 1, 1), 18: (2, 2, 2, 2), 20: (3, 3, 3)}
_GROUPS = 8


def resnet(
    classes: int = 10,
    channels: int = 3,
    size: int = 32,
    *,
    depth: int = 18,
    width: int = 16,
    norm: str = "batch",
    seed: int | None = None,
) -> nn.Sequential:
    """ResNet of basic blocks for small pictures, with batch, group or no normalisation.

    Depth 18 has four stages, like the ImageNet network; 8 and 20 have three, like the CIFAR ones. ``size`` is
    only checked: the model fits any, because it averages over the picture before the linear layer.
    ``norm="group"`` makes min(8, width) groups; with ``norm="none"`` the convolutions get the biases that a
    normalisation would have brought.
    """
    check(classes, channels, size)
    whole("depth", depth, 1)
    one_of("depth", depth, _STAGES)
    one_of("norm", norm, ("batch", "group", "none"))
    whole("width", width, 1)
    if norm == "group" and width % min(_GROUPS, width):
        raise InvalidInput(f"with norm='group' width must be at most 8 or a multiple of 8; got {width}")
    groups = min(_GROUPS, width)
    with seeded(seed):
        layers = _convolution(channels, width, 3, 1, norm, groups)
        layers["act"] = nn.ReLU()
        wide = width
        for stage, blocks in enumerate(_STAGES[depth]):
            out = width * 2**stage
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers[f"stage{stage + 1}_block{block + 1}"] = _Block(wide, out, stride, norm, groups)
                wide = out
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(wide, classes)
        model = nn.Sequential(layers)
    return model.eval()


class _Block(nn.Module):
    """Two convolutions around which the input is carried, through a 1x1 convolution where shapes differ."""

    def __init__(self, wide: int, out: int, stride: int, norm: str, groups: int) -> None:
        super().__init__()
        first = _convolution(wide, out, 3, stride, norm, groups)
        second = _convolution(out, out, 3, 1, norm, groups)
        same = stride == 1 and wide == out
        self.first = nn.Sequential(first)
        self.inner = nn.ReLU()
        self.second = nn.Sequential(second)
        self.carry = (
            nn.Identity() if same else nn.Sequential(_convolution(wide, out, 1, stride, norm, groups))
        )
        self.outer = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inside: Tensor = self.second(self.inner(self.first(x)))
        carried: Tensor = self.carry(x)
        joined: Tensor = self.outer(inside + carried)
        return joined


def _convolution(
    wide: int, out: int, kernel: int, stride: int, norm: str, groups: int
) -> OrderedDict[str, nn.Module]:
    bare = norm == "none"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(wide, out, kernel, stride, kernel // 2, bias=bare)
    if not bare:
        layers["norm"] = nn.BatchNorm2d(out) if norm == "batch" else nn.GroupNorm(groups, out)
    return layers
