"""How much of texts several attacks read, as a picture: over the texts of a batch, and over their length."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SHAPES = "osD^v"
# Okabe and Ito's, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_SIDE = 4.0  # inches


@dataclass(frozen=True)
class Mean:
    """``null`` is what the better guess without the update scores."""

    attack: str
    texts: int
    words: int
    rouge_1: float
    null: float


def curves(means: Sequence[Mean], words: int) -> bytes:
    """A PNG; batches are those of texts of ``words`` words, and lengths those of one text."""
    figure = Figure(figsize=(2 * _SIDE, _SIDE), layout="constrained")
    by_texts, by_length = figure.subplots(1, 2, sharey=True)
    _panel(by_texts, [one for one in means if one.words == words], lambda one: one.texts)
    by_texts.set_xscale("log", base=2)
    sizes = sorted({one.texts for one in means})
    by_texts.set_xticks(sizes, [str(size) for size in sizes])
    by_texts.set_xlabel(f"texts of {words} words in a batch")
    by_texts.set_ylabel("ROUGE-1")
    _panel(by_length, [one for one in means if one.texts == 1], lambda one: one.words)
    by_length.set_xlabel("words of one text")
    marks, names = by_texts.get_legend_handles_labels()
    figure.legend(marks, names, loc="outside lower center", ncols=len(names), frameon=False)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110, metadata={"Software": None})
    return held.getvalue()


def _panel(axes: Axes, means: Sequence[Mean], along: Callable[[Mean], int]) -> None:
    for i, attack in enumerate(dict.fromkeys(one.attack for one in means)):
        own = [one for one in means if one.attack == attack]
        axes.plot(
            [along(one) for one in own],
            [one.rouge_1 for one in own],
            color=_COLOURS[i % len(_COLOURS)],
            marker=_SHAPES[i % len(_SHAPES)],
            label=attack,
        )
    null = sorted({along(one): one.null for one in means}.items())
    axes.plot(*zip(*null, strict=True), color="#777777", linestyle="dashed", label="null")
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.25)
