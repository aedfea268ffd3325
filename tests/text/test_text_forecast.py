import json

import pytest
import torch
from text_models import PAD, bert, gpt2, texts
from torch import Tensor

import gradleak as gl
from gradleak import text
from gradleak.errors import InvalidBatch
from gradleak.observe.jacobian import Jacobian
from gradleak.text.confusion import confusion


def _noise(std: float) -> gl.defenses.GaussianNoise:
    return gl.defenses.GaussianNoise(std=std)


def _small() -> tuple[text.TextModel, Tensor, Tensor]:
    return bert(words=200, width=32), texts((6,), 200, 1), torch.tensor([1])


@pytest.mark.parametrize("frozen", [False, True])
def test_without_noise_all_is_read_and_dager_agrees(frozen: bool):
    ids, model = texts((9, 12, 8), 300, 0), bert()
    y = torch.tensor([0, 1, 0])
    model.network.bert.embeddings.requires_grad_(not frozen)
    said = text.forecast(model, ids, y)
    assert [s.verdict for s in said.samples] == ["recoverable exactly"] * 3
    assert [s.words for s in said.samples] == [1.0] * 3
    assert [s.label_read for s in said.samples] == [True] * 3
    assert said.way == "exact"
    assert said.dimensions == 27
    found = text.dager()(gl.observe(model, ids, y))
    assert found.certified == (True,) * 3
    assert len(found.words) == len(set(ids[ids != PAD].tolist()))


def test_a_decoders_last_words_are_not_read():
    ids, model = texts((9, 12, 10), 2000), gpt2()
    y = text.words_as_labels(ids, PAD)
    said = text.forecast(model, ids, y)
    assert [s.words for s in said.samples] == pytest.approx([8 / 9, 11 / 12, 9 / 10])
    assert {s.verdict for s in said.samples} == {"recoverable exactly but for its last word"}
    found = text.dager()(gl.observe(model, ids, y, loss=model.loss))
    assert sorted(map(len, found.sentences)) == [8, 9, 11]


def test_more_noise_never_gives_more_words_and_much_gives_none():
    model, ids, y = _small()
    said = [text.forecast(model, ids, y, client=_noise(std), rng=3) for std in (1e-5, 0.1, 0.5, 3.0, 1e3)]
    words, dimensions = [s.samples[0].words for s in said], [s.dimensions for s in said[1:]]
    assert words == sorted(words, reverse=True)
    assert dimensions == sorted(dimensions, reverse=True)
    assert words[0] == 1
    assert 0.05 < words[2] < 0.95
    last = said[-1].samples[0]
    assert last.verdict == "not from this update"
    assert last.words - last.null_words < 0.1
    assert not said[-1].leaks
    assert said[-1].way == "dense"


def test_the_chance_of_the_right_word_is_that_of_the_linear_model(monkeypatch: pytest.MonkeyPatch):
    """A slow twin: draws of noise and of the other words, and each word's likelihood without these."""
    monkeypatch.setattr("gradleak.text.confusion._TURNS", 1)
    monkeypatch.setattr("gradleak.text.confusion._DRAWS", 1000)
    (model, ids, y), std, real = _small(), 0.5, torch.ones(1, 6, dtype=torch.bool)
    seen = gl.observe(model, ids, y, client=_noise(std))
    said = confusion(seen, ids, y, real, rng=torch.Generator().manual_seed(0)).right[0]
    table = model.embeddings().detach().double()
    facts = text.without_table(seen).to(torch.float64)
    values, vectors = torch.linalg.eigh(Jacobian(facts, table[ids], y).gram() / std**2)
    R = (values.clamp_min(0).sqrt()[:, None] * vectors.T).reshape(-1, 6, 32)
    moved = table - table.mean(0)
    root = torch.linalg.cholesky(moved.T @ moved / len(table))
    rng = torch.Generator().manual_seed(1)
    for place in (0, 2, 5):
        others = torch.cat([R[:, i] @ root for i in range(6) if i != place], 1)
        cover = torch.linalg.cholesky(torch.eye(len(R)).double() + others @ others.T)
        drawn = cover @ torch.randn(len(R), 1000, generator=rng, dtype=torch.float64)
        other = torch.tensor([word for word in range(1, 200) if word != ids[0, place]])
        change = R[:, place] @ (table[other] - table[ids[0, place]]).T
        gap = (change * torch.cholesky_solve(change, cover)).sum(0)  # of log likelihoods, twice
        gap = gap[:, None] - 2 * change.T @ torch.cholesky_solve(drawn, cover)
        right = (gap > 0).all(0).double().mean()
        assert float(said[place]) == pytest.approx(float(right), abs=0.07)


