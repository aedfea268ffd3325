"""Networks whose derivative jumps."""

from torch import nn

from gradleak.observe import Observation

_KINKED = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6, nn.Hardtanh, nn.MaxPool1d, nn.MaxPool2d)


def kinked(obs: Observation) -> bool:
    """Whether the network has layers whose derivative jumps, which second-order descents cannot follow."""
    return any(isinstance(module, _KINKED) for module in obs.model.modules())
