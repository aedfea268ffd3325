"""What must hold before anything is computed: each check says what was expected, what came, what to do."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.errors import GradleakError, InvalidBatch, InvalidInput, InvalidModel, InvalidUpdate
from gradleak.observe.task import Task, logistic, noise_batch
from gradleak.observe.words import holds_integers
from gradleak.trees import Tree

MOST_NUMBERS = 2**31  # in a batch: more is a mistake, and would be allocated
_SHOWN = 8  # how many wrong names an error lists before it counts the rest


def require_trainable(model: nn.Module, trained: Tree) -> None:
    if not trained:
        parameters = sum(1 for _ in model.parameters())
        came = "none of its parameters needs a gradient" if parameters else "it has no parameters"
        raise InvalidModel(
            f"expected a model with parameters to train; came {type(model).__name__}, and {came}. "
            "A client that trains nothing shares nothing."
        )
    hooked = [name for name, parameter in model.named_parameters() if parameter._backward_hooks]
    hooked += [
        path or type(model).__name__
        for path, module in model.named_modules()
        if module._backward_hooks or module._backward_pre_hooks
    ]
    if hooked:
        raise InvalidModel(
            f"expected a model without backward hooks, which may change gradients unseen; came hooks on "
            f"{', '.join(hooked)}. Remove them (handle.remove()), or say what they do as a client."
        )


def check_fit(what: str, came: Tree, expected: Tree, *, partial: bool = False, exact: bool = False) -> None:
    """Names and shapes must be the model's, ``partial``: of those that came, ``exact``: dtypes too."""
    if not isinstance(came, Mapping):
        raise InvalidUpdate(
            f"expected the {what} as tensors by parameter name; came {type(came).__name__}. From a list: "
            "dict(zip((n for n, p in model.named_parameters() if p.requires_grad), the_list))."
        )
    wrong = [] if partial else [f"{n} is missing" for n in expected if n not in came]
    wrong += [f"{n} is not expected" for n in came if n not in expected]
    wrong += [misfit for n in came if n in expected for misfit in _misfit(n, came[n], expected[n], exact)]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InvalidUpdate(
            f"the {what} do not fit the model: {'; '.join(wrong[:_SHOWN])}{more}. Expected one tensor "
            "per trained parameter, by the names of model.named_parameters()."
        )


def _misfit(name: str, came: object, expected: Tensor, exact: bool) -> list[str]:
    if not isinstance(came, Tensor):
        return [f"{name} is no tensor but {type(came).__name__}"]
    if came.is_meta or came.layout is not torch.strided:
        return [f"{name} is sparse, or on the meta device without numbers"]
    if came.shape != expected.shape:
        return [f"{name} has shape {list(came.shape)} where the model has {list(expected.shape)}"]
    if came.dtype != expected.dtype and (exact or came.is_floating_point() != expected.is_floating_point()):
        return [f"{name} holds {came.dtype} where the model has {expected.dtype}"]
    return []


def check_tensors(what: str, came: object) -> Mapping[str, Tensor]:
    if not isinstance(came, Mapping) or not all(isinstance(leaf, Tensor) for leaf in came.values()):
        kinds = "entries that are no tensors" if isinstance(came, Mapping) else type(came).__name__
        raise InvalidUpdate(
            f"expected the {what} as tensors by name, such as model.state_dict(); came {kinds}"
        )
    return came


def require_function(what: str, value: object) -> None:
    if isinstance(value, type):
        raise InvalidInput(
            f"expected the {what} as a function, such as gradleak has; came the class {value.__name__}. "
            f"Make one of it: {value.__name__}(...)."
        )
    if not callable(value):
        raise InvalidInput(f"expected the {what} as a function, such as gradleak has; came {value!r}")


def check_finite(update: Tree) -> None:
    bad = [name for name, leaf in update.items() if not bool(torch.isfinite(leaf).all())]
    if bad:
        raise InvalidUpdate(
            f"the update has NaN or infinite entries in {', '.join(bad[:_SHOWN])}. Expected finite "
            "numbers: a step that overflowed carries nothing to match. Look at the learning rate and loss."
        )


