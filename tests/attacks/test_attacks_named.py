import dataclasses

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks import ATTACKS
from gradleak.attacks.matching import (
    Adam,
    Agreement,
    Consensus,
    Cosine,
    Energy,
    Gaussian,
    LayerNorms,
    SameClass,
    Statistics,
    TotalVariation,
)
from gradleak.errors import InvalidInput

MATCHING = ("dlg", "idlg", "inverting_gradients")
FACES, _ = gl.zoo.pictures("faces", size=8, n=12, channels=1)


def sigmoid_net(seed=0, dtype=torch.float64):
    return gl.zoo.mlp(sizes=(64, 48), classes=6, activation="sigmoid", seed=seed).to(dtype)


def seen(i=0, b=1, reveal=(), dtype=torch.float64):
    x = FACES[i : i + b].to(dtype)
    y = torch.tensor([(3 * i + 2 * k) % 6 for k in range(b)])
    return x, y, gl.observe(sigmoid_net(i, dtype), x, y, reveal=reveal)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["dlg", "idlg"])
def test_dlg_and_idlg_recover_a_face_and_its_label_exactly(name, dtype):
    for i in range(4):
        x, y, obs = seen(i, dtype=dtype)
        found = ATTACKS[name](evaluations=1500)(obs, rng=i)
        assert found.outcome is gl.Outcome.CONVERGED
        assert found.y.tolist() == y.tolist()
        assert float(gl.metrics.psnr(found.x, x)) > 45
        assert found.x.dtype is dtype


def test_dlg_recovers_a_batch_of_two_up_to_its_order():
    x, y, obs = seen(0, b=2)
    found = gl.attacks.dlg(evaluations=3000, trials=3)(obs, rng=0)
    order = gl.metrics.pair(found.x, x)
    assert float(gl.metrics.psnr(found.x[order], x).min()) > 40
    assert found.y[order].tolist() == y.tolist()


def test_inverting_gradients_finds_the_picture_where_only_the_direction_is_known():
    x, _, obs = seen(1, reveal=("labels",))
    shrunk = dataclasses.replace(obs, update={n: 1e-3 * u for n, u in obs.update.items()})
    by_direction = gl.attacks.inverting_gradients(steps=600, tv=1e-4)(shrunk, rng=0)
    by_size = gl.attacks.idlg(evaluations=600)(shrunk, rng=0)  # soft labels could shrink it too
    null = float(gl.metrics.psnr(gl.metrics.mean_picture(FACES[6:].double(), x.shape), x))
    assert float(gl.metrics.psnr(by_direction.x, x)) > null + 6
    assert by_size.outcome is not gl.Outcome.CONVERGED


def test_published_settings_can_be_asked_for():
    published = gl.attacks.inverting_gradients(tv=0.1, init="gaussian", steps=4800)
    assert published.optimizer == Adam(4800, lr=0.1, sign=True, drops=(3 / 8, 5 / 8, 7 / 8))
    assert published.priors == (TotalVariation(0.1),)
    assert (published.objective, published.init, published.box) == (Cosine(), Gaussian(0.0, 1.0), True)
    assert gl.attacks.dlg(init="gaussian").init == Gaussian(0.0, 1.0)


def test_neighbours_differ():
    _, _, obs = seen(0)
    few = {"dlg": {"evaluations": 9}, "idlg": {"evaluations": 9}, "inverting_gradients": {"steps": 9}}
    found = [ATTACKS[name](**few[name])(obs, rng=0).x for name in MATCHING]
    found += [
        gl.attacks.inverting_gradients(steps=9, **changed)(obs, rng=0).x
        for changed in ({"tv": 0.0}, {"sign": False}, {"lr": 0.03}, {"init": "uniform"})
    ]
    for i, a in enumerate(found):
        assert all(not torch.allclose(a, b, atol=1e-4) for b in found[:i])


