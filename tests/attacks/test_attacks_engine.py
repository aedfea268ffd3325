"""What the one loop does beyond pictures and labels: open clients, consensus, evidence, generators."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import gradleak as gl
from gradleak.attacks import matching as m
from gradleak.attacks.matching.alignment import aligned, order_like
from gradleak.attacks.matching.layout import Layout, Parts, pack
from gradleak.attacks.matching.problem import Problem
from gradleak.errors import InvalidInput
from gradleak.labels import Unanswerable
from gradleak.trees import scale


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Sigmoid(), nn.Linear(16, 5)).double()


def record(seed=0, b=1, **more):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(b, 3, 2, 2, generator=rng, dtype=torch.float64)
    return gl.observe(net(seed), x, torch.arange(b) % 5, reveal=("labels",), **more)


def adam(steps=40, **changes):
    noise = changes.pop("noise", 0.0)
    parts = {"labels": gl.labels.known(), "tolerance": 0.0, "init": m.Uniform(), "evaluations": steps + 1}
    return m.Matching("test", optimizer=m.Adam(steps, noise=noise), **(parts | changes))


# --- a point's layout


def test_a_point_is_unpacked_by_the_names_of_its_parts():
    layout = Layout((2, 3, 2, 2), classes=5, unknowns=4)
    parts = Parts(torch.rand(2, 3, 2, 2), torch.rand(2, 5), torch.rand(4))
    again = layout.unpack(pack(parts))
    assert layout.width == 24 + 10 + 4
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    assert Layout((2, 3, 2, 2)).unpack(torch.rand(24))[1:] == (None, None)


def test_the_box_clamps_the_pictures_and_nothing_else():
    obs = record(b=2, assumed=None)
    obs = replace(obs, client=Scaled())
    problem = Problem([obs], (0,), None, m.SquaredError())
    point = torch.full((problem.layout.width,), 7.0, dtype=torch.float64)
    inside = problem.layout.unpack(problem.clamp(point))
    assert float(inside.x.max()) == 1
    assert set(inside.logits.flatten().tolist()) == set(inside.unknowns.tolist()) == {7.0}


# --- open clients


@dataclass(frozen=True)
class Times:
    """A client that scales its gradient by a number of its own."""

    factor: torch.Tensor

    def __call__(self, task, params, x, y):
        return scale(task.gradient(params, x, y), self.factor)


@dataclass(frozen=True)
class Scaled:
    """That factor is not known: it is learnt, in its logarithm. ``relaxed`` is wrong until the end."""

    relaxed: bool = False
    charge: float = 0.0

    def start(self, batch_size, rng):
        return torch.zeros(1, dtype=torch.float64)

    def settled(self, unknowns, progress):
        factor = unknowns.exp().squeeze(0)
        if self.relaxed:
            factor = 3.0 + torch.where(progress < 1, 0.0, 1.0) + 0 * factor
        return Times(factor), self.charge * unknowns.square().sum()


def scaled_record(factor=3.0, client=None, seed=0):
    obs = record(seed)
    return replace(obs, update=scale(obs.update, factor), client=client or Scaled())


def test_what_is_not_known_of_a_client_is_learnt_with_the_pictures():
    obs = scaled_record()
    attack = m.Matching("test", labels=gl.labels.known(), init=m.Uniform(), tolerance=1e-10, evaluations=400)
    found = attack(obs, rng=0)
    assert found.outcome is gl.Outcome.CONVERGED
    assert float(found.client.factor) == pytest.approx(3.0, rel=1e-3)
    again = m.SquaredError()(found.client(obs.task, obs.params, found.x, found.y), obs.update)
    assert float(again) == pytest.approx(found.score, rel=1e-6)
    assert found.score <= 1e-10
    blind = attack(replace(obs, client=gl.OneGradient()), rng=0)
    assert blind.score > 1e-3
    assert blind.client is None


def test_a_relaxed_client_has_not_converged_before_it_has_settled():
    # On the way it is exactly the one that sent the update; at the end another.
    attack = adam(steps=30, init=m.Given(truth(0)), tolerance=1e-6)
    found = attack(scaled_record(client=Scaled(relaxed=True)), rng=0)
    assert found.outcome is gl.Outcome.BUDGET
    assert found.score == pytest.approx((4 / 3 - 1) ** 2, rel=1e-2)


def truth(seed):
    return torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_penalty_of_an_open_client_counts_for_the_value_and_not_for_the_mismatch():
    free, charged = (Scaled(charge=c) for c in (0.0, 2.0))
    values = []
    for client in (free, charged):
        problem = Problem([scaled_record(client=client)], (0,), torch.zeros(1, 1).long(), m.SquaredError())
        point = torch.cat((truth(0).flatten(), torch.tensor([0.5])))[None]
        values.append(problem.evaluate(point, [0], torch.zeros(1)))
    (free_value, free_mismatch, _), (value, mismatch, _) = values
    assert float(value - free_value) == pytest.approx(2.0 * 0.25)
    assert float(mismatch) == float(free_mismatch)


def test_open_clients_and_learnt_labels_run_in_one_sweep_as_they_do_in_turn(monkeypatch):
    obs = scaled_record()
    chosen = adam(steps=15, trials=3, labels=gl.labels.joint())
    swept = chosen(obs, rng=0)
    with monkeypatch.context() as patched:
        patched.setattr(Problem, "vectorises", False)
        turned = chosen(obs, rng=0)
    torch.testing.assert_close(swept.x, turned.x, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(swept.client.factor, turned.client.factor, rtol=1e-6, atol=1e-9)
    kinds = [
        Problem([replace(obs, client=client)], (0, 0), None, m.SquaredError()).vectorises
        for client in (Scaled(), gl.LocalSGD(4, 8, 0.1), gl.LocalSGD(5, 8, 0.1))
    ]
    assert kinds == [True, True, False]  # many local steps fill the memory, and are replayed in turn


# --- the trial's generator


def test_noise_comes_from_the_trials_own_generator_and_none_changes_nothing():
    obs = record()
    quiet, still, noisy, again = (adam(noise=n)(obs, rng=0).x for n in (0.0, 0, 0.3, 0.3))
    assert torch.equal(quiet, still)
    assert torch.equal(noisy, again)
    assert not torch.allclose(quiet, noisy, atol=1e-3)


# --- consensus


def pictures(n=1, side=16, seed=0):
    rng = torch.Generator().manual_seed(seed)
    small = torch.rand(n, 3, 4, 4, generator=rng, dtype=torch.float64)
    return nn.functional.interpolate(small, side, mode="bicubic").clamp(0, 1)


def test_batches_are_brought_into_one_order_within_their_labels():
    x = pictures(5)
    y = torch.tensor([0, 1, 1, 2, 2])
    mixed = torch.tensor([0, 2, 1, 4, 3])
    assert order_like(x[mixed], y, x, y).tolist() == mixed.tolist()
    # a picture that would fit better under another label stays under its own
    other = torch.tensor([1, 0, 2, 3, 4])
    assert order_like(x[other], y, x, y)[0] == 0
    # where the labels differ, pairs of equal labels come first
    assert order_like(x[other], y[other], x, y).tolist() == [1, 0, 2, 3, 4]


def test_phase_correlation_undoes_a_shift_of_whole_pixels():
    x = pictures(2)
    moved = torch.stack([x[0].roll((2, -3), (-2, -1)), x[1].roll((-1, 4), (-2, -1))])
    torch.testing.assert_close(aligned(moved, x), x)
    assert torch.equal(aligned(x, x), x)
    far = x.roll(7, -1)  # nearly half of the picture is no registration
    assert not torch.allclose(aligned(far, x), x)


def test_the_consensus_is_the_mean_in_every_trials_own_order():
    x, y = pictures(3), torch.tensor([1, 1, 2])
    swap = torch.tensor([1, 0, 2])
    group = torch.stack([x, (0.9 * x)[swap], 1.1 * x])
    anchors = m.Consensus(1.0).anchors(group, y.expand(3, -1), 0)
    torch.testing.assert_close(anchors[0], x)
    torch.testing.assert_close(anchors[1], x[swap])
    torch.testing.assert_close(anchors[2], x)


def test_a_registered_consensus_is_sharper_than_the_mean_of_shifted_pictures():
    x = pictures(1)
    group = torch.stack([x, x, x.roll(2, -1), x])
    y = torch.zeros(4, 1, dtype=torch.long)
    lazy, registered = (m.Consensus(1.0, registered=r).anchors(group, y, 0)[0] for r in (False, True))
    assert float((lazy - x).abs().mean()) > 1e-3
    torch.testing.assert_close(registered, x)


def spread(found):
    """How far the trials' last points are from their mean."""
    return float(torch.stack(found).std(0).mean())


