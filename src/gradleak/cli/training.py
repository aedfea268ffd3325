"""How a client trains, as options that commands share."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from gradleak.errors import InvalidInput
from gradleak.observe import Client, LocalAdam, LocalSGD, OneGradient


@dataclass(frozen=True)
class Training:
    """What was said of a client's training; None is not said."""

    epochs: int | None
    local_batch: int | None
    lr: float | None
    momentum: float | None
    adam: bool

    def client(self, records: int) -> Client:
        """The client that trains like this on ``records`` pictures."""
        if self.lr is None:
            self._refuse_without_rate()
            return OneGradient()
        if self.local_batch is not None and self.local_batch > records:
            raise InvalidInput(
                f"expected --local-batch of at most the client's {records} pictures; came "
                f"{self.local_batch}. Make it smaller, or --batch larger."
            )
        epochs, size = self.epochs or 1, self.local_batch or records
        if not self.adam:
            return LocalSGD(epochs, size, self.lr, momentum=self.momentum or 0.0)
        if self.momentum is not None:
            raise InvalidInput(
                f"expected --momentum for SGD; came --momentum {self.momentum:g} with --adam, which keeps "
                "running means of its own. Leave one of the two away."
            )
        return LocalAdam(epochs, size, self.lr)

    def _refuse_without_rate(self) -> None:
        said = {
            "--epochs": self.epochs,
            "--local-batch": self.local_batch,
            "--momentum": self.momentum,
            "--adam": self.adam or None,
        }
        came = [name for name, value in said.items() if value is not None]
        if came:
            raise InvalidInput(
                f"expected --lr beside {' and '.join(came)}, since local training needs a rate; came none. "
                f"Add one, such as --lr 0.05, or leave {'it' if len(came) == 1 else 'them'} away for one "
                "gradient of the whole batch."
            )


_OPTIONS = (
    click.option(
        "--lr", type=float, help="The client trains locally at this rate; without it, it sends one gradient."
    ),
    click.option("--epochs", type=click.IntRange(1), show_default="1", help="Of local training."),
    click.option(
        "--local-batch",
        type=click.IntRange(1),
        show_default="all",
        help="Pictures in a local step, shuffled anew every epoch.",
    ),
    click.option("--momentum", type=float, show_default="0", help="Of local SGD."),
    click.option("--adam", is_flag=True, help="Local training is Adam's instead of SGD's."),
)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Hands the command one ``training`` for all of these options."""

    @functools.wraps(command)
    def called(
        *,
        epochs: int | None,
        local_batch: int | None,
        lr: float | None,
        momentum: float | None,
        adam: bool,
        **others: Any,
    ) -> Any:
        return command(training=Training(epochs, local_batch, lr, momentum, adam), **others)

    for option in reversed(_OPTIONS):
        called = option(called)
    return called
