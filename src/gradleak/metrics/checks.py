"""What every comparison asks of its tensors before it compares them."""

import torch
from torch import Tensor

from gradleak.errors import InvalidBatch


def check_tensor(role: str, value: object) -> None:
    if not isinstance(value, torch.Tensor):
        raise InvalidBatch(
            f"the {role} must be a torch.Tensor, but is {type(value).__name__}; "
            "convert it with torch.as_tensor"
        )


def comparable(guess: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, without their graphs, on the truth's device (on the CPU if that has no float64).

    A guess may hold NaN or infinity, for attacks diverge. A truth may not: it would make every guess look
    like a failure, and the audit would call a leak safe.
    """
    for role, tensor in (("guess", guess), ("truth", truth)):
        check_tensor(role, tensor)
    if guess.shape != truth.shape:
        raise InvalidBatch(
            f"guess and truth must have one shape, but the guess is {list(guess.shape)} and the truth "
            f"{list(truth.shape)}; pass one guess for every sample"
        )
    if truth.ndim == 0 or truth.numel() == 0:
        raise InvalidBatch(
            f"expected a batch of at least one sample, [B, ...], but came {list(truth.shape)}; "
            "give a single sample a batch dimension with x[None]"
        )
    for role, tensor in (("guess", guess), ("truth", truth)):
        check_floating(role, tensor)
    check_finite("truth", truth)
    device = torch.device("cpu") if truth.device.type == "mps" else truth.device
    # Device first, dtype second: a guess may lie where there is no float64.
    wide_guess, wide_truth = (t.detach().to(device).to(torch.float64) for t in (guess, truth))
    return wide_guess, wide_truth


def check_floating(role: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise InvalidBatch(
            f"the {role} must be real floating-point numbers, but is {tensor.dtype}; "
            "bring pictures of bytes to [0, 1] with x / 255"
        )


def check_finite(role: str, tensor: Tensor) -> None:
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise InvalidBatch(
            f"the {role} must be finite, but {bad} of its {tensor.numel()} values are NaN or infinite; "
            "repair or drop those samples"
        )


def check_labels(role: str, labels: Tensor) -> None:
    check_tensor(f"{role} labels", labels)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or labels.ndim != 1:
        raise InvalidBatch(
            f"the {role} labels must be whole numbers of shape [B], but are {labels.dtype} of shape "
            f"{list(labels.shape)}; turn scores or one-hot rows into labels with argmax(1)"
        )


def check_classes(truth: Tensor, classes: int) -> None:
    """The truth must be at least one label, each of them among the classes."""
    check_labels("true", truth)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise InvalidBatch(f"classes must be a whole number, 1 or more, but is {classes!r}")
    if truth.numel() == 0:
        raise InvalidBatch("expected at least one true label, but came none; pass the labels of the batch")
    low, high = int(truth.min()), int(truth.max())
    if low < 0 or high >= classes:
        raise InvalidBatch(
            f"with {classes} classes every label lies in 0..{classes - 1}, but the true ones reach from "
            f"{low} to {high}; pass the model's number of classes, and leave ignored labels out"
        )
