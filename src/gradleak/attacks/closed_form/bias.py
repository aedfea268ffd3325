"""The bias attack: a biased linear layer's gradient holds its input, whatever comes after it."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.closed_form.certificate import certify
from gradleak.labels import LabelGuess
from gradleak.labels import idlg as sign_rule
from gradleak.layers import Layer, opening
from gradleak.observe import Observation, OneGradient
from gradleak.randomness import Rng, generator

_TRANSPARENT = (nn.Flatten, nn.Identity, nn.Dropout)


@dataclass(frozen=True)
class Bias:
    """dL/dW_i = (dL/db_i) xᵀ for every neuron i (Phong et al. 2018), solved by least squares over all.

    With ``weight_decay`` λ, what arrives is dL/dW + λ W, and λ W is taken off first.
    """

    weight_decay: float = 0.0
    name: str = "bias"
    citations: tuple[str, ...] = ("bias",)

    @property
    def budget(self) -> int:
        return 4  # one simulated update for each reading of the head

    def iterate(self, obs: Observation, *, rng: Rng = 0) -> Iterator[Reconstruction]:
        yield self(obs, rng=rng)

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Reconstruction:
        clock = time.perf_counter()
        obs = obs.plainest
        if self.weight_decay:
            plain = {n: u - self.weight_decay * obs.params[n] for n, u in obs.update.items()}
            obs = dataclasses.replace(obs, update=plain)
        layer = first_layer(obs)
        if isinstance(layer, str):
            return Reconstruction(Outcome.NOT_APPLICABLE, reason=layer)
        weight, bias = layer.grads["weight"], layer.grads["bias"]
        if not bool(bias.any()):
            return Reconstruction(
                Outcome.NOT_APPLICABLE, reason="no neuron of the first layer was active: its gradient is zero"
            )
        picture = (weight.T @ bias / bias.dot(bias)).reshape(obs.x_shape[1:])
        x = picture.expand(obs.x_shape).to(obs.like).clone()
        records = visible_rank(torch.cat((weight, bias[:, None]), 1), obs.like.dtype)
        guess = sign_rule()(obs, rng=generator(rng))
        y = guess.y if isinstance(guess, LabelGuess) else None
        if records > 1 or obs.batch_size > 1:
            return self._mixture(x, y, records, time.perf_counter() - clock)
        return self._single(obs, x, y, time.perf_counter() - clock)

    def _mixture(self, x: Tensor, y: Tensor | None, records: int, seconds: float) -> Reconstruction:
        return Reconstruction(
            Outcome.STALLED,
            x=x,
            y=y,
            reason=f"the first layer's gradient has rank {records}, so at least {records} records are in it; "
            "every picture here is one and the same weighted mean of them, with weights that sum to 1",
            cost=Cost(0, seconds, 1),
        )

    def _single(self, obs: Observation, x: Tensor, y: Tensor | None, seconds: float) -> Reconstruction:
        if y is None:
            # The picture does not need the label, but the certificate does.
            return Reconstruction(
                Outcome.CONVERGED,
                x=x,
                score=0.0,
                cost=Cost(0, seconds, 1),
                reason="rank 1: the first layer saw one record; its label could not be read off",
            )
        certificate = certify(obs, x, y)
        return Reconstruction(
            Outcome.CONVERGED if certificate.holds else Outcome.STALLED,
            x=x,
            y=y,
            score=certificate.score,
            reason=""
            if certificate.holds
            else "the recovered picture does not explain the rest of the update",
            cost=Cost(1, seconds, 1),
        )


def first_layer(obs: Observation) -> Layer | str:
    """The biased linear layer that reads the data as they are, or why there is none."""
    if type(obs.client) is not OneGradient:
        return f"the equations are those of one gradient; the assumed client is {obs.client!r}"
    layer = next((one for one in opening(obs) if not isinstance(one.module, _TRANSPARENT)), None)
    if layer is None or not isinstance(layer.module, nn.Linear):
        return f"the first layer that computes is {layer.name if layer else 'missing'}, and not a linear one"
    if len(layer.in_shape) != 1:
        return f"{layer.name} reads {layer.in_shape} per record, so that its gradient is a sum over positions"
    if not {"weight", "bias"} <= set(layer.grads):
        return f"{layer.name} has no bias whose gradient was sent"
    return layer


def visible_rank(matrix: Tensor, dtype: torch.dtype) -> int:
    """How many records can be told apart in a first layer's gradient, above the rounding of ``dtype``."""
    sizes = torch.linalg.svdvals(matrix)
    return int((sizes > 30 * torch.finfo(dtype).eps * sizes[0]).sum())


def bias(*, weight_decay: float = 0.0) -> Bias:
    """Bias attack: a biased first layer's input as a quotient of its gradients (Phong et al. 2018)."""
    return Bias(weight_decay=weight_decay)