@pytest.mark.parametrize("name", MATCHING)
def test_an_update_that_came_from_elsewhere_is_not_explained(name):
    # Other parameters than the client's: there is nothing to find, and the attack must not claim it.
    _, _, obs = seen(0)
    stranger = sigmoid_net(99)
    wrong = dataclasses.replace(obs, params=dict(stranger.named_parameters()) | {})
    wrong = dataclasses.replace(wrong, params={n: p.detach() for n, p in wrong.params.items()})
    found = ATTACKS[name](**({"steps": 300} if name == "inverting_gradients" else {"evaluations": 300}))(
        wrong, rng=0
    )
    assert found.outcome is not gl.Outcome.CONVERGED
    assert found.score > 1e-3


def test_a_picture_that_reaches_no_weight_cannot_come_back():
    # Half of the pixels meet zero weights: their gradient still shows them, so freeze that layer away.
    model = sigmoid_net(0)
    first = next(module for module in model.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        first.weight[:, :32] = 0
    first.weight.requires_grad_(False)
    x, y = FACES[:1].double(), torch.tensor([1])
    found = gl.attacks.dlg(evaluations=800, trials=2)(gl.observe(model, x, y), rng=0)
    upper = found.x.flatten()[:32] - x.flatten()[:32]
    assert float(upper.abs().mean()) > 0.05


def test_every_attack_cites_its_paper_and_its_parts():
    text = gl.cite(gl.attacks.dlg())
    assert "Deep Leakage from Gradients" in text
    assert "Quasi-{N}ewton" in text
    assert text.count("@") == 2
    assert "Geiping" in gl.cite(gl.attacks.inverting_gradients())
    assert gl.cite(gl.attacks.idlg()).index("Zhao") < gl.cite(gl.attacks.idlg()).index("Zhu")


def test_the_weight_of_total_variation_is_one_number_or_two():
    make = gl.attacks.inverting_gradients
    assert make(tv=[0.1, 0.01]).priors == make(tv=(0.1, 0.01)).priors == (TotalVariation(0.1, 0.01),)
    assert make(tv=0).priors == ()
    for tv in ((0.0, 0.1), (0.1, 0.0), (0.1, 0.1, 0.1), (), -1.0, float("nan"), "a"):
        with pytest.raises(InvalidInput, match=r"expected (tv as one|a) weight"):
            make(tv=tv)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_of_16_bits_is_attacked_in_float64(dtype):
    _, _, obs = seen(0, dtype=dtype)
    plain, double = (gl.attacks.inverting_gradients(steps=60, double=d)(obs, rng=0) for d in (False, True))
    assert torch.equal(plain.x, double.x)
    assert plain.x.dtype is dtype
    assert plain.score == double.score > 1e-4


def spots(b=4, **changes):
    """Photographs in one gradient of a small ReLU network, with known labels."""
    x = gl.zoo.pictures("photos", size=16, n=b)[0]
    y = torch.arange(b)
    return x, y, gl.observe(gl.zoo.convnet(classes=6, size=16, width=24, seed=0), x, y, **changes)


def decibels(found, x):
    return gl.metrics.psnr(found.x[gl.metrics.pair(found.x, x)], x)


@pytest.mark.parametrize("reveal", [("labels",), ()], ids=["known labels", "labels of the head"])
def test_inverting_batches_recovers_every_picture_under_its_own_label(reveal):
    x, y, obs = spots(reveal=reveal)
    found = gl.attacks.inverting_batches(evaluations=120)(obs, rng=0)
    null = gl.metrics.psnr(gl.metrics.mean_picture(None, x.shape), x)
    assert float((decibels(found, x) - null).min()) > 12
    assert found.outcome is not gl.Outcome.CONVERGED  # it never claims more than the mismatch says
    assert found.score > 1e-9
    order = gl.metrics.pair(found.x, x)
    assert found.y[order].tolist() == y.tolist()


def test_the_closed_form_is_what_makes_inverting_batches_better():
    x, _, obs = spots(reveal=("labels",))
    whole, features, none = (
        float(decibels(gl.attacks.inverting_batches(evaluations=120, **changed)(obs, rng=0), x).mean())
        for changed in ({}, {"rows": 0.0}, {"features": 0.0})
    )
    assert whole > none + 5
    assert features > none + 3
    assert gl.attacks.inverting_batches(features=0.0, box=0.0).priors == ()


def test_inverting_batches_needs_a_head_that_can_be_solved():
    _, _, obs = spots(b=6, reveal=("labels",))
    found = gl.attacks.inverting_batches()(obs)
    assert found.outcome is gl.Outcome.NOT_APPLICABLE
    assert "5 records" in found.reason


def test_gradinversion_is_made_of_its_papers_parts_and_each_can_be_left_out():
    whole = gl.attacks.gradinversion(registered=True, tv=0.1, bn=0.2, l2=0.3, group=0.4, statistics="sent")
    assert whole.objective == LayerNorms()
    assert whole.priors == (TotalVariation(0.1), Energy(0.3), Statistics(0.2, "sent"))
    assert whole.consensus == Consensus(0.4, registered=True)
    assert whole.optimizer == Adam(1000, lr=0.1, schedule="cosine", warmup=2, noise=0.05)
    bare = gl.attacks.gradinversion(tv=0.0, bn=0.0, l2=0.0, group=0.0)
    assert (bare.priors, bare.consensus) == ((), None)
    assert gl.attacks.gradinversion(steps=1).optimizer.warmup == 0


def test_gradinversion_finds_a_batch_that_shows_its_statistics():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(768, 6))
        model = nn.Sequential(*layers).train()
    x, y = gl.zoo.pictures("photos", size=16, n=2)[0], torch.arange(2)
    obs = gl.observe(model, x, y, reveal=("labels", "statistics"))
    assert obs.statistics is not None
    found = gl.attacks.gradinversion(steps=200, trials=3)(obs, rng=0)
    null = gl.metrics.psnr(gl.metrics.mean_picture(None, x.shape), x)
    assert float((decibels(found, x) - null).min()) > 3
    assert found.cost.matching_gradients == 3 * 201
    insisting = gl.attacks.gradinversion(steps=2, statistics="sent")
    refused = insisting(dataclasses.replace(obs, statistics=None), rng=0)
    assert refused.outcome is gl.Outcome.NOT_APPLICABLE