def check_shape(x_shape: Sequence[int]) -> tuple[int, ...]:
    """A batch's shape as plain integers."""
    try:
        shape = torch.Size(x_shape)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        shape = torch.Size()
    if len(shape) < 2 or min(shape) < 1 or math.prod(shape) > MOST_NUMBERS:
        raise InvalidBatch(
            "expected a batch shape of positive sizes with the batch first, like [8, 3, 32, 32], and at most "
            f"{MOST_NUMBERS:,} numbers in all; came {x_shape}"
        )
    return tuple(shape)


def check_channels(values: int, x_shape: Sequence[int]) -> None:
    if values not in (1, x_shape[1]):
        raise InvalidBatch(
            f"expected a normalisation of one value, or of one for each of the {x_shape[1]} channels of a "
            f"batch of shape {list(x_shape)}; came {values} values"
        )


def check_labels(y: Tensor, batch_size: int, classes: int | None, *, words: bool = False) -> None:
    """Class indices, one for each record, or ``words``: one for each of its words."""
    shapes = y.shape[:1] if isinstance(y, Tensor) and words and y.dim() == 2 else getattr(y, "shape", None)
    if not isinstance(y, Tensor) or shapes != (batch_size,) or not holds_integers(y):
        came = f"{y.dtype} of shape {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise InvalidBatch(
            f"expected {batch_size} class indices (integers, shape [{batch_size}]); came {came}"
        )
    if classes is not None and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise InvalidBatch(
            f"expected labels from 0 to {classes - 1}, since the model has {classes} outputs; "
            f"came {int(y.min())} to {int(y.max())}"
        )


def check_targets(y: Tensor, batch_size: int, classes: int) -> None:
    """What cross entropy takes: class indices, or probabilities of the classes."""
    if not y.is_floating_point():
        check_labels(y, batch_size, classes)
    elif y.shape != (batch_size, classes) or not bool(torch.isfinite(y).all()):
        raise InvalidBatch(
            f"expected class indices (integers, shape [{batch_size}]) or finite probabilities of the "
            f"{classes} classes (shape [{batch_size}, {classes}]); came {y.dtype} of shape {list(y.shape)}"
        )


def count_classes(task: Task, params: Tree, x_shape: Sequence[int], claimed: int | None = None) -> int | None:
    """How many logits the model has for one record; what is claimed, if its output is no matrix of logits."""
    like = next(iter(params.values()))
    with torch.no_grad():
        counted = logits_of(forward_or_explain(task, params, noise_batch(like, tuple(x_shape))))
    counted = 2 if counted == 1 and task.loss is logistic else counted
    if counted is None or claimed in (None, counted):
        return claimed if counted is None else counted
    raise InvalidBatch(f"expected {claimed} classes, as was said; the model has {counted} outputs")


def logits_of(output: object) -> int | None:
    return output.shape[1] if isinstance(output, Tensor) and output.dim() == 2 else None


def forward_or_explain(task: Task, params: Tree, x: Tensor) -> Any:
    """The model's output. It runs on copies of the buffers, so that train mode changes none of them."""
    try:
        output = task.with_copied_constants().forward(params, x)
    except GradleakError:
        raise
    except Exception as error:  # whatever the model's own code raises
        raise InvalidBatch(
            f"the model cannot take a batch of shape {list(x.shape)}: {type(error).__name__}: {error}. "
            "Expected the shape that its first layer reads, with the batch first: [B, C, H, W] for pictures."
        ) from error
    if isinstance(output, Tensor) and bool(output.isnan().any()):
        raise InvalidModel(
            "expected numbers from the model; came NaN. Either its numbers overflow, or it reads a "
            "parameter or buffer from a list or the like, and not as an attribute of the module that "
            "registered it, where another can be put in its place."
        )
    return output
