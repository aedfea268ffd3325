"""One seed's run, made ready and checked: what all clients share, and how well each of them does with it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from gradleak.defenses.utility.federated import Federation, weights_by_round
from gradleak.defenses.utility.shares import shares
from gradleak.errors import InvalidBatch, InvalidModel
from gradleak.observe import Client, Loss, Task, cross_entropy
from gradleak.observe.checks import (
    check_labels,
    count_classes,
    forward_or_explain,
    logits_of,
    require_function,
    require_trainable,
)
from gradleak.observe.layers import name_of
from gradleak.observe.task import attention_by_formula, noise_batch, split_tensors, structure_of
from gradleak.randomness import reseed, spawn, undisturbed
from gradleak.trees import Tree, detached

Records = tuple[Tensor, Tensor]

_AT_ONCE = 1000  # test records


@dataclass(frozen=True)
class Run:
    """Everything that all clients share."""

    federation: Federation
    task: Task
    judge: Task  # the same network in eval mode
    params: Tree
    train: Records
    test: Records
    shares: list[Tensor]
    seed: int

    def course(
        self, client: Client, looks: Sequence[int], tell: Callable[[int], None]
    ) -> tuple[list[float], int | None]:
        """The accuracy after each of ``looks``, and the round at which it diverged, if it did."""
        found: list[float] = []
        with ExitStack() as stack:
            stack.enter_context(undisturbed(self.train[0].device))
            stack.enter_context(attention_by_formula())
            task = self.task.with_copied_constants()
            again = spawn(self.seed, 2)[1]  # the same for every client
            every = weights_by_round(
                self.federation, client, task, self.params, *self.train, self.shares, again
            )
            for n, weights in enumerate(every, start=1):
                tell(n)
                right = self.accuracy(weights) if n in looks else 0.0
                if right is None or not all(bool(leaf.isfinite().all()) for leaf in weights.values()):
                    return found + [self.null] * (len(looks) - len(found)), n
                if n in looks:
                    found.append(right)
        return found, None

    def accuracy(self, weights: Tree) -> float | None:
        """The share of test records that are classed rightly; None where a logit is not finite."""
        right = 0
        with torch.no_grad():
            for start in range(0, len(self.test[0]), _AT_ONCE):
                x, y = (part[start : start + _AT_ONCE] for part in self.test)
                logits = self.judge.forward(weights, x)
                if not bool(logits.isfinite().all()):
                    return None
                said = logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()
                right += int((said == y).sum())
        return right / len(self.test[1])

    @property
    def null(self) -> float:
        return float(self.test[1].bincount().max()) / len(self.test[1])


def prepared(
    model: nn.Module | Callable[[int], nn.Module],
    train: Records,
    test: Records,
    federation: Federation,
    alpha: float | None,
    loss: Loss,
    seed: int,
) -> Run:
    splitting = spawn(seed, 1)[0]
    with undisturbed(torch.device("cpu")):
        reseed(seed, torch.device("cpu"))  # for a function that draws the first weights from there
        made = model if isinstance(model, nn.Module) else _made(model, seed)
    params, constants = split_tensors(made)
    require_trainable(made, params)
    _require_own_statistics(made)
    task = Task(structure_of(made), constants, loss)
    like = next(iter(params.values()))
    with undisturbed(like.device):
        train, test = (
            _fitting(what, task, params, part) for what, part in (("train", train), ("test", test))
        )
    _require_enough(federation, len(train[1]))
    mine = shares(train[1], federation.participants, alpha, splitting)
    judge = Task(structure_of(made).eval(), detached(constants), loss)
    return Run(federation, task, judge, params, train, test, mine, seed)


def _made(build: Callable[[int], nn.Module], seed: int) -> nn.Module:
    require_function("model, or what makes one of a seed,", build)
    return build(seed)


def _require_enough(federation: Federation, records: int) -> None:
    smallest = records // federation.participants
    wanted = federation.batch_size or 1
    if smallest < wanted:
        raise InvalidBatch(
            f"expected train records for {federation.participants} participants with batches of {wanted}; "
            f"came {records:,}, of which some would have {smallest}. Make batch_size or participants smaller."
        )


def _require_own_statistics(model: nn.Module) -> None:
    """Refuse layers whose running statistics the participants would have to send beside their gradients."""
    for path, module in model.named_modules():
        if not isinstance(module, _NormBase):
            continue
        keeps = module.running_mean is not None
        if (module.training and keeps) or (isinstance(module, _BatchNorm) and not keeps):
            raise InvalidModel(
                f"expected a model whose records do not depend on each other; came {name_of(path, module)}, "
                "which computes with the batch's own statistics, and nothing in an update says which ones to "
                "evaluate it with. Use GroupNorm, or model.eval() to train with its running statistics as "
                "they are."
            )


def _fitting(what: str, task: Task, params: Tree, records: object) -> Records:
    """The records on the model's device, after the model has been tried on their shape."""
    if not isinstance(records, tuple | list) or len(records) != 2:
        raise InvalidBatch(f"expected {what} as a pair of pictures and labels; came {type(records).__name__}")
    x, y = records
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2 or not x.numel():
        came = f"{x.dtype} of shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InvalidBatch(f"expected {what} pictures as floats with the records first; came {came}")
    like = next(iter(params.values()))
    x = x.detach().to(like)
    if not bool(x.isfinite().all()):
        raise InvalidBatch(
            f"expected {what} pictures that are finite in {x.dtype}; came NaN or infinite ones"
        )
    with torch.no_grad():
        outputs = logits_of(forward_or_explain(task, params, noise_batch(like, (2, *x.shape[1:]))))
    if outputs is None or (outputs == 1 and task.loss is cross_entropy):
        came = "one logit" if outputs else "another output"
        raise InvalidBatch(
            "expected a model with one logit per class, shape [records, classes], to tell its accuracy by; "
            f"came {came}. Pass loss=gradleak.logistic for two classes with one logit."
        )
    check_labels(y, len(x), count_classes(task, params, (2, *x.shape[1:])) if outputs > 1 else 2)
    return x, y.detach().to(like.device).long()