def test_the_published_labels_of_gradinversion_can_be_asked_for():
    _, y, obs = spots()
    found = gl.attacks.gradinversion(steps=2, labels=gl.labels.row_minimum())(obs, rng=0)
    assert sorted(found.y.tolist()) == y.tolist()


@pytest.mark.parametrize("init", ["patterned", "dark", "bright", "same class"])
def test_cpl_recovers_a_face_from_each_of_its_starts(init):
    x, y, obs = seen(2)
    if init == "same class":
        init = SameClass(FACES[6:].double(), torch.arange(6))
    found = gl.attacks.cpl(evaluations=1500, init=init)(obs, rng=0)
    assert found.outcome is gl.Outcome.CONVERGED
    assert found.y.tolist() == y.tolist()
    assert float(gl.metrics.psnr(found.x, x)) > 45


def test_cpl_without_its_label_term_is_plain_matching_and_with_it_another():
    _, _, obs = seen(2)
    plain, weighted = (gl.attacks.cpl(evaluations=60, alpha=alpha) for alpha in (0.0, 0.1))
    as_dlg = gl.attacks.dlg(evaluations=60, init="patterned", labels=gl.labels.inferred())
    assert torch.equal(plain(obs, rng=0).x, as_dlg(obs, rng=0).x)
    assert weighted.priors == (Agreement(0.1),)
    assert not torch.allclose(plain(obs, rng=0).x, weighted(obs, rng=0).x, atol=1e-4)
    assert weighted(obs, rng=0).outcome is not gl.Outcome.CONVERGED
