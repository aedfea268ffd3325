import pytest
import torch
from text_models import PAD, bert, gpt2, texts
from torch import Tensor

import gradleak as gl
from gradleak import text
from gradleak.errors import MissingInformation


def _words(ids: Tensor) -> list[int]:
    return sorted(set(ids[ids != PAD].tolist()))


def _masked(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Two words of each text masked out by word 3, and the labels."""
    y = torch.full_like(ids, -100)
    y[:, 2], y[:, 4] = ids[:, 2], ids[:, 4]
    return torch.where(y >= 0, 3, ids), y


@pytest.mark.parametrize("lengths", [(8,), (7, 9, 5), (6,) * 8])
def test_the_rows_of_the_table_are_the_bag_of_words(lengths: tuple[int, ...]):
    ids = texts(lengths, 300)
    obs = gl.observe(bert(), ids, torch.arange(len(ids)) % 2)
    assert text.bag_of_words(obs).tolist() == _words(ids)
    assert text.longest_text(obs) == max(lengths)


@pytest.mark.parametrize("lengths", [(8,), (7, 9, 6)])
def test_a_tied_heads_part_is_taken_out(lengths: tuple[int, ...]):
    model = bert("masked", words=1000).double()
    ids, y = _masked(texts(lengths, 1000))
    obs = gl.observe(model, ids, y, loss=model.loss)
    rows = obs.update[model.table].norm(dim=1)
    assert int((rows > 0).sum()) > 990  # the plain test is useless here
    assert text.bag_of_words(obs).tolist() == _words(ids)


def test_a_decoders_tied_head_too():
    model, ids = gpt2().double(), texts((9, 12), 2000)
    obs = gl.observe(model, ids, text.words_as_labels(ids, PAD), loss=model.loss)
    inputs = torch.where(torch.arange(12) < (ids != PAD).sum(1, keepdim=True) - 1, ids, PAD)
    assert text.bag_of_words(obs).tolist() == _words(inputs)


@pytest.mark.parametrize("tied", [True, False])
def test_the_signs_of_the_heads_bias_are_the_labels(tied: bool):
    model = bert("masked", tie_word_embeddings=tied)
    ids, y = _masked(texts((8, 7, 9), 300))
    obs = gl.observe(model, ids, y, loss=model.loss)
    assert text.label_words(obs).tolist() == sorted(set(y[y >= 0].tolist()))


def test_words_at_one_position_are_put_there():
    for seed in range(4):
        alone, ids = texts((8,), 300, seed), texts((8, 7, 9), 300, seed)
        order = text.order_from_rows(gl.observe(bert().double(), alone, torch.tensor([1])))
        once = {(int(w), p) for p, w in enumerate(alone[0]) if int((alone == w).sum()) == 1}
        assert once == set(map(tuple, order.once.tolist()))
        order = text.order_from_rows(gl.observe(bert().double(), ids, torch.tensor([0, 1, 0])))
        assert len(order.once) > 5
        assert all(bool((ids[:, place] == word).any()) for word, place in order.once.tolist())


def test_what_is_not_sent_is_said():
    model, ids = bert(), texts((8,), 300)
    model.network.bert.embeddings.requires_grad_(False)
    obs = gl.observe(model, ids, torch.tensor([0]))
    for leak in (text.bag_of_words, text.order_from_rows, text.longest_text):
        with pytest.raises(MissingInformation, match=r"dager\(\) reads words without it"):
            leak(obs)
    with pytest.raises(MissingInformation, match="one bias for each of the 300 words"):
        text.label_words(obs)
    pictures = gl.observe(gl.zoo.lenet(classes=10), *gl.zoo.pictures("faces", n=1))
    with pytest.raises(MissingInformation, match=r"gradleak\.text\.wrap"):
        text.bag_of_words(pictures)
