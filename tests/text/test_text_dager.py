import pytest
import torch
from text_models import PAD, START, bert, gpt2, sentences, texts, transformers
from torch import Tensor, nn

import gradleak as gl
from gradleak import text
from gradleak.errors import InvalidInput


def _causal(ids: Tensor, model: text.TextModel | None = None, **how: object) -> gl.Observation:
    model = model or gpt2()
    return gl.observe(model, ids, text.words_as_labels(ids, PAD), loss=model.loss, **how)


def _certified(found: text.Texts) -> set[tuple[int, ...]]:
    return {tuple(s.tolist()) for s, sure in zip(found.sentences, found.certified, strict=True) if sure}


@pytest.mark.parametrize("lengths", [(9,), (9, 12, 10, 8), (9, 12, 10, 8, 11, 7, 12, 13)])
def test_a_decoders_texts_are_read_but_for_their_last_words(lengths: tuple[int, ...]):
    ids = texts(lengths, 2000)
    found = text.dager()(_causal(ids))
    assert found.outcome is gl.Outcome.CONVERGED
    assert _certified(found) == sentences(ids, less=1)
    assert found.ranks[1] == len({s[: i + 1] for s in sentences(ids, 1) for i in range(len(s))})
    assert max(found.scores) < 15


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_an_encoders_texts_are_read_whole(seed: int, frozen: bool):
    ids, model = texts((9, 12, 8), 300, seed), bert()
    model.network.bert.embeddings.requires_grad_(not frozen)
    found = text.dager()(gl.observe(model, ids, torch.tensor([0, 1, 0])))
    assert found.outcome is gl.Outcome.CONVERGED
    assert _certified(found) == sentences(ids)
    assert found.words.tolist() == sorted(set(ids[ids != PAD].tolist()))


def test_one_text_is_read_through_noise_of_a_hundredth():
    for seed in range(3):
        ids, model = texts((10,), 300, seed), bert()
        obs = gl.observe(model, ids, torch.tensor([1]))
        rng = torch.Generator().manual_seed(seed)
        obs.update.update(
            {
                n: u + 0.01 * u.square().mean().sqrt() * torch.randn(u.shape, generator=rng)
                for n, u in obs.update.items()
            }
        )
        found = text.dager()(obs)
        assert tuple(found.sentences[0].tolist()) in sentences(ids)


@pytest.mark.parametrize("noise", [1e-4, 1e-2, 1.0])
def test_nothing_false_is_certified_whatever_the_noise(noise: float):
    for seed in range(2):
        ids = texts((6, 7), 300, seed)
        for obs, less in (
            (gl.observe(bert(), ids, torch.tensor([0, 1])), 0),
            (_causal(ids, gpt2(words=300, width=128)), 1),
        ):
            rng = torch.Generator().manual_seed(seed)
            obs.update.update(
                {
                    n: u + noise * u.square().mean().sqrt() * torch.randn(u.shape, generator=rng)
                    for n, u in obs.update.items()
                }
            )
            assert _certified(text.dager(tries=2, widest=16)(obs)) <= sentences(ids, less)


def test_the_same_seed_reads_the_same_and_the_truth_is_not_needed():
    ids = texts((9, 12, 8), 300, 1)
    obs = gl.observe(bert(), ids, torch.tensor([0, 1, 0]))
    ids.fill_(START)
    one, two = (text.dager()(obs, rng=3) for _ in "ab")
    assert [s.tolist() for s in one.sentences] == [s.tolist() for s in two.sentences]
    assert one.scores == two.scores


def test_one_local_step_is_one_gradient_and_two_are_not():
    ids = texts((9, 8), 2000)
    one = text.dager()(_causal(ids, client=gl.LocalSGD(1, 2, 0.1)))
    assert _certified(one) <= sentences(ids, 1)
    two = text.dager()(_causal(ids, client=gl.LocalSGD(2, 2, 0.1)))
    assert (two.outcome, "2 steps" in two.reason) == (gl.Outcome.NOT_APPLICABLE, True)


class _Adapted(nn.Module):
    """A linear layer with a low-rank addition, which alone is trained."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features) * 0.1)
        self.lora_B = nn.Parameter(torch.randn(base.out_features, rank) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.lora_A.T @ self.lora_B.T


def _with_adapters(rank: int) -> text.TextModel:
    model = bert()
    model.network.requires_grad_(False)
    for layer in model.network.bert.encoder.layer:
        attention = layer.attention.self
        attention.query, attention.value = _Adapted(attention.query, rank), _Adapted(attention.value, rank)
    return model


def test_adapters_alone_give_a_text_away_while_they_have_more_rows_than_it_has_words():
    ids = texts((9,), 300)
    wide = text.dager()(gl.observe(_with_adapters(12), ids, torch.tensor([1])))
    assert _certified(wide) == sentences(ids)
    narrow = text.dager()(gl.observe(_with_adapters(4), ids, torch.tensor([1])))
    assert (narrow.outcome, "rows of gradient" in narrow.reason) == (gl.Outcome.NOT_APPLICABLE, True)


def test_where_it_does_not_apply_it_says_why():
    ids = texts((9,), 300)
    y = torch.tensor([1])
    config = transformers.AlbertConfig(
        vocab_size=300, embedding_size=16, hidden_size=32, num_attention_heads=2, intermediate_size=64
    )
    other = text.wrap(transformers.AlbertForSequenceClassification(config).eval())
    drawing = bert()
    drawing.train()
    frozen = bert()
    frozen.network.bert.encoder.requires_grad_(False)
    reasons = {
        "families bert, camembert, distilbert, gpt2, roberta, xlm-roberta": gl.observe(other, ids, y),
        "drew at random": gl.observe(drawing, ids, y),
        "no|none of the layers": gl.observe(frozen, ids, y),
        "too coarse": gl.observe(bert().bfloat16(), ids, y),
        "gradleak.text.wrap": gl.observe(gl.zoo.lenet(classes=10), *gl.zoo.pictures("faces", n=1)),
        "fills all": _causal(texts((20, 20, 20), 2000), gpt2(width=32)),
    }
    for says, obs in reasons.items():
        found = text.dager()(obs)
        assert found.outcome is gl.Outcome.NOT_APPLICABLE
        assert any(part in found.reason for part in says.split("|")), found.reason
    with pytest.raises(InvalidInput, match="miss between 0 and 1"):
        text.dager(miss=0)