def test_more_words_than_the_layer_is_wide_are_not_read_by_spans():
    model, ids = bert(words=200, width=32), texts((20, 20), 200)
    y = torch.tensor([0, 1])
    assert not any(text.dager()(gl.observe(model, ids, y)).certified)
    said = text.forecast(model, ids, y, exact=False, steps=24)
    assert said.way == "alone"
    assert said.dimensions is None
    assert any("errs towards too much" in note for note in said.notes)
    assert all(s.verdict.startswith("up to ") for s in said.samples)


def test_padding_changes_nothing():
    model, ids, y = _small()
    padded = torch.nn.functional.pad(ids, (0, 4), value=PAD)
    for client in (None, _noise(0.5)):
        one, two = (text.forecast(model, some, y, client=client).samples[0] for some in (ids, padded))
        assert one.words == pytest.approx(two.words, abs=0.02)
        assert one.verdict.split()[0] == two.verdict.split()[0]


def test_ways_that_are_closed_are_named_and_another_is_taken():
    model, ids, y = _small()
    said = text.forecast(model, ids, y, client=gl.LocalSGD(lr=1e-3, epochs=2, batch_size=1))
    assert said.way == "dense"
    assert "spans: the update is the work of 2 steps" in " ".join(said.notes)
    assert said.samples[0].verdict == "about 100 % of its words in their places"
    long = gl.LocalSGD(lr=1e-3, epochs=10, batch_size=1)
    said = text.forecast(model, ids, y, client=gl.defenses.GaussianNoise(long, std=1.0))
    assert said.samples[0].verdict == "not from this update"
    model.train()
    said = text.forecast(model, ids, y)
    assert "drew at random" in " ".join(said.notes)
    assert said.way == "dense"


@pytest.mark.parametrize(
    "client",
    [gl.defenses.Prune(fraction=0.9), gl.defenses.Clip(norm=0.1), gl.defenses.GaussianNoise(std=0.01)],
)
def test_of_a_defended_client_exactly_is_said_where_dager_is_sure(client: gl.defenses.Defense):
    model, ids, y = _small()
    said = text.forecast(model, ids, y, client=client)
    found = text.dager()(gl.observe(model, ids, y, client=client))
    assert ("exactly" in said.samples[0].verdict) == any(found.certified)
    assert said.samples[0].words > 0.9
    assert type(client).__name__ in said.client


def test_the_model_comes_back_untouched_and_json_is_plain():
    model, ids, y = _small()
    before = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    state = torch.get_rng_state()
    said = text.forecast(model, ids, y, client=_noise(0.5), public=texts((9, 9), 200, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model.training
    plain = json.loads(json.dumps(said.to_dict(), allow_nan=False))
    assert plain["samples"][0]["words"] == said.samples[0].words
    assert plain["verdict"] == said.verdict
    again = text.forecast(model, ids, y, client=_noise(0.5), public=texts((9, 9), 200, 5))
    assert again.samples == said.samples


def test_public_texts_raise_the_null():
    model, ids, y = _small()
    public = ids[:, 2:3].repeat(1, 5)
    said = text.forecast(model, ids, y, public=public).samples[0]
    assert said.null_words == pytest.approx(float((ids == ids[0, 2]).double().mean()))
    assert text.forecast(model, ids, y).samples[0].null_words == 1 / 200


def test_what_is_no_text_is_refused():
    model, ids, y = _small()
    with pytest.raises(InvalidBatch, match="words"):
        text.forecast(model, ids.float(), y)
    with pytest.raises(InvalidBatch, match=r"text\.wrap"):
        text.forecast(model.network, ids, y)
