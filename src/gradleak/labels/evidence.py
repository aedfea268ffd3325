"""What the gradient of the last layer says, before anything is concluded from it."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradleak.labels.guess import Unanswerable
from gradleak.labels.sent import gradient_of
from gradleak.observe import Head, Observation, OneGradient, cross_entropy, head
from gradleak.trees import Tree


@dataclass(frozen=True, eq=False)
class Evidence:
    """The head's gradient, averaged over the batch, and its own numbers, in float64.

    ``noise`` is the standard deviation of what was added to, or rounded off, each entry: a column of the
    gradient of softmax cross entropy sums to 0 over the classes, and what it sums to instead is noise.
    """

    head: Head
    weight: Tensor  # [classes, features]
    bias: Tensor | None  # [classes]
    W: Tensor
    b: Tensor
    batch: int
    noise: float
    plain: bool  # one gradient of one batch, under cross entropy: what every proof here rests on

    @property
    def classes(self) -> int:
        return len(self.weight)

    @property
    def full(self) -> Tensor:
        """[classes, features + 1]: the bias is one more column, whose feature is 1."""
        return self.weight if self.bias is None else torch.cat((self.weight, self.bias[:, None]), 1)

    def without(self, part: Tensor, records: int) -> "Evidence":
        """The same of a batch without some records, whose share of Σ_k δ_k [h_k, 1] is ``part``."""
        left = max(self.batch - records, 1)
        rest = (self.batch * self.full - part) / left
        weight, bias = (rest, None) if self.bias is None else (rest[:, :-1], rest[:, -1])
        return dataclasses.replace(
            self, weight=weight, bias=bias, batch=left, noise=self.noise * self.batch / left
        )


def evidence(obs: Observation, update: Tree | None = None) -> Evidence | Unanswerable:
    """The last layer's gradient, or why there is none to read."""
    if obs.loss is not cross_entropy:
        name = getattr(obs.loss, "__name__", "custom")
        return Unanswerable(
            f"expected cross entropy, whose gradient at the logits is p - y; came the loss '{name}'. "
            "Learn the labels with the pictures, or reveal them."
        )
    last = head(obs)
    if last is None:
        return Unanswerable("the model does not end in a linear layer whose gradient was sent")
    sent = gradient_of(obs, update)
    if sent is None:
        return Unanswerable(
            f"the update of {type(obs.client).__name__} tells no gradient: expected one gradient or local SGD"
        )
    weight = sent[last.weight].detach().double()
    bias = None if last.bias is None else sent[last.bias].detach().double()
    W = obs.params[last.weight].detach().double()
    stem = last.weight.removesuffix("weight") + "bias"
    resting = obs.params.get(stem, obs.constants.get(stem))
    b = W.new_zeros(len(W)) if resting is None else resting.detach().double()
    plain = type(obs.client) is OneGradient and _drew_plainly(obs)
    found = Evidence(last, weight, bias, W, b, obs.batch_size, 0.0, plain)
    if not bool(torch.isfinite(found.full).all()) or not bool((found.full != 0).any()):
        return Unanswerable(f"the gradient of '{last.weight}' is zero or not finite: it says nothing")
    return dataclasses.replace(found, noise=_noise(found.full, torch.finfo(obs.like.dtype).eps))


def _drew_plainly(obs: Observation) -> bool:
    """Dropout scales features; any other layer that draws may do anything to them, signs included."""
    drawing = [obs.model.get_submodule(path) for path in obs.draws]
    return all(isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d) for module in drawing)


def _noise(G: Tensor, eps: float) -> float:
    """Never less than the rounding of the largest class's entries, which all columns share."""
    off = float((G.sum(0).square().mean() / len(G)).sqrt())
    return max(off, eps * float(G.square().mean().sqrt()))
