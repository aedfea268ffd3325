"""How far local training moves a network: said before anything is tried."""

import torch
from torch import Generator, Tensor

from gradleak.observe.client import Client, Summed
from gradleak.observe.local import LocalAdam, LocalTraining


def smooth_pixels(shape: tuple[int, ...], rng: Generator) -> Tensor:
    """Random pictures in [0, 1] whose spectrum falls as 1/f, as that of photographs does; noise otherwise.

    A network answers to them more as it does to real pictures than to independent pixels.
    """
    noise = torch.randn(shape, generator=rng, dtype=torch.float64)
    if len(shape) < 4:
        return torch.rand(shape, generator=rng, dtype=torch.float64)
    height, width = shape[-2:]
    rows = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(width, dtype=torch.float64)[None]
    frequency = (rows.square() + columns.square()).sqrt().clamp(min=1 / max(height, width))
    pictures: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=(height, width))
    low = pictures.amin(dim=tuple(range(1, len(shape))), keepdim=True)
    high = pictures.amax(dim=tuple(range(1, len(shape))), keepdim=True)
    return (pictures - low) / (high - low).clamp(min=1e-12)


def drift_of(client: Client, features: Tensor, records: int) -> float:
    """kT: how far the logits move while the client trains, if the batch pulls them all one way.

    ``features`` [n, F] are what the last layer reads. A step of rate lr moves a logit by up to
    lr · (‖h‖² + 1). Below 1, the update is a gradient to a good approximation; beyond 20, hardly.
    """
    if isinstance(client, Summed):
        return max(drift_of(one, features, records // client.clients) for one in client.all)
    if not isinstance(client, LocalTraining):
        return 0.0
    size = features.abs().sum(1) if isinstance(client, LocalAdam) else features.square().sum(1)
    return client.reach(records) * (float(size.mean()) + 1)
