import copy

import pytest
import torch
from text_models import PAD, bert, gpt2, texts
from torch import Tensor, nn

import gradleak as gl
from gradleak import text
from gradleak.errors import InvalidBatch, InvalidInput, InvalidModel, NotInstalled


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_wrapped_encoder_computes_what_transformers_does_without_the_padding(attention: str):
    model, ids = bert(attn_implementation=attention), texts((5, 8), 300)
    expected = model.network(input_ids=ids, attention_mask=(ids != PAD).long()).logits
    assert torch.allclose(model(ids), expected, atol=1e-6)
    alone = model(ids[:1, :5])
    assert torch.allclose(model(ids)[:1], alone, atol=1e-5)


@pytest.mark.parametrize("make", [bert, gpt2])
def test_embeddings_in_the_place_of_words_give_the_same(make):
    model, ids = make(), texts((5, 8), 300)
    assert torch.equal(model(ids), model(model.embeddings()[ids]))


@pytest.mark.parametrize("make", [bert, gpt2])
def test_a_decoder_does_not_look_ahead_and_an_encoder_does(make):
    model, ids = make(), texts((8,), 300)
    other = ids.clone()
    other[0, 6] = 9
    hidden = model.network.base_model
    mask = model._mask(torch.ones_like(ids, dtype=torch.bool))
    one, two = (hidden(input_ids=i, attention_mask=mask).last_hidden_state for i in (ids, other))
    assert torch.equal(one[:, :6], two[:, :6]) == (model.task == "causal")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_update_is_autograds_gradient_and_the_embeddings_give_it_too(attention: str):
    model, ids, y = bert(attn_implementation=attention), texts((5, 8), 300), torch.tensor([0, 1])
    obs = gl.observe(model, ids, y)
    assert obs.x_shape == (2, 8, 96)
    assert obs.classes == 2
    model.zero_grad()
    nn.functional.cross_entropy(model(ids), y).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(obs.update[name], parameter.grad, atol=1e-6), name
    frozen = text.without_table(obs)
    assert model.table in obs.update
    assert model.table not in frozen.update
    simulated = frozen.simulate(frozen.constants[model.table][ids], y)
    assert all(torch.allclose(simulated[n], frozen.update[n], atol=1e-6) for n in simulated)


def test_language_models_have_a_label_for_each_word():
    ids = texts((5, 8), 300)
    masked, causal = bert("masked"), gpt2(words=300)
    y = torch.full_like(ids, -100)
    y[0, 2], y[1, 4] = ids[0, 2], ids[1, 4]
    obs = gl.observe(masked, ids, y, loss=masked.loss, reveal="labels")
    assert torch.equal(obs.labels, y)
    expected = -masked(ids).log_softmax(-1)[[0, 1], [2, 4], [ids[0, 2], ids[1, 4]]].mean()
    assert torch.allclose(masked.loss(masked(ids), y), expected)
    labels = text.words_as_labels(ids, PAD)
    theirs = causal.network(input_ids=ids, attention_mask=(ids != PAD).long(), labels=labels).loss
    assert torch.allclose(causal.loss(causal(ids), labels), theirs, atol=1e-6)
    assert gl.observe(causal, ids, labels, loss=causal.loss, client=gl.LocalSGD(1, 1, 0.1)).steps == 2


