import pytest
import torch
from text_models import PAD, bert, gpt2, texts
from torch import Tensor

import gradleak as gl
from gradleak import text
from gradleak.observe.layers import trace
from gradleak.text.architecture import Anatomy, anatomy
from gradleak.text.span import Span, span
from gradleak.text.table import Table


def _first(obs: gl.Observation) -> tuple[Anatomy, Table, Span]:
    parts = anatomy(obs)
    found = span(parts.sent[0].blocks, obs.like.dtype, parts.rounding(obs.like.dtype)[0])
    assert isinstance(found, Span)
    return parts, Table.of(parts.words, parts.positions[: obs.x_shape[1]], parts.first), found


def _true_pairs(ids: Tensor) -> Tensor:
    row, place = (ids != PAD).nonzero().T
    return torch.stack((ids[row, place], place), 1).unique(dim=0)


def _observed(ids: Tensor, noise: float = 0.0, double: bool = False) -> gl.Observation:
    model = bert()
    obs = gl.observe(model.double() if double else model, ids, torch.arange(len(ids)) % 2)
    rng = torch.Generator().manual_seed(0)
    blurred = {
        n: u
        + noise * u.square().mean().sqrt() * torch.randn(u.shape, generator=rng, dtype=torch.float64).to(u)
        for n, u in obs.update.items()
    }
    return gl.Observation(**{**obs.__dict__, "update": blurred})


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_the_table_is_every_vector_tested_on_its_own(noise: float):
    obs = _observed(texts((6, 7), 300), noise)
    _, table, found = _first(obs)
    words = torch.arange(300)
    slow = torch.stack([found.test(table.read(words, torch.full((300,), p))) for p in range(7)], 1)
    fast = table.ratios(found)
    far = slow > 1e4
    assert far.double().mean() > 0.9
    assert torch.allclose(fast[far], slow[far], rtol=1e-3)
    bound = found.bound(1e-4)
    assert set(map(tuple, table.passing(found, bound).tolist())) == set(
        map(tuple, (slow <= bound).nonzero().tolist())
    )


@pytest.mark.parametrize("seed", range(6))
def test_rank_and_passing_pairs_are_those_of_the_graph(seed: int):
    rng = torch.Generator().manual_seed(seed)
    lengths = tuple(torch.randint(4, 11, (4,), generator=rng).tolist())
    ids = texts(lengths, 300, seed, common=2 + seed)
    _, table, found = _first(_observed(ids, double=True))
    graph = text.aliases(_true_pairs(ids))
    assert found.rank == graph.rank
    assert len(table.passing(found, found.bound(1e-4))) == graph.passing


def test_a_forest_has_no_alias_and_a_cycle_joins_all():
    path = torch.tensor([[5, 0], [5, 1], [6, 1]])
    assert (text.aliases(path).rank, text.aliases(path).passing) == (3, 3)
    cycle = torch.tensor([[5, 0], [5, 1], [6, 1], [6, 0], [7, 1], [8, 2]])
    graph = text.aliases(cycle)
    assert (graph.components, graph.rank, graph.passing) == (2, 6, 3 * 2 + 1)  # a full rank is no warning


def test_the_ratio_of_words_that_were_read_is_one_under_noise():
    ratios = []
    for seed in range(8):
        ids = texts((7,), 300, seed)
        _, table, found = _first(_observed(ids, 1e-3))
        assert found.noisy
        assert found.rank == 7
        ratios.append(found.test(table.read(*_true_pairs(ids).T)))
    assert 0.9 < float(torch.cat(ratios).mean()) < 1.1


def test_noise_is_measured_layer_by_layer():
    rng = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    ratios = []
    for _ in range(20):
        read = random(3, 40)
        blurred = [random(200, 3) @ read + noise * random(200, 40) for noise in (1e-3, 1e-1)]
        found = span(blurred, torch.float64, 1e-16)
        assert isinstance(found, Span)
        assert (found.rank, found.noisy) == (3, True)
        assert found.sigma == pytest.approx(1, rel=0.05)
        ratios.append(found.test(random(50, 3) @ read).mean())
    assert 0.9 < float(torch.stack(ratios).mean()) < 1.1


def test_a_gradient_that_fills_its_dimensions_is_not_taken_for_noise():
    rng = torch.Generator().manual_seed(0)
    full = torch.randn(200, 40, generator=rng).double() * torch.logspace(0, -4, 40)
    assert "fills all of its 40 dimensions" in span([full], torch.float32, 1e-7)
    assert "no" in span([torch.zeros(20, 4)], torch.float32, 1e-7)


@pytest.mark.parametrize("make", [bert, gpt2])
def test_the_block_is_transformers_own(make):
    model = make().double()
    ids = texts((9, 9), 300)
    y = torch.tensor([0, 1]) if model.task == "classification" else text.words_as_labels(ids, PAD)
    obs = gl.observe(model, ids, y, loss=model.loss)
    parts = anatomy(obs)
    path = "network.bert.encoder.layer.0" if make is bert else "network.transformer.h.0"
    calls = trace(obs.task, obs.params, ids)
    expected = next(call.output for call in calls if call.path == path)
    heard = parts.hear(ids, torch.arange(9).expand(2, -1))
    assert torch.allclose(parts.block.whole(heard, parts.causal), expected, atol=1e-12)
    one = parts.hear(torch.tensor([50, 60]), torch.tensor([4, 8]))
    if parts.causal:
        grown = parts.block.continued(
            heard.key[:, :8], heard.value[:, :8], parts.hear(ids[:, 8], torch.tensor([8, 8]))
        )
        assert torch.allclose(grown[[0, 1], [0, 1]], expected[:, 8], atol=1e-12)
        return
    swapped = parts.block.exchanged(heard[0], one, torch.tensor([4, 8]))
    for row, (place, word) in enumerate([(4, 50), (8, 60)]):
        other = ids[0].clone()
        other[place] = word
        whole = parts.block.whole(parts.hear(other, torch.arange(9)))
        assert torch.allclose(swapped[row], whole[place], atol=1e-12)
