"""``gradleak defend``: how much of which defense is enough, and what it costs."""

import functools
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gradleak.cli.console import (
    EXIT_INTERRUPTED,
    EXIT_NO_ANSWER,
    console,
    json_option,
    print_json,
    quiet_option,
    results,
)
from gradleak.cli.models import args_option
from gradleak.errors import InvalidInput
from gradleak.sources.models import arguments, build, takes
from gradleak.sources.pictures import pictures

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradleak.defenses import Federation
    from gradleak.tradeoff import Subject, Target, Tradeoff, Training

_SIDES = {"digits": 8, "faces": 16, "photos": 16}
_GALLERY = 100  # others, among which a picture is sought
_CLASSES = 10  # of a network for pictures that have no classes of their own
_HELD_OUT = 3  # one in so many records is for testing


@click.command()
@click.argument("spec", metavar="MODULE:CALLABLE")
@args_option
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="Bundled pictures (see `gradleak list data`), or a folder; in a folder of folders, each is a class.",
)
@click.option("--size", type=click.IntRange(4, 4096), show_default="8 for digits, else 16", help="Of a side.")
@click.option("--channels", type=click.IntRange(1), show_default="1; 3 for photos and files", help="3 or 1.")
@click.option(
    "--pictures", "n", type=click.IntRange(1), default=3, show_default=True, help="Updates to attack."
)
@click.option(
    "-n", "--batch", type=click.IntRange(1), default=1, show_default=True, help="Pictures in each update."
)
@click.option(
    "--defense", "names", multiple=True, metavar="NAME", help="Search this one only; may be repeated."
)
@click.option(
    "--max-psnr", type=float, show_default="18, with no other target", help="In dB, on the worst picture."
)
@click.option("--max-ssim", type=click.FloatRange(-1, 1), help="On the worst picture.")
@click.option(
    "--max-identified", type=click.FloatRange(0, 1), help="Share of pictures found in a gallery by the guess."
)
@click.option("--participants", type=click.IntRange(1), default=10, show_default=True, help="In each round.")
@click.option("--rounds", type=click.IntRange(1), default=100, show_default=True, help="Of training.")
@click.option("--lr", type=float, default=0.03, show_default=True, help="The server's rate.")
@click.option(
    "--train-mode", is_flag=True, help="Attack updates of train mode: BatchNorm and dropout as in training."
)
@click.option(
    "--seeds", type=click.IntRange(1), default=3, show_default=True, help="Trainings of each setting."
)
@click.option(
    "--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes, a defense for each."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Everything random follows from it.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("defend"), show_default=True, help="Folder."
)
@json_option
@quiet_option
def defend(
    spec: str,
    pairs: tuple[str, ...],
    data: str,
    size: int | None,
    channels: int | None,
    n: int,
    batch: int,
    names: tuple[str, ...],
    max_psnr: float | None,
    max_ssim: float | None,
    max_identified: float | None,
    participants: int,
    rounds: int,
    lr: float,
    train_mode: bool,
    seeds: int,
    workers: int,
    seed: int,
    out: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find each defense's weakest setting that holds the best attacker, and what it costs in accuracy.

    \b
    gradleak defend mlp --data digits
    gradleak defend mlp --data faces --max-psnr 20 --defense gaussian --defense mask

    MODULE:CALLABLE builds the model, and is handed classes, channels and size where it takes them. Writes
    report.html, frontier.png, frontier.svg and defend.json to OUT. Every finished point is kept in
    OUT/points: the same command goes on where it was stopped, and other settings add what is new.
    """
    from gradleak.defenses import Federation
    from gradleak.files import require_folder
    from gradleak.report.frontier import write_tradeoff
    from gradleak.tradeoff import STRENGTHS, Store, Target
    from gradleak.tradeoff.frontier import counted

    if any(":" in name for name in names):
        raise InvalidInput(
            "expected --defense as a name alone, since its strength is what is searched; came "
            f"{', '.join(names)}"
        )
    if max_psnr is None and max_ssim is None and max_identified is None:
        max_psnr = 18.0
    target = Target(max_psnr, max_ssim, max_identified)
    federation = Federation(participants=participants, rounds=rounds, batch_size=batch, lr=lr)
    asked = _Asked(spec, pairs, data, size, channels, n, batch, seed, federation, seeds, target, train_mode)
    searched = tuple(dict.fromkeys(names)) or tuple(STRENGTHS)
    store, before = Store(out / "points"), _kept(out)
    with _progress(hidden=quiet or as_json) as tell:
        search = asked.search()
        if unknown := [name for name in searched if name not in STRENGTHS]:
            search(defenses=unknown)  # says what there is instead
        require_folder(out)
        alone = workers == 1 or len(searched) == 1
        if not alone:
            search(defenses=(), store=store, tell=tell)  # what all processes begin with
            store.closed = not _filled(asked, searched, out / "points", workers, tell)
        found = search(defenses=searched, store=store, **({"tell": tell} if alone else {}))
    written = write_tradeoff(found, out)
    if as_json:
        print_json(found.to_dict() | {"written": [str(path) for path in written]})
    else:
        _print(found)
        click.echo(f"Open {out / 'report.html'}")
    if before and not as_json and not quiet:
        new = _kept(out) - before
        console.print(f"{counted(before, 'point')} from before, {counted(new, 'point')} new", highlight=False)
    if found.interrupted:
        console.print(
            "[yellow]interrupted[/]: the same command goes on where this one stopped", highlight=False
        )
        sys.exit(EXIT_INTERRUPTED)
    if not found.trusted and not found.needless:
        sys.exit(EXIT_NO_ANSWER)


class _Asked:
    """What was asked for: which network on which pictures, attacked and trained."""

    def __init__(
        self,
        spec: str,
        pairs: tuple[str, ...],
        data: str,
        size: int | None,
        channels: int | None,
        n: int,
        batch: int,
        seed: int,
        federation: "Federation",
        seeds: int,
        target: "Target",
        train_mode: bool,
    ) -> None:
        self.spec, self.pairs, self.data, self.n, self.batch, self.seed = spec, pairs, data, n, batch, seed
        self.federation, self.seeds, self.target = federation, seeds, target
        self.train_mode = train_mode
        self.size = size or _SIDES.get(data, 16)
        self.channels = channels or (1 if data in ("digits", "faces") else 3)
        self.x, self.y = self._every()
        self.classes = int(self.y.max()) + 1 if self._has_classes else _CLASSES

    @property
    def _has_classes(self) -> bool:
        """Whether labels are shared, so that one can be learnt from others."""
        kinds = len(set(self.y.tolist()))
        return self.data not in ("faces", "photos") and 1 < kinds <= len(self.y) // _HELD_OUT

    def search(self) -> "Callable[..., Tradeoff]":
        """The library's search with all that was asked for, but for which defenses."""
        from gradleak.tradeoff import tradeoff
        from gradleak.tradeoff.frontier import counted

        training, untrained = self.training()
        return functools.partial(
            tradeoff,
            self.subject(),
            target=self.target,
            training=training,
            untrained=untrained,
            title=f"{self.spec} on {self.data}, updates of {counted(self.batch, 'picture')}",
        )

    def subject(self) -> "Subject":
        from gradleak import zoo
        from gradleak.tradeoff import Subject

        used = self.n * self.batch
        x, y = self.x[:used], self.y[:used] % self.classes
        batches = [(x[i : i + self.batch], y[i : i + self.batch]) for i in range(0, used, self.batch)]
        public = None
        if self.data in zoo.PICTURES:
            public = zoo.public(self.data, used, size=self.size, channels=self.channels)
        others = self.x[used:] if public is None else public
        gallery = others[:_GALLERY]
        return Subject(self.model(self.seed).train(self.train_mode), batches, gallery, public, self.seed)

    def training(self) -> tuple["Training | None", str]:
        """On what accuracy is measured, or why it is not."""
        from gradleak import zoo
        from gradleak.tradeoff import Training
        from gradleak.tradeoff.frontier import counted

        if self._has_classes:
            order = _shuffled(len(self.y), self.seed)
            x, y, said, own = self.x[order], self.y[order], f"the {len(order)} pictures of {self.data}", True
            make: Callable[[int], nn.Module] = self.model
        else:
            x, y = zoo.pictures("digits", size=8, seed=1)
            if not {"classes", "channels", "size"} <= takes(self.spec):
                why = f"{self.spec} takes no classes, channels and size, so that it could be built for digits"
                return None, f"no accuracy was measured: {self.data} cannot be learnt, and {why}"
            said, own = f"digits, with a network of the same kind, since {self.data} cannot be learnt", False
            make = functools.partial(
                build, self.spec, arguments(self.pairs), fit={"classes": 10, "channels": 1, "size": 8}
            )
        k = len(y) // _HELD_OUT
        of = (
            f"Measured on {said}: {len(y) - k} to train on, {k} held out, {counted(self.seeds, 'seed')}, "
            f"{counted(self.federation.participants, 'participant')} to send updates of {self.batch}, "
            f"{counted(self.federation.rounds, 'round')} at a rate of {self.federation.lr:g}."
        )
        return (
            Training(make, (x[k:], y[k:]), (x[:k], y[:k]), of, own, self.federation, self.seeds, self.seed),
            "",
        )

    def model(self, seed: int) -> "nn.Module":
        fit = {"classes": self.classes, "channels": self.channels, "size": self.size}
        return build(self.spec, arguments(self.pairs), seed, fit=fit)

    def _every(self) -> tuple["Tensor", "Tensor"]:
        from gradleak import zoo
        from gradleak.sources.pictures import count

        used = self.n * self.batch
        every = zoo.PICTURES[self.data].count if self.data in zoo.PICTURES else count(self.data)
        if every <= used:
            raise InvalidInput(
                f"expected more than {used} pictures, {self.n} updates of {self.batch} and others beside "
                f"them; {self.data} has {every}. Make --pictures or --batch smaller."
            )
        return pictures(self.data, size=self.size, first=0, n=every, channels=self.channels)


def _kept(out: Path) -> int:
    """How many points there are."""
    return len(list((out / "points").glob("*.json")))


def _filled(
    asked: _Asked,
    names: Sequence[str],
    folder: Path,
    workers: int,
    tell: Callable[[str, float], object],
) -> bool:
    """Have other processes work out the points of each defense; whether all came to their end.

    They leave what they find in the folder, and nothing else: whoever comes next reads it there.
    """
    fill = functools.partial(_fill, asked, folder)
    try:
        with get_context("spawn").Pool(min(workers, len(names)), _alone) as pool:
            tell(f"searching {len(names)} defenses", 0.0)
            for i, name in enumerate(pool.imap_unordered(fill, names), 1):
                tell(f"searched {name}", i / len(names))
    except KeyboardInterrupt:
        return False
    return True


def _alone() -> None:
    """Ctrl-C is for the process that waits; small networks are fastest on one thread."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _fill(asked: _Asked, folder: Path, name: str) -> str:
    from gradleak.tradeoff import Store

    asked.search()(defenses=(name,), store=Store(folder))
    return name


def _shuffled(n: int, seed: int) -> "Tensor":
    import torch

    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


@contextmanager
def _progress(*, hidden: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar that moves with every defense; one line for each step where there is no terminal."""
    bar = Progress(
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,
    )
    said = ""
    with bar:
        task = bar.add_task("", total=1.0)

        def tell(what: str, share: float) -> None:
            nonlocal said
            bar.update(task, completed=share, description=what)
            kind = what.partition(",")[0]
            if not console.is_terminal and not hidden and kind != said:
                said = kind
                console.print(f"{share:4.0%} {kind}", highlight=False, markup=False)

        yield tell


def _print(found: "Tradeoff") -> None:
    """A line per defense, why some do not hold, and the recommendation last."""
    from gradleak.report.frontier import accuracy, cost, decibels, verdict
    from gradleak.tradeoff.frontier import counted, predicted_in

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("defense", "setting", "naive", "best", "predicted", "accuracy", "cost (95 %)", "holds"):
        right = heading not in ("defense", "setting", "holds")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")

    def row(title: str, point: Any, reached: bool = True) -> None:
        told = verdict(found, point) if reached else "no"
        cells = [title, point.words, decibels(point.naive), decibels(point.adaptive)]
        cells += [predicted_in(point), accuracy(point)]
        cells += ["" if point is found.bare else cost(point, found.bare), told]
        table.add_row(*map(Text, cells), style="bold" if told == "yes" else None)

    row("None", found.bare)
    for curve in found.curves:
        if curve.shown is not None:
            row(curve.title, curve.shown, curve.chosen is not None)
    results.print(table)
    results.print(
        f"Decibels of the worst of {counted(len(found.null.psnr), 'picture')}; a guess without the update "
        f"has {decibels(found.null)}. {found.of}",
        soft_wrap=True,
    )
    for curve in found.curves:
        if curve.reason:
            results.print(f"{curve.title}: {curve.reason}", style="dim", soft_wrap=True)
    results.print(f"\n{found.recommendation}", style="bold", soft_wrap=True)