def ends(consensus, trials=4, obs=None):
    """The last point of every trial."""
    last = {}

    @dataclass(frozen=True)
    class Watching(m.Adam):
        def descend(self, start, space, rng):
            descent = super().descend(start, space, rng)
            point = next(descent)
            while True:
                last[id(rng)] = point
                try:
                    point = descent.send((yield point))
                except StopIteration as ended:
                    return ended.value

    attack = replace(adam(trials=trials, consensus=consensus), optimizer=Watching(40, lr=0.02, drops=()))
    found = attack(obs or blurred(), rng=0)
    return list(last.values()), found


def blurred():
    """One number about the picture is all that is sent, so trials end far apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1), nn.Linear(1, 5)).double()
    model[1].requires_grad_(False)
    return gl.observe(model, truth(3), torch.tensor([1]), reveal=("labels",))


def test_trials_with_a_consensus_end_closer_together():
    alone, _ = ends(None)
    pulled, _ = ends(m.Consensus(100.0, start=0.25, every=5))
    assert spread(pulled) < 0.5 * spread(alone)


@pytest.mark.parametrize("consensus", [m.Consensus(100.0, start=1.0), m.Consensus(1e-300, start=1.0)])
def test_a_consensus_that_never_begins_changes_nothing(consensus):
    alone, found = ends(None)
    late, again = ends(consensus)
    assert all(map(torch.equal, alone, late))
    assert (found.score, found.history) == (again.score, again.history)


def test_a_lone_trial_has_nobody_to_agree_with():
    obs = blurred()
    chosen = adam(trials=1)
    a, b = (replace(chosen, consensus=c)(obs, rng=0) for c in (None, m.Consensus(100.0, every=5)))
    assert torch.equal(a.x, b.x)


def test_trials_of_different_records_do_not_pull_at_each_other():
    records = [record(seed) for seed in range(2)]
    together = adam(trials=3, consensus=m.Consensus(5.0, every=10)).together(records, rng=0)
    for obs, rng, found in zip(records, gl.randomness.spawn(0, 2), together, strict=True):
        alone = adam(trials=3, consensus=m.Consensus(5.0, every=10))(obs, rng=rng)
        torch.testing.assert_close(found.x, alone.x, rtol=1e-6, atol=1e-8)


def test_an_early_best_from_before_the_consensus_does_not_win():
    # The start is the truth, and then the group drags everything away: the best is that of the end.
    _, found = ends(m.Consensus(1e4, start=0.5, every=10))
    _, without = ends(None)
    assert found.history[-1][0] > 20
    spent = [n for n, _ in found.history]
    assert any(20 < n <= 22 for n in spent)
    assert found.score >= without.score


def test_a_consensus_needs_an_optimizer_without_a_memory_of_the_objective():
    with pytest.raises(InvalidInput, match="L-BFGS remembers"):
        m.Matching("test", consensus=m.Consensus(0.1))
    for wrong in ({"weight": 0.0}, {"weight": 1.0, "start": 2}, {"weight": 1.0, "every": 0}):
        with pytest.raises(InvalidInput, match="expected"):
            m.Consensus(**wrong)


# --- evidence


@dataclass(frozen=True)
class Towards:
    """Knows the mean of the update's first tensor, which is no sense but something to look at."""

    weight: float
    seen: list

    def gather(self, obs, guess, rng):
        if obs.labels is None:
            return Unanswerable("no labels, no evidence")
        self.seen.append(int(guess.y[0]))
        return {"level": next(iter(obs.update.values())).mean()}

    def __call__(self, candidate):
        return self.weight * (candidate.x.mean() - candidate.evidence["level"]).square()


def test_evidence_is_gathered_once_a_trial_and_reaches_its_own_prior():
    records = [record(0), record(1)]
    towards = Towards(50.0, [])
    found = adam(priors=(m.Energy(1e-3), towards), trials=2).together(records, rng=0)
    assert len(towards.seen) == 4
    for obs, one in zip(records, found, strict=True):
        level = float(next(iter(obs.update.values())).mean())
        assert float(one.x.mean()) == pytest.approx(level, abs=0.1)
    weightless = adam(priors=(m.Energy(1e-3), Towards(0.0, [])), trials=2).together(records, rng=0)
    without = adam(priors=(m.Energy(1e-3),), trials=2).together(records, rng=0)
    assert all(torch.equal(a.x, b.x) for a, b in zip(weightless, without, strict=True))


def test_an_attack_without_its_evidence_is_not_applicable_and_says_why():
    obs = replace(record(), labels=None)
    found = adam(priors=(Towards(1.0, []),), labels=gl.labels.joint())(obs)
    assert (found.outcome, found.reason) == (gl.Outcome.NOT_APPLICABLE, "no labels, no evidence")
