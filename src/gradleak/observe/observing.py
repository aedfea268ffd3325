"""Run a client on a private batch, and keep only what the server would hold."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.observe.client import Client, OneGradient
from gradleak.observe.domain import Domain
from gradleak.observe.observation import (
    Observation,
    check_labels,
    forward_or_explain,
    logits_of,
    require_trainable,
)
from gradleak.observe.probe import require_deterministic, require_differentiable
from gradleak.observe.task import Loss, Task, cross_entropy, split_tensors, structure_of
from gradleak.trees import detached

REVEALABLE = ("labels",)


def observe(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss | None = None,
    client: Client | None = None,
    assumed: Client | None = None,
    reveal: Collection[str] = (),
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Observation:
    """One round of one client, seen from the server.

    ``client`` really runs (default: ``OneGradient()``, with cross entropy). ``assumed`` is the client
    that the attacker believes in; the default is the true one, which is how "the attacker knows the
    defense" is said. ``reveal`` names what the server knows besides: ``"labels"``. ``normalization`` is
    the (mean, std) with which pixels in [0, 1] were turned into ``x``.

    The model and the global random state come back as they were.
    """
    reveal = _known_names(reveal)
    trained, constants = split_tensors(model)
    require_trainable(model, trained)
    task = Task(structure_of(model), constants, loss or cross_entropy)
    x, y = _fitting_batch(task, trained, x, y)
    run = client or OneGradient()
    with _own_random_state(x):
        require_deterministic(task, trained, x)
        torch.manual_seed(0)
        update = detached(run(task, trained, x.clone(), y))
        require_differentiable(run, task, trained, x, y)
    with torch.no_grad():
        classes = logits_of(task.forward(trained, x.clone()))
    return Observation(
        model=task.model,
        params=trained,
        update=update,
        x_shape=tuple(x.shape),
        constants=constants,
        classes=classes,
        loss=task.loss,
        client=assumed or run,
        domain=Domain.of(normalization),
        labels=y if "labels" in reveal else None,
    )


def _known_names(reveal: Collection[str]) -> tuple[str, ...]:
    names = (reveal,) if isinstance(reveal, str) else tuple(reveal)
    unknown = [name for name in names if name not in REVEALABLE]
    if unknown:
        raise InvalidInput(f"reveal takes any of {', '.join(REVEALABLE)}; came {', '.join(unknown)}")
    return names


def _fitting_batch(task: Task, params: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Copies of the batch in the model's dtype and on its device, or an error that says what is wrong."""
    like = next(iter(params.values()))
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2 or x.numel() == 0:
        came = f"{x.dtype} of shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InvalidBatch(f"expected pictures as a floating-point tensor with the batch first; came {came}")
    if not isinstance(y, Tensor) or y.dim() < 1 or y.shape[0] != x.shape[0]:
        came = f"shape {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise InvalidBatch(f"expected one label for each of the {x.shape[0]} pictures; came {came}")
    if not bool(torch.isfinite(x).all()):
        raise InvalidBatch("expected finite pixels; came NaN or infinite ones")
    x = x.detach().to(like, copy=True)
    y = y.detach().to(like.device, copy=True)
    with torch.no_grad():
        scratch = Task(task.model, {name: c.clone() for name, c in task.constants.items()}, task.loss)
        output = forward_or_explain(scratch, params, x.clone())
    classes = logits_of(output)
    if classes is None and task.loss is cross_entropy:
        came = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise InvalidBatch(
            f"expected logits of shape [{x.shape[0]}, classes] for cross entropy; came {came}. "
            "Pass loss=... for a model with another output."
        )
    if not y.is_floating_point() and classes is not None and y.dim() == 1:
        check_labels(y, x.shape[0], classes)
    return x, y


@contextmanager
def _own_random_state(x: Tensor) -> Iterator[None]:
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
