import pytest
import torch
from text_models import PAD, bert, texts

import gradleak as gl
from gradleak.text.architecture import anatomy
from gradleak.text.asking import Asking
from gradleak.text.block import Heard
from gradleak.text.hearing import listen
from gradleak.text.shares import shares
from gradleak.text.table import Table


def _heard(pairs: int, heads: int, width: int, seed: int) -> Heard:
    rng = torch.Generator().manual_seed(seed)
    parts = torch.randn(3, pairs, heads, width, generator=rng, dtype=torch.float64)
    return Heard(parts[0].flatten(1), *parts)


@pytest.mark.parametrize("seed", range(3))
def test_sums_of_keys_and_queries_name_what_they_are_made_of(seed: int):
    heard, rng = _heard(90, heads=6, width=16, seed=seed), torch.Generator().manual_seed(seed)
    text = torch.randperm(90, generator=rng)[:10]
    shares = torch.randn(2, 6, 10, generator=rng, dtype=torch.float64)
    query = torch.einsum("ht,thc->hc", shares[0], heard.key[text])
    key = torch.einsum("ht,thc->hc", shares[1], heard.query[text])
    gradients = torch.zeros(90, 2, 96, dtype=torch.float64)
    gradients[3] = torch.stack((query.flatten(), key.flatten()))
    company = Asking.of(gradients, heard).company(3, torch.ones(90).double())
    assert set(company.topk(10).indices.tolist()) == set(text.tolist())
    assert company.sort().values[-11] < 1e-4 * company.sort().values[-10]


def test_a_pair_of_no_weight_is_not_asked():
    gradients = torch.ones(20, 2, 8, dtype=torch.float64)
    prior = torch.ones(20).double().index_fill(0, torch.tensor([4, 7]), 0)
    company = Asking.of(gradients, _heard(20, heads=2, width=4, seed=0)).company(0, prior)
    assert company[4] == company[7] == 0 < company.max()


def test_what_is_asked_of_words_lies_in_the_keys_and_queries_of_their_text():
    """The identity that all rests on, on the gradient of a client: 96 / 4 dimensions, and 9 words or 8."""
    ids, model = texts((9, 8), 300, seed=1), bert()
    obs = gl.observe(model, ids, torch.tensor([0, 1]))
    parts, (first, _) = listen(obs, anatomy(obs), 1e-4)
    words = torch.unique(ids[ids != PAD])
    own = shares(first, Table.of(parts.words, parts.positions[: ids.shape[1]], parts.first), words, 9)
    for row in ids:
        row = row[row != PAD]
        heard = parts.hear(row, torch.arange(len(row)))
        once = [w for w in row.tolist() if (ids == w).sum() == 1]
        asked = own.asked[torch.isin(words, torch.tensor(once))].unflatten(-1, (4, 24))
        for of, by in ((asked[:, 0], heard.key), (asked[:, 1], heard.query)):
            for head in range(4):
                basis = torch.linalg.qr(by[:, head].T).Q
                outside = of[:, head] - of[:, head] @ basis @ basis.T
                assert outside.norm() < 1e-3 * of[:, head].norm()
