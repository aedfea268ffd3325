"""The third room: from an observation to a reconstruction.

An attack is built from its hyper-parameters and called with an observation and its randomness:
``gl.attacks.dlg(trials=4)(obs, rng=0)``. Its parts are in ``gl.attacks.matching``.
"""

from collections.abc import Callable

from gradleak.attacks import matching
from gradleak.attacks.base import Attack, Cost, Outcome, Reconstruction
from gradleak.attacks.matching import Matching
from gradleak.attacks.named import dlg, idlg, inverting_gradients

ATTACKS: dict[str, Callable[..., Matching]] = {
    "dlg": dlg,
    "idlg": idlg,
    "inverting_gradients": inverting_gradients,
}
"""By the name that a command line says; the first line of the docstring describes it."""

__all__ = [
    "ATTACKS",
    "Attack",
    "Cost",
    "Outcome",
    "Reconstruction",
    "dlg",
    "idlg",
    "inverting_gradients",
    "matching",
]
