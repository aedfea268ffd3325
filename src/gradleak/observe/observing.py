"""Run a client on a private batch, and keep only what the server would hold."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.observe.checks import (
    check_channels,
    check_targets,
    count_classes,
    forward_or_explain,
    logits_of,
    require_function,
    require_trainable,
)
from gradleak.observe.client import Client, OneGradient, Summed, Trained
from gradleak.observe.domain import Domain
from gradleak.observe.draws import drawing_layers
from gradleak.observe.observation import Observation
from gradleak.observe.probe import differentiable_update, require_still
from gradleak.observe.statistics import norm_layers, sent_statistics
from gradleak.observe.task import (
    Loss,
    Task,
    attention_by_formula,
    cross_entropy,
    logistic,
    noise_batch,
    split_tensors,
    structure_of,
)
from gradleak.observe.uncertainty import Defended
from gradleak.observe.words import are_words, continuous
from gradleak.randomness import Rng, private, reseed, undisturbed
from gradleak.trees import Tree

REVEALABLE = ("labels", "statistics", "order")


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
    rng: Rng = 0,
) -> Observation:
    """One round of one client, seen from the server.

    ``client`` really runs (default: ``OneGradient()``, with cross entropy), in the modes in which the
    model's layers are: after ``model.train()``, BatchNorm uses the batch's own statistics and dropout
    draws. ``assumed`` is the client that the attacker believes in; the default is the true one, which is
    how "the attacker knows the defense" is said. ``reveal`` names what the server knows besides:
    ``"labels"``; ``"statistics"``, what every BatchNorm layer saw, which a client gives away that sends
    its running statistics; ``"order"``, in which shuffled local training took the records.
    ``normalization`` is the (mean, std) with which pixels in [0, 1] were turned into ``x``. ``rng`` is
    the client's own, for its order and for dropout; no attack with the same seed draws the same.

    The model and the global random state come back as they were.
    """
    reveal = _known_names(reveal)
    for what, value in (("loss", loss), ("client", client), ("assumed client", assumed)):
        if value is not None:
            require_function(what, value)
    domain = Domain.of(normalization)
    trained, constants = split_tensors(model)
    require_trainable(model, trained)
    task = Task(structure_of(model), constants, loss or cross_entropy)
    # A structure that never met the batch: models may keep their last input as an attribute.
    clean = Task(structure_of(model), constants, task.loss)
    like = next(iter(trained.values()))
    run = client or OneGradient()
    with undisturbed(like.device), attention_by_formula():
        x, y = _copied_batch(like, x, y)
        shape = tuple(continuous(clean.model, {**constants, **trained}, x).shape)
        check_channels(len(domain.mean), shape)
        y = _fitting_labels(task, trained, x, y)
        if "labels" in reveal and y.is_floating_point():
            raise InvalidBatch(
                "soft labels are no class indices and cannot be revealed; leave 'labels' out of reveal"
            )
        require_still(task, trained, x)
        draws = drawing_layers(clean, trained, noise_batch(like, shape))
        own = private(rng)
        if isinstance(run, Trained):
            truth, run = run, run.drawn(len(x), own)
            if assumed is None:
                assumed = _ordered(truth, run) if "order" in reveal else truth
        dice = int(torch.randint(2**62, (), generator=own))
        reseed(dice, x.device)
        update = differentiable_update(run, task, trained, x, y)
        statistics = None
        if "statistics" in reveal and norm_layers(model):
            reseed(dice, x.device)
            statistics = sent_statistics(run, task, trained, x, y)
        classes = count_classes(clean, trained, shape)
    return Observation(
        model=structure_of(model),
        params=trained,
        update=update,
        x_shape=shape,
        constants=constants,
        classes=classes,
        loss=task.loss,
        client=assumed or run,
        domain=domain,
        labels=y if "labels" in reveal else None,
        statistics=statistics,
        draws=draws,
    )


def _ordered(undrawn: Client, drawn: Client) -> Client:
    """The client with its order settled, and none of the other dice that a defense has thrown."""
    if isinstance(undrawn, Defended) and isinstance(drawn, Defended):
        return undrawn.around(_ordered(undrawn.client, drawn.client))
    if isinstance(undrawn, Summed) and isinstance(drawn, Summed):
        pairs = zip(undrawn.all, drawn.all, strict=True)
        return Summed(undrawn.clients, tuple(_ordered(a, b) for a, b in pairs))
    return drawn


def _known_names(reveal: Collection[str]) -> tuple[str, ...]:
    if not isinstance(reveal, Collection):
        raise InvalidInput(f"reveal takes names out of {', '.join(REVEALABLE)}, or (); came {reveal!r}")
    names = (reveal,) if isinstance(reveal, str) else tuple(reveal)
    unknown = [name for name in names if name not in REVEALABLE]
    if unknown:
        raise InvalidInput(
            f"reveal takes any of {', '.join(REVEALABLE)}; came {', '.join(map(repr, unknown))}"
        )
    return names


def _copied_batch(like: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Copies of the batch in the model's dtype and on its device, or an error that says what is wrong."""
    usable = isinstance(x, Tensor) and (x.is_floating_point() or are_words(x))
    if not usable or x.dim() < 2 or x.numel() == 0:
        came = f"{x.dtype} of shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InvalidBatch(f"expected pictures as a floating-point tensor with the batch first; came {came}")
    if not isinstance(y, Tensor) or y.dim() < 1 or y.shape[0] != x.shape[0]:
        came = f"shape {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise InvalidBatch(f"expected one label for each of the {x.shape[0]} pictures; came {came}")
    if any(t.is_meta or t.layout is not torch.strided for t in (x, y)):
        raise InvalidBatch(
            f"expected dense pictures and labels that hold numbers; came {x.layout} on {x.device} and "
            f"{y.layout} on {y.device}. Use to_dense(), and a real device."
        )
    x = _plain(x).to(like.device, torch.int64 if are_words(x) else like.dtype, copy=True)
    if not bool(torch.isfinite(x).all()):
        raise InvalidBatch(f"expected pixels that are finite in {x.dtype}; came NaN or infinite ones")
    y = _plain(y).to(like.device, like.dtype if y.is_floating_point() else y.dtype, copy=True)
    return x, y


