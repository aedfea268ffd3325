"""Texts by matching gradients: words that are proven, objectives against slow twins, words reordered."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

import gradleak as gl
from gradleak import text
from gradleak.attacks.matching import SquaredError
from gradleak.attacks.matching.candidate import Candidate
from gradleak.attacks.matching.optimizers import Space
from gradleak.errors import InvalidInput
from gradleak.observe import Domain
from gradleak.text.matching import Start
from gradleak.text.published import CosineByTensor, EmbeddingNorm, SquaredAndAbsolute
from gradleak.text.reordering import Reordering
from gradleak.text.unsaid import TextItself, next_soft

transformers = pytest.importorskip("transformers")

WORDS, PAD = 200, 0


def model(seed=0, head="BertForSequenceClassification", task="classification"):
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(
        vocab_size=WORDS, max_position_embeddings=32, num_labels=2, pad_token_id=PAD, **shape
    )
    return text.wrap(getattr(transformers, head)(config).eval(), task)


def words(length=5, texts=1, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(1, WORDS, (texts, length), generator=rng)


def seen(ids, reveal=(), seed=0):
    net = model(seed)
    return gl.observe(net, ids, torch.arange(len(ids)) % 2, loss=net.loss, reveal=reveal)


def random_tree(seed):
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=rng).double()
        for name, shape in (("a", (3, 4)), ("b", (4,)), ("c", (2,)))
    }


def test_words_are_read_and_proven():
    ids = words()
    found = text.dlg_text()(seen(ids), rng=0)
    assert found.outcome is gl.Outcome.CONVERGED
    assert found.certified
    assert found.tokens.tolist() == ids.tolist()
    assert found.y.tolist() == [0]
    assert found.score < 1e-6
    assert "words [1, 5] certified" in repr(found)
    assert [s.tolist() for s in found.sentences] == ids.tolist()


def test_a_learnt_label_is_kept_from_round_to_round():
    ids = words(4, seed=2)
    found = text.dlg_text(labels=gl.labels.joint(), evaluations=60)(seen(ids, seed=2), rng=0)
    assert found.certified
    assert found.y.tolist() == [0]
    assert found.tokens.tolist() == ids.tolist()


def test_the_squared_error_of_all_tensors_does_not_read_what_that_of_each_tensor_does():
    """The words as they come from the descent, with nothing exchanged."""
    ids, plain = words(8, seed=2), {"rounds": 1, "polish": 0, "evaluations": 100}
    obs = seen(ids, ("labels",), seed=2)
    by_tensor = text.dlg_text(**plain)(obs, rng=0)
    at_once = text.dlg_text(objective=SquaredError(), **plain)(obs, rng=0)
    right = [float((found.tokens == ids).double().mean()) for found in (by_tensor, at_once)]
    assert right[0] >= 0.75
    assert right[1] <= 0.5
    assert at_once.score > by_tensor.score


def test_what_is_known_is_not_searched_and_padding_is_padding():
    ids = words(6, texts=1, seed=3)
    ids[0, 4:] = PAD
    given = torch.where(ids == PAD, PAD, -1)
    given[0, 0] = ids[0, 0]
    found = text.dlg_text(given=given)(seen(ids, ("labels",), seed=3), rng=0)
    assert found.certified
    assert found.tokens.tolist() == ids.tolist()


def masked(ids, places):
    """The words at these places as labels, and 3 in their stead."""
    y = torch.full_like(ids, -100)
    for at in places:
        y[at], ids[at] = ids[at].clone(), 3
    return y


def decoder(seed=0):
    torch.manual_seed(seed)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
    config = transformers.GPT2Config(vocab_size=WORDS, bos_token_id=1, eos_token_id=2, **shape)
    return text.wrap(transformers.GPT2LMHeadModel(config).eval(), "causal", pad=PAD)


def test_places_of_masked_words_must_be_told():
    net, ids = model(4, "BertForMaskedLM", "masked"), words(5, seed=4)
    y = masked(ids, [(0, 2)])
    blind = text.dlg_text()(gl.observe(net, ids, y, loss=net.loss), rng=0)
    assert blind.outcome is gl.Outcome.NOT_APPLICABLE
    assert "masked=..." in blind.reason
    found = text.dlg_text()(gl.observe(net, ids, y, loss=net.loss, reveal=("labels",)), rng=0)
    assert found.certified
    assert found.tokens.tolist() == ids.tolist()


@pytest.mark.parametrize("trials", [1, 2])
def test_masked_words_are_learnt_where_their_places_are_told(trials):
    """Of two trials, in one sweep."""
    net, ids = model(6, "BertForMaskedLM", "masked"), words(4, texts=2, seed=6)
    y = masked(ids, [(0, 1), (1, 0)])
    obs = gl.observe(net, ids, y, loss=net.loss)
    found = text.dlg_text(masked=y >= 0, trials=trials)(obs, rng=0)
    assert found.certified
    assert found.client is None
    assert sorted(zip(found.tokens.tolist(), found.y.tolist(), strict=True)) == sorted(
        zip(ids.tolist(), y.tolist(), strict=True)
    )


def test_masked_words_that_the_update_does_not_show_are_not_guessed():
    net, ids = model(4, "BertForMaskedLM", "masked"), words(4, seed=4)
    y = masked(ids, [(0, 1)])
    for name, leaf in net.named_parameters():
        leaf.requires_grad_("bias" not in name)
    found = text.dlg_text(masked=y >= 0)(gl.observe(net, ids, y, loss=net.loss), rng=0)
    assert found.outcome is gl.Outcome.NOT_APPLICABLE
    assert "bias" in found.reason


@pytest.mark.parametrize("trials", [1, 2])
def test_a_decoders_labels_follow_the_text(trials):
    net, ids = decoder(), words(6, seed=8)
    obs = gl.observe(net, ids, text.words_as_labels(ids, PAD), loss=net.loss)
    found = text.dlg_text(trials=trials)(obs, rng=0)
    assert found.certified
    assert found.tokens.tolist() == found.y.tolist() == ids.tolist()


def test_padding_of_a_decoder_is_no_label():
    net, ids = decoder(1), words(5, texts=2, seed=9)
    ids[1, 3:] = PAD
    obs = gl.observe(net, ids, text.words_as_labels(ids, PAD), loss=net.loss)
    found = text.dlg_text(given=torch.where(ids == PAD, PAD, -1))(obs, rng=0)
    assert found.certified
    assert found.tokens.tolist() == ids.tolist()
    assert found.y.tolist() == text.words_as_labels(ids, PAD).tolist()


def test_a_decoders_labels_that_were_revealed_are_the_text():
    net, ids = decoder(), words(6, seed=8)
    obs = gl.observe(net, ids, text.words_as_labels(ids, PAD), loss=net.loss, reveal=("labels",))
    found = text.dlg_text(evaluations=1, rounds=1, polish=0)(obs, rng=0)
    assert found.certified
    assert found.tokens.tolist() == ids.tolist()


def test_soft_labels_against_a_slow_twin():
    table = torch.randn(30, 8, dtype=torch.float64)
    x = torch.stack((table[4], torch.randn(8, dtype=torch.float64), table[PAD]))[None]
    soft = TextItself(table, PAD).soft(x)[0]
    sharp = math.log(30 * 9)  # of 30 words that are alike in nothing, a word's own takes nine parts in ten
    for row, point in zip(soft[:2], x[0, :2], strict=True):
        likeness = [float(cosine_similarity(point, word, dim=0)) for word in table]
        weights = [math.exp(sharp * one) for one in likeness[1:]]
        assert row[0] == 0
        assert row[1:].tolist() == pytest.approx([one / sum(weights) for one in weights])
    assert not soft[2].any()
    logits = torch.randn(1, 3, 30, dtype=torch.float64)
    hard = torch.nn.functional.one_hot(torch.tensor([[7, 9, 2]]), 30).double()
    assert float(next_soft(logits, hard)) == pytest.approx(
        float(text.next_words(logits, torch.tensor([[7, 9, 2]])))
    )


def test_masked_places_must_fit():
    net, ids = model(4, "BertForMaskedLM", "masked"), words(5, seed=4)
    obs = gl.observe(net, ids, masked(ids, [(0, 2)]), loss=net.loss)
    for wrong in (torch.ones(1, 4).bool(), torch.zeros(1, 5).bool(), torch.ones(1, 5)):
        with pytest.raises(InvalidInput, match="masked as True"):
            text.dlg_text(masked=wrong)(obs, rng=0)


def test_noise_is_never_a_proof():
    obs = seen(words(), ("labels",))
    rng = torch.Generator().manual_seed(0)
    blurred = {
        name: leaf + 0.05 * leaf.square().mean().sqrt() * torch.randn(leaf.shape, generator=rng)
        for name, leaf in obs.update.items()
    }
    found = text.dlg_text(rounds=1, evaluations=40, polish=20)(
        dataclasses.replace(obs, update=blurred), rng=0
    )
    assert not found.certified
    assert found.outcome is gl.Outcome.BUDGET
    assert found.score > 1e-4


def test_other_models_and_local_training_are_not_attacked():
    picture = gl.observe(gl.zoo.lenet(seed=0), torch.rand(1, 3, 32, 32), torch.tensor([3]))
    assert "gradleak.text.wrap" in text.dlg_text()(picture, rng=0).reason
    net = model()
    client = gl.LocalSGD(epochs=2, batch_size=1, lr=0.1)
    obs = gl.observe(net, words(), torch.tensor([0]), loss=net.loss, client=client)
    assert "2 steps" in text.dlg_text()(obs, rng=0).reason


def test_given_words_must_fit():
    with pytest.raises(InvalidInput, match=r"\[1, 5\]"):
        text.dlg_text(given=torch.zeros(1, 4).long())(seen(words()), rng=0)
    with pytest.raises(InvalidInput, match="rounds"):
        text.dlg_text(rounds=0)


def test_one_seed_is_one_answer():
    obs = seen(words(7), ("labels",))
    attack = text.dlg_text(rounds=1, evaluations=20, polish=30)
    one, two = (attack(obs, rng=5) for _ in range(2))
    assert one.tokens.tolist() == two.tokens.tolist()
    assert one.score == two.score


@pytest.mark.parametrize(
    "attack",
    [text.tag(steps=200, polish=100), text.lamp(steps=60, every=20, tried=5, polish=50)],
    ids=["tag", "lamp"],
)
def test_adam_comes_near(attack):
    ids = words(5, seed=6)
    found = attack(seen(ids, ("labels",), seed=6), rng=0)
    assert found.cost.matching_gradients <= attack.budget
    assert float((found.tokens == ids).double().mean()) >= 0.6


def test_citations_lead_to_the_bibliography():
    for attack, key in (
        (text.dlg_text(), "zhu2019"),
        (text.tag(), "deng2021"),
        (text.lamp(), "balunovic2022"),
    ):
        assert key in gl.cite(attack)


def test_tag_against_a_slow_twin():
    mine, true = random_tree(0), random_tree(1)

    def slow(tree):
        layers = list(tree.values())
        return sum(
            sum(float(v) ** 2 for v in leaf.flatten())
            + 0.3 * (1 - i / 3) * sum(abs(float(v)) for v in leaf.flatten())
            for i, leaf in enumerate(layers)
        )

    expected = slow({name: mine[name] - true[name] for name in true}) / slow(true)
    assert float(SquaredAndAbsolute(0.3)(mine, true)) == pytest.approx(expected)
    zeros = {name: torch.zeros_like(leaf) for name, leaf in true.items()}
    assert float(SquaredAndAbsolute(0.3)(zeros, true)) == pytest.approx(1)


def test_lamps_cosine_is_the_mean_over_the_tensors():
    mine, true = random_tree(0), random_tree(1)
    each = [1 - cosine_similarity(mine[n].flatten(), true[n].flatten(), dim=0) for n in true]
    assert float(CosineByTensor()(mine, true)) == pytest.approx(float(sum(each)) / 3)
    longer = {name: (i + 2) * leaf for i, (name, leaf) in enumerate(true.items())}
    assert float(CosineByTensor()(longer, true)) == pytest.approx(0, abs=1e-12)


def test_the_norm_of_embeddings_is_that_of_words_without_padding():
    obs = seen(words())
    table = obs.params[obs.model.table]
    x = table[torch.tensor([[5, 9, PAD]])].clone()
    expected = (table[[5, 9]].norm(dim=1).mean() / table.norm(dim=1).mean() - 1).square()
    candidate = Candidate(x, torch.tensor([0]), Domain(), torch.tensor(0.0), obs.task, obs.params)
    assert float(EmbeddingNorm(3.0)(candidate)) == pytest.approx(3 * float(expected), rel=1e-4)


def test_a_start_has_the_spread_of_the_table_and_the_words_that_are_known():
    table = torch.randn(50, 16) * 0.3
    given = torch.tensor([[7, -1, -1, -1]])
    start = Start(table, None, given)((1, 4, 16), torch.Generator().manual_seed(0))
    assert torch.equal(start[0, 0], table[7].double())
    many = Start(table)((1, 400, 16), torch.Generator().manual_seed(0))
    assert float(many.std()) == pytest.approx(float(table.std()), rel=0.05)


def asked_of(optimizer, start, value):
    """All points that a descent asks for, where ``value`` is the objective and nothing pulls."""
    rng = torch.Generator().manual_seed(0)
    descent = optimizer.descend(start.flatten(), Space(start.numel(), None, (1, *start.shape)), rng)
    points = [next(descent)]
    while True:
        try:
            points.append(
                descent.send((value(points[-1].reshape(start.shape)), torch.zeros_like(points[-1])))
            )
        except StopIteration as ended:
            return [point.reshape(start.shape) for point in points], ended.value


def test_reordering_puts_the_words_into_the_order_that_is_best():
    table = torch.eye(6).double()
    free = torch.tensor([[False, True, True, True, True, True]])
    optimizer = Reordering(40, every=1, tried=15, table=table, free=free)
    start = table[[0, 3, 2, 1, 5, 4]]
    points, outcome = asked_of(optimizer, start, lambda x: float((x != table).any(1).sum()))
    assert outcome is gl.Outcome.BUDGET
    assert len(points) == optimizer.evaluations
    assert all(torch.equal(point[0], table[0]) for point in points)  # what is known stays where it is
    assert all(sorted(point.argmax(1).tolist()) == list(range(6)) for point in points)
    assert any(torch.equal(point, table) for point in points)
    assert torch.equal(points[-16], table)  # where the last run ended, before other orders were tried


def test_fluency_chooses_where_the_update_does_not():
    table = torch.eye(4).double()
    language = text.bigrams([torch.tensor([0, 1, 2, 3])] * 20, vocabulary=4)
    optimizer = Reordering(20, every=1, tried=20, table=table, fluency=language)
    points, _ = asked_of(optimizer, table[[2, 0, 3, 1]], lambda x: 1.0)
    assert points[-21].argmax(1).tolist() == [0, 1, 2, 3]


def test_bigrams_against_counting_by_hand():
    language = text.bigrams([torch.tensor([0, 1, 0, 2]), torch.tensor([1, 2])], vocabulary=4, trust=0.5)
    after, chance = 1 / 2, (2 + 1) / (6 + 4)  # 1 of two 0s is followed by 1; of six words, two are 1
    assert float(language(torch.tensor([[0, 1]]))) == pytest.approx(
        -torch.tensor((after + chance) / 2).log().item()
    )
    unseen = 0.5 * (0 + 1) / (6 + 4)
    assert float(language(torch.tensor([[3, 3]]))) == pytest.approx(-torch.tensor(unseen).log().item())


def test_a_causal_model_says_its_own_loss():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=2
    )
    net = text.wrap(transformers.GPT2LMHeadModel(config).eval(), "causal")
    tokens = torch.randint(0, 50, (3, 6))
    each = [text.next_words(net(row[None]), row[None]).item() for row in tokens]
    assert text.Causal(net)(tokens).tolist() == pytest.approx(each, rel=1e-5)


def test_a_batch_is_read_with_its_labels():
    ids = words(3, texts=2, seed=7)
    found = text.dlg_text()(seen(ids, seed=7), rng=0)
    assert found.certified
    assert sorted(found.tokens.tolist()) == sorted(ids.tolist())
    assert sorted(found.y.tolist()) == [0, 1]
