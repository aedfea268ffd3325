"""The third room: from an observation to a reconstruction.

An attack is built from its hyper-parameters and called with an observation and its randomness:
``gl.attacks.dlg(trials=4)(obs, rng=0)``. Its parts are in ``gl.attacks.matching``.
"""

from collections.abc import Callable

from gradleak.attacks import matching
from gradleak.attacks.base import Attack, Cost, Outcome, Reconstruction
from gradleak.attacks.closed_form.batch.attack import exact_batch, spear
from gradleak.attacks.closed_form.bias import bias
from gradleak.attacks.closed_form.r_gap import r_gap
from gradleak.attacks.closed_form.router import attack, ssras
from gradleak.attacks.feedback import feedback_blending
from gradleak.attacks.gdl import gdl
from gradleak.attacks.named import cpl, dlg, gradinversion, idlg, inverting_batches, inverting_gradients
from gradleak.attacks.posterior import map

ATTACKS: dict[str, Callable[..., Attack]] = {
    "ssras": ssras,
    "bias": bias,
    "exact_batch": exact_batch,
    "spear": spear,
    "r_gap": r_gap,
    "dlg": dlg,
    "idlg": idlg,
    "inverting_gradients": inverting_gradients,
    "inverting_batches": inverting_batches,
    "gradinversion": gradinversion,
    "cpl": cpl,
    "gdl": gdl,
    "map": map,
}
"""By the name that a command line says; the first line of the docstring describes it."""

__all__ = [
    "ATTACKS",
    "Attack",
    "Cost",
    "Outcome",
    "Reconstruction",
    "attack",
    "bias",
    "cpl",
    "dlg",
    "exact_batch",
    "feedback_blending",
    "gdl",
    "gradinversion",
    "idlg",
    "inverting_batches",
    "inverting_gradients",
    "map",
    "matching",
    "r_gap",
    "spear",
    "ssras",
]
