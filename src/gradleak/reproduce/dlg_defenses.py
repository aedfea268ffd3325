"""DLG's defense table (Zhu et al. 2019): noise, low precision and pruning, by how much each of them hides."""

from collections.abc import Sequence
from dataclasses import dataclass

from gradleak.defenses import GaussianNoise, LaplaceNoise, LowPrecision, Prune
from gradleak.observe import Client, OneGradient
from gradleak.reproduce.defended import (
    ACCURACY,
    ATTACKERS,
    DLG,
    HIDDEN,
    NULL,
    TOLD,
    Reached,
    Victims,
    accuracies,
    between,
    cost,
)
from gradleak.reproduce.table import Column, Table, Told, Value

_LEVELS = (1e-4, 1e-3, 1e-2, 1e-1)
_FRACTIONS = (0.01, 0.1, 0.2, 0.3, 0.5, 0.7)
_GAUSSIAN = ("75.6 %, leaks", "73.3 %, leaks", "45.3 %, hides", "1 % or less, hides")
_LAPLACE = ("75.6 %, leaks", "73.4 %, leaks", "46.2 %, hides", "1 % or less, hides")
_PRUNED = ("leaks", "leaks", "leaks, with artefacts", "hides", "hides", "hides")
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
    Column("accuracy, digits", ".3f"),
    Column("cost", "+.3f"),
    Column("±", ".3f"),
    Column("paper: CIFAR-100, DLG"),
)


@dataclass(frozen=True)
class Setting:
    """``paper`` is None where it is another reading of a number than the paper's."""

    defense: str
    strength: str
    client: Client
    paper: str | None = None


SETTINGS = (
    Setting("none", "", OneGradient(), "76.3 %, leaks"),
    *(
        Setting("Gaussian noise", f"variance {v:.0e}", GaussianNoise.with_variance(v), said)
        for v, said in zip(_LEVELS, _GAUSSIAN, strict=True)
    ),
    *(Setting("Gaussian noise", f"std {v:.0e}", GaussianNoise(std=v)) for v in _LEVELS),
    *(
        Setting("Laplace noise", f"variance {v:.0e}", LaplaceNoise.with_variance(v), said)
        for v, said in zip(_LEVELS, _LAPLACE, strict=True)
    ),
    *(Setting("Laplace noise", f"scale {v:.0e}", LaplaceNoise(scale=v)) for v in _LEVELS),
    Setting("low precision", "fp16", LowPrecision(format="fp16"), "76.1 %, leaks"),
    Setting("low precision", "bf16", LowPrecision(format="bf16"), "leaks"),
    Setting("low precision", "int8", LowPrecision(format="int8"), "53.7 %, hides"),
    *(
        Setting("pruning", f"{share:.0%}", Prune(fraction=share), said)
        for share, said in zip(_FRACTIONS, _PRUNED, strict=True)
    ),
)


def dlg_defenses(n: int, data: Sequence[str], tell: Told) -> Table:
    """What each defense leaves of a picture, to an attacker who is not told and to one who is."""
    rows: list[tuple[Value, ...]] = []
    clients = {"none" if s.defense == "none" else f"{s.defense}, {s.strength}": s.client for s in SETTINGS}
    spent = accuracies(clients, between(tell, 0, _TRAINING))
    for i, name in enumerate(data):
        victims, null = Victims.of(name, n), Victims.of(name, n).null
        part = (1 - _TRAINING) / len(data)
        inner = between(tell, _TRAINING + i * part, _TRAINING + (i + 1) * part)
        for k, ((label, client), setting) in enumerate(zip(clients.items(), SETTINGS, strict=True)):
            inner(f"{label}, {name}", k / len(SETTINGS))
            untold, told = victims.untold(client), victims.told(client)
            rows.append(
                (
                    name,
                    setting.defense,
                    setting.strength,
                    n,
                    *(untold.ssim, told.ssim, null.ssim),
                    *(untold.psnr, told.psnr, null.psnr),
                    hides_from(untold, told),
                    *cost(spent, label),
                    setting.paper,
                )
            )
    return Table(
        "What DLG's defenses leave of a picture, and what they cost",
        _COLUMNS,
        tuple(rows),
        (
            f"hides from: whose median SSIM is below {HIDDEN:g}, our choice; the paper judges by eye.",
            ATTACKERS,
            NULL,
            ACCURACY,
            "paper: accuracy of training on CIFAR-100, and whether DLG still leaks; recalled and not read "
            "again. It takes the number of a noise for its variance; released scripts of later papers take "
            "it for the std or the scale, which is far weaker, so that both are here. It attacks another "
            "network, a ResNet with sigmoids, and its attacker is not told. It gives pruning no accuracy.",
            "Noise is in absolute numbers: what it hides depends on how large a network's gradients are.",
        ),
    )


def hides_from(untold: Reached, told: Reached) -> str:
    if told.hidden:
        return "both" if untold.hidden else "told alone"
    return "DLG alone" if untold.hidden else "nobody"
