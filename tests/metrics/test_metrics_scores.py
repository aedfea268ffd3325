"""score pairs before it compares, puts each null beside its score, and survives JSON."""

import dataclasses
import json
import math

import pytest
import torch

import gradleak.metrics
from gradleak.errors import InvalidBatch
from gradleak.metrics import (
    Scores,
    flat_label_agreement,
    label_agreement,
    mean_picture,
    mse,
    pair,
    psnr,
    random_picture,
    score,
    ssim,
)
from gradleak.randomness import spawn

Y = torch.tensor([3, 1, 3, 0])
SHUFFLE = torch.tensor([2, 0, 3, 1])
INVERSE = [1, 3, 0, 2]


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def x():
    return draw(4, 3, 12, 12)


def test_the_public_surface():
    assert set(gradleak.metrics.__all__) == {
        *("mse", "psnr", "ssim", "pair", "mean_picture", "random_picture", "Scores", "score", "identified"),
        *("label_agreement", "null_label_agreement", "flat_label_agreement"),
        *("TextMarks", "TextScores", "score_text"),
    }
    assert all(hasattr(gradleak.metrics, name) for name in gradleak.metrics.__all__)


def test_a_shuffled_noisy_guess_is_scored_in_the_order_of_the_truth(x):
    noise = torch.tensor([0.1, 0.01, 0.001, 0.0001])
    clean_order = x + noise[:, None, None, None]
    guess = clean_order[SHUFFLE]
    s = score(guess, Y, x, Y, classes=5)
    assert s.pairing.tolist() == INVERSE
    torch.testing.assert_close(s.psnr, torch.tensor([20.0, 40.0, 60.0, 80.0]).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(s.mse, mse(clean_order, x))
    torch.testing.assert_close(s.ssim, ssim(clean_order, x))


def test_every_null_is_what_its_guess_would_score(x):
    reference = draw(7, 3, 12, 12, seed=1)
    s = score(x, torch.tensor([3, 3, 3, 3]), x, Y, classes=5, reference=reference, rng=6)
    null = mean_picture(reference, x.shape)
    torch.testing.assert_close(s.null_psnr, psnr(null, x))
    torch.testing.assert_close(s.null_ssim, ssim(null, x))
    noise = random_picture(x.shape, rng=spawn(6, 2)[0])
    torch.testing.assert_close(s.random_psnr, psnr(noise[pair(noise, x)], x))
    assert s.label_agreement == label_agreement(torch.tensor([3, 3, 3, 3]), Y) == 0.5
    assert s.flat_label_agreement == flat_label_agreement(Y, 5)
    assert 0 < s.null_label_agreement < 1


def test_the_reference_moves_the_null_and_nothing_else(x):
    guess = draw(4, 3, 12, 12, seed=2)
    gray, mean = (score(guess, Y, x, Y, classes=5, reference=r) for r in (None, x))
    torch.testing.assert_close(gray.null_psnr, psnr(torch.full_like(x, 0.5), x))
    assert bool((mean.null_psnr > gray.null_psnr).all())
    torch.testing.assert_close((mean.psnr, mean.random_psnr), (gray.psnr, gray.random_psnr), rtol=0, atol=0)


def test_the_null_itself_leaks_nothing_and_a_copy_leaks_without_end(x):
    null = mean_picture(None, x.shape)
    assert score(null, None, x, None, classes=5).leak.tolist() == [0, 0, 0, 0]
    assert score(x, None, x, None, classes=5).leak.tolist() == [math.inf] * 4
    assert bool((score(draw(4, 3, 12, 12, seed=3), None, x, None, classes=5).leak < 0).all())


def test_leak_is_psnr_above_the_null_and_never_nan():
    gray = torch.full((1, 1, 4, 4), 0.5)
    assert score(gray, None, gray, None, classes=2).leak.tolist() == [0]  # inf above inf
    assert score(gray + 0.1, None, gray, None, classes=2).leak.tolist() == [-math.inf]
    assert score(gray * math.nan, None, gray, None, classes=2).leak.tolist() == [-math.inf]
    black = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    s = score(black + 0.05, None, black, None, classes=2)
    assert s.leak.item() == pytest.approx(20, abs=1e-9)  # a tenth of the null's error


@pytest.mark.parametrize("shape", [(4, 8), (4, 3, 12), (4, 1, 2, 12), (4, 1, 12, 2), (4,)])
def test_ssim_is_none_where_there_are_no_pictures(shape):
    x = draw(*shape)
    s = score(x[SHUFFLE], Y, x, Y, classes=5)
    assert s.ssim is None
    assert s.null_ssim is None
    assert s.psnr.tolist() == [math.inf] * 4


@pytest.mark.parametrize(("guess_y", "y"), [(None, Y), (Y, None), (None, None)])
def test_label_fields_are_none_where_labels_are_missing(x, guess_y, y):
    s = score(x, guess_y, x, y, classes=5)
    assert (s.label_agreement, s.null_label_agreement, s.flat_label_agreement) == (None, None, None)


def test_to_dict_is_strict_json_with_every_field_and_comes_back(x):
    guess = x[SHUFFLE].clone()
    guess[1] = math.nan  # the guess for sample 0
    guess[0] += 0.1  # the guess for sample 2
    s = score(guess, Y, x, Y, classes=5)
    plain = json.loads(json.dumps(s.to_dict(), allow_nan=False))
    assert plain.keys() == {field.name for field in dataclasses.fields(Scores)} | {"leak"}
    assert plain["psnr"][:2] == ["-inf", "inf"]
    assert plain["psnr"][2] == pytest.approx(20)
    assert plain["mse"][:2] == ["inf", 0.0]
    assert plain["ssim"][0] == -1
    assert plain["leak"][:2] == ["-inf", "inf"]
    assert plain["pairing"] == INVERSE
    assert plain["label_agreement"] == 1
    for name in ("psnr", "mse", "ssim", "null_psnr", "null_ssim", "random_psnr", "leak"):
        assert [float(v) for v in plain[name]] == getattr(s, name).tolist()
    empty = score(x[:, 0, 0], None, x[:, 0, 0], None, classes=5).to_dict()
    assert empty["ssim"] is empty["null_ssim"] is empty["label_agreement"] is None


def test_scores_are_frozen_and_follow_the_seed(x):
    guess = draw(4, 3, 12, 12, seed=4)
    state = torch.random.get_rng_state()
    first, again, other = (score(guess, Y, x, Y, classes=5, rng=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.to_dict() == again.to_dict()
    assert first != again  # by identity, without asking tensors for a truth value
    assert not torch.equal(first.random_psnr, other.random_psnr)
    assert torch.equal(first.psnr, other.psnr)
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.psnr = other.psnr


def test_float32_says_the_same_as_float64(x):
    guess = draw(4, 3, 12, 12, seed=5)
    wide = score(guess, Y, x, Y, classes=5)
    narrow = score(guess.float(), Y, x.float(), Y, classes=5)
    for name in ("psnr", "ssim", "null_psnr", "null_ssim", "random_psnr"):
        torch.testing.assert_close(getattr(narrow, name), getattr(wide, name), rtol=1e-5, atol=1e-5)
    assert torch.equal(narrow.pairing, wide.pairing)


def test_bad_input_is_refused(x):
    with pytest.raises(InvalidBatch, match="one shape"):
        score(x[:3], Y, x, Y, classes=5)
    with pytest.raises(InvalidBatch, match=r"0\.\.2"):
        score(x, Y, x, Y, classes=3)
    with pytest.raises(InvalidBatch, match="came 3 for 4"):
        score(x, Y[:3], x, Y, classes=5)
    with pytest.raises(InvalidBatch, match="reference pictures"):
        score(x, Y, x, Y, classes=5, reference=x[:, :1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_says_the_same_as_the_cpu(x):
    guess, reference = draw(4, 3, 12, 12, seed=6), draw(5, 3, 12, 12, seed=7)
    here = score(guess, Y, x, Y, classes=5, reference=reference)
    there = score(guess.cuda(), Y.cuda(), x.cuda(), Y.cuda(), classes=5, reference=reference.cuda())
    assert there.pairing.is_cuda
    for name in ("psnr", "ssim", "null_psnr", "null_ssim", "random_psnr"):
        torch.testing.assert_close(getattr(there, name).cpu(), getattr(here, name))
    assert there.pairing.tolist() == here.pairing.tolist()
    assert there.null_label_agreement == here.null_label_agreement


def test_leak_is_measured_from_the_better_null(x):
    # Black is what this public is not, so that noise comes closer.
    s = score(x * 0 + 0.4, None, x * 0, None, classes=5, reference=torch.ones_like(x))
    assert bool((s.random_psnr > s.null_psnr).all())
    torch.testing.assert_close(s.best_null_psnr, s.random_psnr)
    torch.testing.assert_close(s.leak, s.psnr - s.random_psnr)
    gray = score(x * 0 + 0.4, None, x * 0, None, classes=5)
    torch.testing.assert_close(gray.leak, gray.psnr - gray.null_psnr)


def test_without_a_number_of_classes_labels_are_not_scored(x):
    s = score(x, Y, x, Y, classes=None)
    assert (s.label_agreement, s.null_label_agreement, s.flat_label_agreement) == (None, None, None)


@pytest.mark.parametrize("classes", [2.5, "5", True, 0, -1])
def test_classes_that_are_no_number_are_refused(x, classes):
    with pytest.raises(InvalidBatch, match="classes must be a whole number"):
        score(x, Y, x, Y, classes=classes)


def test_only_tensors_are_compared(x):
    for guess, labels, truth, reference in (
        (x.numpy(), Y, x, None),
        (x, Y, x.tolist(), None),
        (x, Y.tolist(), x, None),
        (x, Y.numpy(), x, None),
        (x, Y, x, x.numpy()),
    ):
        with pytest.raises(InvalidBatch, match=r"must be a torch\.Tensor, but is (list|ndarray)"):
            score(guess, labels, truth, Y, classes=5, reference=reference)