def test_an_observation_holds_no_word_of_the_batch():
    model, ids = gpt2(words=300), texts((5, 8), 300)
    obs = gl.observe(model, ids, text.words_as_labels(ids, PAD), loss=model.loss)
    tensors = [*obs.params.values(), *obs.update.values(), *obs.constants.values()]
    tensors += [v for m in obs.model.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    assert all(t.is_floating_point() or t.shape[-1] > 8 or t.dim() == 0 for t in tensors)
    assert obs.labels is None
    assert "8 words" in " ".join(obs.knows)
    assert not any(torch.equal(t, model.embeddings()[ids]) for t in tensors)


def test_the_model_comes_back_as_it_was():
    model, ids = bert(), texts((5,), 300)
    before = copy.deepcopy(model.state_dict())
    gl.observe(model, ids, torch.tensor([1]))
    assert all(torch.equal(before[name], leaf) for name, leaf in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_embeddings_are_not_in_the_update():
    model, ids = bert(), texts((5,), 300)
    model.network.bert.embeddings.requires_grad_(False)
    obs = gl.observe(model, ids, torch.tensor([1]))
    assert model.table in obs.constants
    assert not any("embeddings" in name for name in obs.update)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (torch.tensor([[1, 300]]), "words from 0 to 299.*1 to 300.*another tokenizer"),
        (torch.tensor([[1, -1]]), "came -1 to 1"),
        (torch.ones(1, 25, dtype=torch.int64), "at most 24 words"),
        (torch.tensor([[1, 5], [PAD, PAD]]), "1 of the batch are padding alone"),
        (torch.rand(1, 4, 5), r"embeddings \[B, T, 96\].*\[1, 4, 5\]"),
    ],
    ids=["no such word", "a negative one", "too long", "an empty text", "another width"],
)
def test_texts_that_do_not_fit_are_named(ids: Tensor, says: str):
    with pytest.raises(InvalidBatch, match=says):
        gl.observe(bert(), ids, torch.zeros(len(ids), dtype=torch.int64))


def test_labels_and_models_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch):
    masked, ids = bert("masked"), texts((5,), 300)
    with pytest.raises(InvalidBatch, match="a word for each position"):
        gl.observe(masked, ids, torch.tensor([1]), loss=masked.loss)
    with pytest.raises(InvalidBatch, match=r"NaN\. Is there a label at all"):
        gl.observe(masked, ids, torch.full_like(ids, -100), loss=masked.loss)
    with pytest.raises(InvalidBatch, match=r"gradleak\.text\.wrap"):
        gl.observe(nn.Linear(5, 2), ids, torch.tensor([1]))
    with pytest.raises(InvalidModel, match="came Linear"):
        text.wrap(nn.Linear(5, 2))
    with pytest.raises(InvalidModel, match="has no head"):
        text.wrap(masked.network.bert)
    with pytest.raises(InvalidInput, match="classification, masked, causal; came 'poetry'"):
        text.wrap(masked.network, "poetry")
    with pytest.raises(InvalidInput, match="padding word from 0 to 299"):
        text.wrap(masked.network, pad=300)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(NotInstalled, match=r"gradleak\[text\]"):
        text.wrap(masked.network)


def test_embeddings_are_matched_under_vmap_as_one_by_one():
    model, ids = bert(attn_implementation="eager"), texts((6,), 300)
    obs = text.without_table(gl.observe(model, ids, torch.tensor([1])))
    many = torch.randn(3, *obs.x_shape, generator=torch.Generator().manual_seed(0))
    together = torch.func.vmap(lambda x: obs.task.gradient(obs.params, x, torch.tensor([1])))(many)
    for i, x in enumerate(many):
        alone = obs.simulate(x, torch.tensor([1]))
        assert all(torch.allclose(together[n][i], alone[n], atol=1e-5) for n in alone)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own
def test_a_model_with_adapters_of_peft_is_taken_and_sends_these_alone():
    peft = pytest.importorskip("peft")
    model = bert(words=400, width=64).network
    lora = {"r": 24, "target_modules": ["query", "value"], "init_lora_weights": False}
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", **lora)).eval()
    wrapped = text.wrap(adapted)
    ids = texts((9,), 400)
    seen = gl.observe(wrapped, ids, torch.tensor([1]), loss=wrapped.loss)
    assert all("lora_" in name or "classifier" in name for name in seen.update)
    found = text.dager()(seen)
    assert found.certified == (True,)
    assert torch.equal(found.sentences[0], ids[0])


def test_an_encoder_that_sees_the_next_word_is_no_decoder():
    with pytest.raises(InvalidModel, match="is_decoder=True"):
        text.wrap(bert("masked").network, "causal")
