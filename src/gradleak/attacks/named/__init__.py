"""Attacks from the literature, each one composition of parts: nothing in here computes.

Where a default differs from the paper, the docstring says so and names the published value.
"""

from gradleak.attacks.named.batches import inverting_batches
from gradleak.attacks.named.client_leakage import cpl
from gradleak.attacks.named.deep_leakage import dlg, idlg
from gradleak.attacks.named.grad_inversion import gradinversion
from gradleak.attacks.named.inverting import inverting_gradients

__all__ = ["cpl", "dlg", "gradinversion", "idlg", "inverting_batches", "inverting_gradients"]
