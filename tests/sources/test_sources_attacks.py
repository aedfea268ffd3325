"""Attacks from words, cut to a budget."""

import pytest

from gradleak import attacks
from gradleak.errors import InvalidInput
from gradleak.sources.attacks import of_spec


def test_a_spec_sets_starts_and_length():
    assert of_spec("dlg") == attacks.dlg()
    assert of_spec("dlg:trials=4, evaluations=500") == attacks.dlg(trials=4, evaluations=500)
    assert of_spec("inverting_gradients:steps=7").budget == 8


@pytest.mark.parametrize(
    "spec", ["ssras", "dlg:trials=3", "gradinversion", "inverting_gradients", "gdl", "map"]
)
@pytest.mark.parametrize("most", [400, 1000])
def test_a_budget_is_kept_and_used(spec, most):
    cut, whole = of_spec(spec, most=most), of_spec(spec)
    assert cut.budget <= most
    assert cut.budget > 0.7 * min(most, whole.budget)
    assert of_spec(spec, most=10**9) == whole


def test_what_is_said_goes_before_the_budget():
    assert of_spec("dlg:evaluations=900", most=100).budget == 900
    assert of_spec("bias", most=1) == attacks.bias()


def test_a_budget_too_small_for_one_step_is_refused():
    with pytest.raises(InvalidInput, match="expected 4 matching gradients or more, since dlg"):
        of_spec("dlg:trials=4", most=3)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "expected an attack among"),
        ("dgl", "did you mean gdl"),
        ("dlg:steps=3", "no setting 'steps'; it takes trials, evaluations"),
        ("spear:trials=2", "it has none to set"),
        ("dlg:trials=0", "whole number of 1 or more; came '0'"),
        ("dlg:trials=1e3", "came '1e3'"),
        ("dlg:trials=", "came ''"),
        ("dlg:trials=2,trials=3", "it came twice"),
        ("dlg:4", "NAME=NUMBER"),
    ],
)
def test_a_wrong_spec_is_told(spec, words):
    with pytest.raises(InvalidInput, match=words):
        of_spec(spec)
