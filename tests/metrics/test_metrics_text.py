"""Marks of guessed texts: against hand-computed cases, slow twins, and what a guess from nothing gets."""

import functools
import itertools
import json
import random

import pytest
import torch

from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.metrics import score_text
from gradleak.metrics.text import (
    bag_accuracy,
    edit_distance,
    pair_texts,
    rouge_l,
    rouge_n,
    token_accuracy,
)

THE, CAT, SAT, ON, MAT, DOG = range(1, 7)
TRUTH = [THE, CAT, SAT, ON, THE, MAT]


def slow_common(a, b):
    """The longest common subsequence by trying all of them."""
    for n in range(min(len(a), len(b)), 0, -1):
        if set(itertools.combinations(a, n)) & set(itertools.combinations(b, n)):
            return n
    return 0


def slow_edits(a, b):
    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        both = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(both, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(a), len(b))


def test_a_case_by_hand():
    guess = [THE, DOG, SAT, THE, MAT]
    assert token_accuracy(guess, TRUTH) == 2 / 6  # the, sat; the last word is one place early
    assert bag_accuracy(guess, TRUTH) == 4 / 6
    assert rouge_n(guess, TRUTH, 1) == pytest.approx(2 * 4 / 11)
    assert rouge_n(guess, TRUTH, 2) == pytest.approx(2 * 1 / 9)  # the mat
    assert rouge_l(guess, TRUTH) == pytest.approx(2 * 4 / 11)  # the sat the mat
    assert edit_distance(guess, TRUTH) == 2  # dog for cat, and put in: on


def test_repeats_count_once_for_each_time_that_both_have_them():
    assert rouge_n([THE, THE, THE], [THE, CAT], 1) == pytest.approx(2 * 1 / 5)
    assert bag_accuracy([THE, THE, THE], [THE, CAT]) == 1 / 3


def test_every_word_of_the_vocabulary_is_no_good_guess():
    assert bag_accuracy(list(range(100)), TRUTH) == 5 / 100
    assert token_accuracy([*TRUTH, *range(94)], TRUTH) == 6 / 100


def test_texts_too_short_for_pairs():
    assert rouge_n([THE], [THE], 2) == 1
    assert rouge_n([THE], [CAT], 2) == 0
    assert rouge_l([], []) == 1
    assert rouge_l([], [THE]) == 0


@pytest.mark.parametrize("seed", range(30))
def test_slow_twins_agree(seed):
    rng = random.Random(seed)
    a, b = ([rng.randrange(4) for _ in range(rng.randrange(8))] for _ in range(2))
    if a or b:
        assert rouge_l(a, b) == pytest.approx(2 * slow_common(a, b) / (len(a) + len(b)))
    assert edit_distance(a, b) == slow_edits(tuple(a), tuple(b))


@pytest.mark.parametrize("seed", range(10))
def test_pairs_have_the_best_sum_of_rouge(seed):
    rng = random.Random(seed)
    truth, guess = ([[rng.randrange(5) for _ in range(4)] for _ in range(4)] for _ in range(2))
    best = max(
        sum(rouge_l(guess[g], t) for g, t in zip(order, truth, strict=True))
        for order in itertools.permutations(range(4))
    )
    found = sum(rouge_l(guess[g], t) for g, t in zip(pair_texts(guess, truth), truth, strict=True))
    assert found == pytest.approx(best)


def test_a_shuffled_batch_is_scored_in_the_order_of_the_truth():
    truth = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    scores = score_text(truth[[2, 0, 1]], truth, vocabulary=10)
    assert scores.pairing.tolist() == [1, 2, 0]
    assert scores.exact.tolist() == [1, 1, 1]
    assert scores.edits.tolist() == [0, 0, 0]
    assert (scores.leak > 0).all()


def test_fewer_guesses_than_texts_and_more():
    few = score_text([[4, 5, 6]], [[1, 2, 3], [4, 5, 6]], vocabulary=10)
    assert few.pairing.tolist() == [-1, 0]
    assert few.rouge_1.tolist() == [0, 1]
    assert few.edits.tolist() == [3, 0]
    many = score_text([[9, 9], [4, 5, 6], [1, 2]], [[4, 5, 6]], vocabulary=10)
    assert many.pairing.tolist() == [1]
    none = score_text([], [[1, 2, 3]], vocabulary=10)
    assert none.tokens.tolist() == [0]


def test_words_left_out_hold_their_place_and_earn_nothing():
    truth, guess = [[101, 7, 8, 102, 0]], [[101, 102, 8, 5, 0]]
    scores = score_text(guess, truth, vocabulary=200, without=(0, 101, 102))
    assert scores.tokens.tolist() == [0.5]  # 8 is where it was, though 102 before it is left out
    assert scores.rouge_1.tolist() == [0.5]
    assert scores.exact.tolist() == [0]
    assert scores.random.tokens.tolist() == [0]


def test_a_null_guesses_what_can_be_guessed():
    public = [[THE, CAT], [THE, DOG, THE]]
    scores = score_text([TRUTH], [TRUTH], vocabulary=7, public=public)
    assert scores.frequent is not None
    assert scores.frequent.bag.tolist() == [3 / 6]  # the cat dog the cat dog: two times the, and cat
    assert scores.leak[0] == 1 - max(float(scores.frequent.rouge_l[0]), float(scores.random.rouge_l[0]))
    random_bag = torch.stack(
        [score_text([TRUTH], [TRUTH], vocabulary=7, rng=i).random.bag for i in range(50)]
    )
    assert 0.3 < float(random_bag.mean()) < 0.8  # of seven words, a draw of six has about half


def test_scores_survive_json():
    told = json.loads(json.dumps(score_text([[1]], [[1]], vocabulary=3, public=[[1]]).to_dict()))
    assert told["exact"] == [1.0]
    assert told["frequent"]["exact"] == [1.0]
    assert set(told["random"]) == {"tokens", "bag", "exact", "rouge_1", "rouge_2", "rouge_l", "edits"}


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InvalidInput, match="from 0 to 9"):
        score_text([[1]], [[12]], vocabulary=10)
    with pytest.raises(InvalidBatch, match="a word in every true one"):
        score_text([[1]], [[0]], vocabulary=10, without=(0,))
    with pytest.raises(InvalidBatch, match="whole numbers"):
        score_text([torch.rand(3)], [[1]], vocabulary=10)
