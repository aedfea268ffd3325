"""DLG's defense table (Zhu et al. 2019): noise, low precision and pruning, by how much each of them hides."""

from collections.abc import Sequence
from dataclasses import dataclass

from gradleak.defenses import GaussianNoise, LaplaceNoise, LowPrecision, Prune
from gradleak.observe import Client, OneGradient
from gradleak.reproduce.defended import (
    ATTACKERS,
    DLG,
    HIDDEN,
    NULL,
    TOLD,
    Reached,
    Victims,
    accuracies,
    between,
    costs,
)
from gradleak.reproduce.table import Column, Table, Told, Value

_LEVELS = (1e-4, 1e-3, 1e-2, 1e-1)
_FRACTIONS = (0.01, 0.1, 0.2, 0.3, 0.5, 0.7)
_NOISY = ("leaks", "leaks", "hides", "hides")
_GAUSSIAN = ("75.6 %", "73.3 %", "45.3 %", "1 % or less")
_LAPLACE = ("75.6 %", "73.4 %", "46.2 %", "1 % or less")
_PRUNED = ("leaks", "leaks", "artefacts", "hides", "hides", "hides")
_TRAINING = 0.3  # of the time, about

_COLUMNS = (
    Column("data"),
    Column("defense"),
    Column("strength"),
    Column("pictures"),
    Column("SSIM, " + DLG, ".2f"),
    Column("SSIM, " + TOLD, ".2f"),
    Column("null SSIM", ".2f"),
    Column("PSNR, " + DLG, ".1f"),
    Column("PSNR, " + TOLD, ".1f"),
    Column("null PSNR", ".1f"),
    Column("hides from"),
    Column("paper"),
)


@dataclass(frozen=True)
class Setting:
    """``said`` and ``accuracy`` are the paper's, None where it is another reading of its number."""

    defense: str
    strength: str
    client: Client
    said: str | None = None
    accuracy: str | None = None

    @property
    def label(self) -> str:
        return f"{self.defense} {self.strength}".rstrip()


SETTINGS = (
    Setting("none", "", OneGradient(), "leaks", "76.3 %"),
    *(
        Setting("Gaussian noise", f"variance {v:.0e}", GaussianNoise.with_variance(v), *said)
        for v, *said in zip(_LEVELS, _NOISY, _GAUSSIAN, strict=True)
    ),
    *(Setting("Gaussian noise", f"std {v:.0e}", GaussianNoise(std=v)) for v in _LEVELS),
    *(
        Setting("Laplace noise", f"variance {v:.0e}", LaplaceNoise.with_variance(v), *said)
        for v, *said in zip(_LEVELS, _NOISY, _LAPLACE, strict=True)
    ),
    *(Setting("Laplace noise", f"scale {v:.0e}", LaplaceNoise(scale=v)) for v in _LEVELS),
    Setting("low precision", "fp16", LowPrecision(format="fp16"), "leaks", "76.1 %"),
    Setting("low precision", "bf16", LowPrecision(format="bf16"), "leaks"),
    Setting("low precision", "int8", LowPrecision(format="int8"), "hides", "53.7 %"),
    *(
        Setting("pruning", f"{share:.0%}", Prune(fraction=share), said)
        for share, said in zip(_FRACTIONS, _PRUNED, strict=True)
    ),
)


def dlg_defenses(n: int, data: Sequence[str], tell: Told) -> Table:
    """What each defense leaves of a picture, to an attacker who is not told and to one who is."""
    rows: list[tuple[Value, ...]] = []
    spent = accuracies({one.label: one.client for one in SETTINGS}, between(tell, 0, _TRAINING))
    for i, name in enumerate(data):
        victims, null = Victims.of(name, n), Victims.of(name, n).null
        part = (1 - _TRAINING) / len(data)
        inner = between(tell, _TRAINING + i * part, _TRAINING + (i + 1) * part)
        for k, setting in enumerate(SETTINGS):
            inner(f"{setting.label}, {name}", k / len(SETTINGS))
            untold, told = victims.untold(setting.client), victims.told(setting.client)
            rows.append(
                (
                    name,
                    setting.defense,
                    setting.strength,
                    n,
                    *(untold.ssim, told.ssim, null.ssim),
                    *(untold.psnr, told.psnr, null.psnr),
                    hides_from(untold, told),
                    setting.said,
                )
            )
    return Table(
        "What DLG's defenses leave of a picture",
        _COLUMNS,
        tuple(rows),
        (
            f"hides from: whose median SSIM is below {HIDDEN:g}, our choice; the paper judges by eye.",
            ATTACKERS,
            NULL,
            "paper: whether DLG still leaks, and what training on CIFAR-100 reaches under what they cost; "
            "both recalled and not read again. It takes the number of a noise for its variance; released "
            "scripts of later papers take it for the std or the scale, which is far weaker, so that both are "
            "here. Its network is a ResNet with sigmoids, and its attacker is not told. It gives "
            "pruning and bf16 no accuracy.",
            "Noise is in absolute numbers: what it hides depends on how large a network's gradients are.",
        ),
        more=(costs(spent, {one.label: one.accuracy for one in SETTINGS}),),
    )


def hides_from(untold: Reached, told: Reached) -> str:
    if told.hidden:
        return "both" if untold.hidden else "told alone"
    return "DLG alone" if untold.hidden else "nobody"