def _plain(tensor: Tensor) -> Tensor:
    # A subclass would pass its type, and what that does and holds, on to the update.
    return tensor.detach().as_subclass(Tensor)


def _fitting_labels(task: Task, params: Tree, x: Tensor, y: Tensor) -> Tensor:
    """The labels as the loss takes them, after the model and the loss have been tried on the batch."""
    with torch.no_grad():
        output = forward_or_explain(task, params, x.clone())
    if task.loss is cross_entropy:
        classes = logits_of(output)
        if classes is None:
            came = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InvalidBatch(
                f"expected logits of shape [{x.shape[0]}, classes] for cross entropy; came {came}. "
                "Pass loss=... for a model with another output."
            )
        if classes == 1:
            raise InvalidBatch(
                "expected two logits or more for cross entropy, which is 0 for one class whatever the "
                "picture; came one. Pass loss=gradleak.logistic for two classes with one logit."
            )
        check_targets(y, x.shape[0], classes)
        return y if y.is_floating_point() else y.long()
    if task.loss is logistic:
        if logits_of(output) != 1:
            raise InvalidBatch(
                f"expected one logit per record, shape [{x.shape[0]}, 1], for the logistic loss"
            )
        check_targets(y, x.shape[0], 2)
        return y if y.is_floating_point() else y.long()
    _require_scalar(task.loss, output, y)
    return y


def _require_scalar(loss: Loss, output: Tensor, y: Tensor) -> None:
    name = getattr(loss, "__name__", type(loss).__name__)
    try:
        with torch.no_grad():
            value = loss(output, y)
    except Exception as error:  # whatever the user's own loss raises
        raise InvalidBatch(
            f"the loss '{name}' cannot take these labels ({y.dtype} of shape {list(y.shape)}): "
            f"{type(error).__name__}: {error}. Expected labels that fit the model's output."
        ) from error
    if not isinstance(value, Tensor) or value.dim() != 0:
        came = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InvalidBatch(f"expected one number from the loss '{name}'; came {came}. Average or sum it.")
    if bool(value.isnan()):
        raise InvalidBatch(f"expected a number from the loss '{name}'; came NaN. Is there a label at all?")
