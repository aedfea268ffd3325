"""Label agreement against pairing off by hand, and its nulls against their closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from gradleak.errors import InvalidBatch
from gradleak.metrics import flat_label_agreement, label_agreement, null_label_agreement

some_labels = st.lists(st.integers(0, 4), min_size=1, max_size=12)


def crossed_off(guess, truth):
    left = list(truth)
    for label in guess:
        if label in left:
            left.remove(label)
    return (len(truth) - len(left)) / len(truth)


def expected_null(truth, classes):
    """E min(N_c, n_c) summed over classes, where N_c is Binomial(B, 1 / classes)."""
    B = len(truth)
    hits = sum(
        min(k, truth.count(c)) * binom.pmf(k, B, 1 / classes) for c in range(classes) for k in range(B + 1)
    )
    return hits / B


@settings(deadline=None)
@given(truth=some_labels, data=st.data())
def test_agreement_is_what_can_be_crossed_off(truth, data):
    guess = data.draw(st.lists(st.integers(-1, 4), min_size=len(truth), max_size=len(truth)))
    got = label_agreement(torch.tensor(guess), torch.tensor(truth))
    assert got == pytest.approx(crossed_off(guess, truth), abs=1e-12)


@settings(deadline=None)
@given(truth=some_labels, data=st.data())
def test_the_order_does_not_count(truth, data):
    assert label_agreement(torch.tensor(data.draw(st.permutations(truth))), torch.tensor(truth)) == 1


def test_repeated_labels_count_as_often_as_they_are_there():
    truth = torch.tensor([3, 3, 3, 1])
    assert label_agreement(torch.tensor([3, 3, 1, 1]), truth) == 0.75
    assert label_agreement(torch.tensor([3, 0, 0, 0]), truth) == 0.25
    assert label_agreement(torch.tensor([-1, -1, -1, -1]), truth) == 0
    assert label_agreement(torch.tensor([1, 3, 3, 3], dtype=torch.int32), truth) == 1


@pytest.mark.parametrize(("truth", "classes"), [([0], 10), ([1, 1, 1, 1], 3), ([0, 1, 2, 3, 3, 0], 5)])
def test_random_labels_agree_as_often_as_the_binomial_says(truth, classes):
    got = null_label_agreement(torch.tensor(truth), classes)
    assert got == pytest.approx(expected_null(truth, classes), abs=1e-12)
    rng = torch.Generator().manual_seed(0)
    guesses = torch.randint(classes, (4000, len(truth)), generator=rng)
    drawn = sum(label_agreement(guess, torch.tensor(truth)) for guess in guesses) / len(guesses)
    assert got == pytest.approx(drawn, abs=0.02)


def test_with_one_class_every_guess_is_right():
    truth = torch.zeros(3, dtype=torch.long)
    assert null_label_agreement(truth, 1) == pytest.approx(1)
    assert flat_label_agreement(truth, 1) == 1


@pytest.mark.parametrize(
    ("truth", "classes", "share"),
    [
        ([0, 1, 2, 3], 4, 1.0),  # one of each is there
        ([2, 2, 2, 2], 4, 0.25),  # one of four
        ([0, 0, 1, 1], 4, 0.5),
        ([7], 10, 0.1),  # a tenth of a label
        ([0, 0, 0, 1], 10, 0.2),  # 0.4 of class 0 and 0.4 of class 1, of 4
    ],
)
def test_the_flat_guess_by_hand(truth, classes, share):
    assert flat_label_agreement(torch.tensor(truth), classes) == pytest.approx(share, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(truth=some_labels, more=st.integers(0, 5))
def test_the_flat_guess_is_never_worse_than_random_labels(truth, more):
    # min(., n) is concave, so by Jensen the mean guess agrees at least as much as guesses do on the mean.
    classes = 5 + more
    assert flat_label_agreement(torch.tensor(truth), classes) >= expected_null(truth, classes) - 1e-12


def test_what_are_no_labels_is_refused():
    y = torch.tensor([0, 1, 2])
    for bad in (
        torch.rand(3),
        torch.eye(3, dtype=torch.long),
        y > 0,
        torch.tensor(1),
    ):
        with pytest.raises(InvalidBatch, match="guessed labels must be whole numbers"):
            label_agreement(bad, y)
        with pytest.raises(InvalidBatch, match="true labels must be whole numbers"):
            label_agreement(y, bad)
        with pytest.raises(InvalidBatch, match="true labels must be whole numbers"):
            flat_label_agreement(bad, 3)
    with pytest.raises(InvalidBatch, match="came 2 for 3"):
        label_agreement(y[:2], y)
    with pytest.raises(InvalidBatch, match="came 0 for 0"):
        label_agreement(y[:0], y[:0])


def test_the_nulls_refuse_labels_that_are_no_classes():
    for truth in ([0, 3], [-1, 2]):
        with pytest.raises(InvalidBatch, match=r"0\.\.2"):
            flat_label_agreement(torch.tensor(truth), 3)
        with pytest.raises(InvalidBatch, match=r"0\.\.2"):
            null_label_agreement(torch.tensor(truth), 3)
    with pytest.raises(InvalidBatch, match="came none"):
        flat_label_agreement(torch.tensor([], dtype=torch.long), 3)
