import pytest
import torch
from text_models import PAD, bert, gpt2, sentences, texts, transformers
from torch import Tensor, nn

import gradleak as gl
from gradleak import defenses, text
from gradleak.observe import Client
from gradleak.text.adapters import Adapter, adapter_span
from gradleak.text.completion import Completed, completed
from gradleak.text.defended import defended_span
from gradleak.text.span import Span


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _seen(seed: int, share: float, *shape: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=draws, dtype=torch.float64) < share).double()


def test_a_matrix_of_low_rank_is_completed_from_some_of_its_entries():
    scales = torch.tensor([1, 0.1, 1e-2, 1e-3], dtype=torch.float64)
    whole = (_random(0, 120, 4) * scales) @ _random(1, 4, 40)
    found = completed(whole, _seen(2, 0.4, 120, 40) * 1e9, faint=1.0)
    assert isinstance(found, Completed)
    assert found.B.shape == (40, 4)
    assert torch.allclose(found.A @ found.B.T, whole, atol=1e-8)


def test_what_does_not_determine_the_rest_is_refused():
    whole = _random(0, 120, 4) @ _random(1, 4, 40)
    share = 4 * (120 + 40 - 4) / (120 * 40)  # as many equations as unknowns
    few = completed(whole, _seen(2, share, 120, 40) * 1e9, faint=1.0)
    full = completed(_random(3, 120, 40), _seen(2, 0.5, 120, 40) * 1e9, faint=1.0)
    for refused in (few, full):
        assert isinstance(refused, str)
        assert "seen" in refused or "held back" in refused
    assert completed(_random(3, 120, 40), torch.ones(120, 40).double()) == "nothing stands out of the noise"


def test_the_ratio_of_words_that_were_read_is_one_where_precision_is_uneven():
    ratios = []
    for seed in range(8):
        read = _random(seed, 3, 40)
        off = 0.01 * 2 ** _random(seed + 100, 200, 40).clamp(-1, 1)
        off = torch.where(_seen(seed, 0.6, 200, 40) > 0, off, torch.inf)
        sent = _random(seed + 200, 200, 3) @ read + _random(seed + 300, 200, 40) * off.nan_to_num(posinf=0)
        found = defended_span([sent], [off], torch.float64, 1e-16)
        assert isinstance(found, Span)
        assert (found.rank, found.noisy) == (3, True)
        ratios.append(found.test(_random(seed + 400, 50, 3) @ read).mean())
        assert float(found.test(_random(seed + 500, 50, 40)).min()) > 100
    assert 0.9 < float(torch.stack(ratios).mean()) < 1.1


def _size(model: text.TextModel, ids: Tensor) -> float:
    """The root mean square of the whole update."""
    update = _observed(model, ids, gl.OneGradient()).update.values()
    return float(torch.cat([leaf.flatten() for leaf in update]).square().mean().sqrt())


def _observed(model: text.TextModel, ids: Tensor, client: Client) -> gl.Observation:
    y = text.words_as_labels(ids, PAD) if model.task == "causal" else torch.arange(len(ids)) % 2
    return gl.observe(model, ids, y, loss=model.loss, client=client, rng=5)


def _certified(found: text.Texts) -> set[tuple[int, ...]]:
    return {tuple(s.tolist()) for s, sure in zip(found.sentences, found.certified, strict=True) if sure}


DEFENSES = {
    "mask": lambda size: defenses.Mask(rate=0.4),
    "prune": lambda size: defenses.Prune(fraction=0.5),
    "fp16": lambda size: defenses.LowPrecision(format="fp16"),
    "bf16": lambda size: defenses.LowPrecision(format="bf16", stochastic=True),
    "int8": lambda size: defenses.LowPrecision(format="int8"),
    "noise": lambda size: defenses.GaussianNoise(std=0.01 * size),
    "laplace": lambda size: defenses.LaplaceNoise(scale=0.01 * size),
    "clip": lambda size: defenses.Clip(norm=0.1 * size),
    "dpsgd": lambda size: defenses.DPSGD(clip=0.1, noise_multiplier=1e-5),
    "mask, then noise": lambda size: defenses.GaussianNoise(defenses.Mask(rate=0.3), std=1e-3 * size),
}


@pytest.mark.parametrize("name", DEFENSES)
@pytest.mark.parametrize("make", [bert, gpt2])
def test_a_text_is_read_through_a_defense_that_is_known(make, name: str):
    ids, model = texts((9,), 300), make(words=300, width=64)
    less = 1 if model.task == "causal" else 0
    found = text.dager()(_observed(model, ids, DEFENSES[name](_size(model, ids))))
    assert found.outcome is gl.Outcome.CONVERGED
    assert _certified(found) == sentences(ids, less)


@pytest.mark.parametrize("name", ["fp16", "mask", "prune"])
@pytest.mark.parametrize("make", [bert, gpt2])
def test_three_texts_are_too(make, name: str):
    ids, model = texts((7, 9, 8), 300, 1), make(words=300, width=96)
    less = 1 if model.task == "causal" else 0
    found = text.dager()(_observed(model, ids, DEFENSES[name](_size(model, ids))))
    assert _certified(found) == sentences(ids, less)


STRONG = {
    "mask": defenses.Mask(rate=0.93),
    "prune": defenses.Prune(fraction=0.97, per="layer"),
    "sign": defenses.Sign(),
    "dpsgd": defenses.DPSGD(clip=0.1, noise_multiplier=1.0),
}


@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize("make", [bert, gpt2])
def test_nothing_is_certified_where_too_little_is_left(make, name: str):
    ids, model = texts((9, 8), 300), make(words=300, width=64)
    found = text.dager(tries=1)(_observed(model, ids, STRONG[name]))
    assert not _certified(found)
    assert found.reason


@pytest.mark.parametrize("noise", [1e-2, 3e-2])
def test_noise_makes_no_false_sentence_of_four_texts(noise: float):
    exact = 0
    for seed in range(2):
        ids, model = texts((9, 8, 10, 7), 300, seed), gpt2(words=300, width=96)
        client = defenses.GaussianNoise(std=noise * _size(model, ids))
        found = text.dager()(_observed(model, ids, client))
        assert _certified(found) <= sentences(ids, 1)
        exact += len({tuple(s.tolist()) for s in found.sentences} & sentences(ids, 1))
    assert exact >= (6 if noise == 1e-2 else 2)


def _family(kind: str, layers: int = 3) -> text.TextModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "initializer_range": 0.15, "max_position_embeddings": 24}
    if kind == "DistilBert":
        named = {"dim": 64, "n_layers": layers, "n_heads": 4, "hidden_dim": 128}
    else:
        named = {"hidden_size": 64, "num_hidden_layers": layers, "num_attention_heads": 4}
        named |= {"intermediate_size": 128, "pad_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(**sizes, **named)
    return text.wrap(getattr(transformers, f"{kind}ForSequenceClassification")(config).eval())


@pytest.mark.parametrize("kind", ["Roberta", "XLMRoberta", "Camembert", "DistilBert"])
def test_further_families_are_entries_in_a_table(kind: str):
    model, ids = _family(kind), texts((9, 12, 8), 300)
    if model.pad == 1:
        ids = torch.where(ids < 2, 1 - ids, ids)
    found = text.dager()(gl.observe(model, ids, torch.tensor([0, 1, 0])))
    assert _certified(found) == {tuple(row[row != model.pad].tolist()) for row in ids}


def test_two_layers_are_enough():
    ids, model = texts((9, 7), 300), _family("DistilBert", layers=2)  # of the last, one word asks
    assert _certified(text.dager()(gl.observe(model, ids, torch.tensor([0, 1])))) == sentences(ids)


class _Adapted(nn.Module):
    """A linear layer with a low-rank addition that is nothing yet, which alone is trained."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features) * 0.1)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.lora_A.T @ self.lora_B.T


@pytest.mark.parametrize(("rank", "read"), [(10, True), (16, True), (9, False), (4, False)])
def test_adapters_in_their_first_step_give_texts_away_that_are_shorter_than_their_rank(rank: int, read: bool):
    model, ids = bert(), texts((9,), 300)
    model.network.requires_grad_(False)
    for layer in model.network.bert.encoder.layer:
        own = layer.attention.self
        own.query, own.value = _Adapted(own.query, rank), _Adapted(own.value, rank)
    found = text.dager()(gl.observe(model, ids, torch.tensor([1])))
    assert _certified(found) == (sentences(ids) if read else set())
    assert read or f"an adapter with {rank} rows" in found.reason


def test_an_adapter_says_no_to_vectors_that_it_has_not_read():
    inner, read = _random(0, 6, 20), _random(1, 4, 20)
    found = adapter_span([Adapter(_random(2, 30, 4) @ read @ inner.T, inner)], torch.float64, 1e-16)
    assert isinstance(found, Span)
    assert float(found.test(read).max()) < found.bound(1e-4) < float(found.test(_random(3, 500, 20)).min())
    assert found.rank == 4


def test_a_part_of_a_text_does_not_pass_for_the_whole_where_words_hardly_heed_each_other():
    """With small random weights and noise, the second layer cannot tell a word alone from one in a text."""
    exact = 0
    for seed in range(12):
        model = _plain_bert(seed)
        ids = torch.randint(3, 500, (1, 6), generator=torch.Generator().manual_seed(seed))
        client = gl.defenses.GaussianNoise(std=1e-4 * _size(model, ids))
        seen = gl.observe(model, ids, torch.tensor([1]), client=client, rng=seed)
        found = text.dager(tries=3)(seen, rng=0)
        assert _certified(found) <= {tuple(ids[0].tolist())}
        exact += any(torch.equal(sentence, ids[0]) for sentence in found.sentences)
    assert exact >= 4


def _plain_bert(seed: int) -> text.TextModel:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=500,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=16,
    )
    return text.wrap(transformers.BertForSequenceClassification(config).eval())


def test_the_word_that_begins_every_text_is_no_text_where_noise_drowns_the_rest():
    tokenizer = gl.zoo.tokenizer()
    sentences_, y = gl.zoo.sentences(8)
    for start in (0, 4):
        batch = list(sentences_[start : start + 4])
        ids = tokenizer(batch, padding="longest", return_tensors="pt")["input_ids"]
        model = text.wrap(gl.zoo.bert(vocabulary=len(tokenizer), width=96, layers=2))
        true = {tuple(word for word in row if word) for row in ids.tolist()}
        for seed in range(2):
            client = gl.defenses.GaussianNoise(std=1e-6)
            seen = gl.observe(model, ids, y[start : start + 4], loss=model.loss, client=client, rng=seed)
            assert _certified(text.dager(tries=3)(seen, rng=0)) <= true
