import dataclasses
import json
import math

import pytest
import torch
from small_audit import TITLE, Fussy, facts, figures, small_work

import gradleak as gl
from gradleak.attacks.base import Outcome, Reconstruction
from gradleak.cases import Event, Store, run
from gradleak.cases.case import ATTACK, FORECAST, KNOWS, KNOWS_NOT
from gradleak.cases.chain import cases, chains, expected
from gradleak.cases.pictures import Pictures
from gradleak.cases.sharing import run_within_memory
from gradleak.examination.findings import LEAK


def test_an_audit_finds_what_its_attacks_find_one_by_one():
    work, store = small_work(rungs=("everything known",)), Store()
    record = run(work, store, facts(work))
    assert record.finished
    assert not record.missing
    for i, (x, y) in enumerate(work.batches):
        seen = gl.observe(work.model, x, y, reveal=("labels", "statistics"), rng=i)
        found = gl.attacks.bias()(seen, rng=0)
        best = record.best("fedsgd", i, attack="bias")
        assert best.row.value == pytest.approx(float(gl.metrics.psnr(found.x.clamp(0, 1), x)[0]), abs=1e-4)
        drawn = record.contents.guess(best.done.key, best.row.place)
        assert torch.equal(record.contents.truth(i), x[0])
        assert torch.allclose(drawn, found.x[0].clamp(0, 1))
        forecast = gl.predict(work.model, x, y, layers=False, rng=i)
        assert record.forecast("fedsgd", i).value == forecast.samples[0].psnr
    json.dumps(record.to_dict(), allow_nan=False)


def test_the_forecast_comes_first_and_then_the_ladder_from_the_top_and_attacks_from_cheap_to_dear():
    work = small_work(records=1, ways={"noisy": gl.defenses.GaussianNoise(gl.OneGradient(), std=1e-3)})
    asked = cases(chains(work)[0])
    assert asked[0].kind == FORECAST
    assert [(a.rung, a.attacker, a.attack) for a in asked[1:]] == [
        (rung, attacker, attack)
        for rung in ("everything known", "no labels")
        for attacker in (KNOWS_NOT, KNOWS)
        for attack in ("bias", "dlg")
    ]
    assert expected(work) == len(asked)


def test_an_attack_that_explains_the_update_spares_the_dearer_ones():
    work = small_work(rungs=("everything known",))
    record = run(work, Store(), facts(work))
    assert {done.case.attack for done in record.attacks} == {"bias"}
    assert {left.case.attack for left in record.left} == {"dlg"}
    assert all(left.spared and "explained the update" in left.why for left in record.left)


@pytest.mark.parametrize(("above", "spared"), [(0.5, True), (-0.5, False)])
def test_well_past_the_target_is_enough_and_just_past_it_is_not(above, spared):
    attacks = {"first": gl.attacks.dlg(evaluations=60), "second": gl.attacks.dlg(evaluations=61)}
    one = {"records": 1, "attacks": attacks, "rungs": ("everything known",)}
    plain = small_work(**one)
    first = run(plain, Store(), facts(plain)).best("fedsgd", 0, attack="first")
    assert first.row.leaked
    assert first.done.outcome == "budget"
    reached = first.row.value
    work = small_work(**one, target=reached - LEAK - above)
    record = run(work, Store(), facts(work))
    assert bool(record.run("fedsgd", attack="second")) is not spared


def test_where_nothing_leaks_no_server_that_knows_less_is_tried_unless_thorough():
    loud = {"loud": gl.defenses.GaussianNoise(gl.OneGradient(), std=10.0)}
    work = small_work(records=1, ways=loud)
    record = run(work, Store(), facts(work))
    assert {done.case.rung for done in record.attacks} == {"everything known"}
    assert all("a server that knows more" in left.why for left in record.left)
    thorough = dataclasses.replace(work, thorough=True)
    tried = run(thorough, Store(), facts(thorough))
    assert {done.case.rung for done in tried.attacks} == {"everything known", "no labels"}


def test_what_was_finished_is_never_done_again(tmp_path):
    work = small_work()
    first, second = [], []
    with Store(tmp_path) as store:
        one = run(work, store, facts(work), tell=first.append)
    with Store(tmp_path) as store:
        two = run(small_work(), store, facts(small_work()), tell=second.append)
    assert {event.what for event in first} >= {"done", "spared"}
    assert {event.what for event in second} == {"kept", "spared"}
    assert figures(one) == figures(two)
    assert two.number == one.number


def test_a_changed_plan_adds_what_is_new_and_keeps_what_still_holds(tmp_path):
    work = small_work(rungs=("everything known",))
    wider = dataclasses.replace(
        work, ways={"again fedsgd": gl.OneGradient(), "local": gl.LocalSGD(1, 1, 0.1)}, rungs=work.rungs
    )
    with Store(tmp_path) as store:
        before = run(work, store, facts(work))
        events = []
        after = run(wider, store, facts(wider), tell=events.append)
    kept = [event for event in events if event.what == "kept"]
    assert {event.case.protocol for event in kept} == {"again fedsgd"}
    assert len(kept) == len(before.done)
    assert {event.case.protocol for event in events if event.what == "done"} == {"local"}
    assert {done.case.protocol for done in after.done} == {"again fedsgd", "local"}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"kind": Pictures(normalization=((0.5,), (0.5,)))},
        {"kind": Pictures(reference=torch.rand(3, 1, 8, 8))},
        {"loss": gl.observe.__globals__["cross_entropy"]},
        {"model": gl.zoo.mlp(channels=1, size=8, sizes=(64, 16, 64), classes=10, seed=1)},
        {"attacks": {"bias": gl.attacks.dlg(evaluations=41), "dlg": gl.attacks.dlg(evaluations=39)}},
        {"ways": {"fedsgd": gl.defenses.Clip(gl.OneGradient(), norm=1.0)}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_the_result_depends_on_is_in_the_key(change):
    work = small_work(records=1)
    changed = dataclasses.replace(work, **change)
    case = cases(chains(work)[0])[1]
    assert work.key(case) != changed.key(case)
    assert work.key(case) == small_work(records=1).key(case)


def test_a_batch_that_the_model_cannot_take_ends_no_audit():
    x, y = gl.zoo.pictures("digits", size=8, n=6)
    bright = torch.full((1, 1, 8, 8), 4.0)
    work = dataclasses.replace(
        small_work(rungs=("everything known",)),
        model=Fussy(),
        batches=[(x[:3], y[:3]), (bright, y[3:4]), (x[4:5], y[4:5])],
        names=[["a", "b", "c"], ["d"], ["e"]],
    )
    events: list[Event] = []
    record = run(work, Store(), facts(work), tell=events.append)
    assert record.finished
    failed = {done.case.group: done.error for done in record.failed}
    assert "<script>three are too many</script>" in failed[0]
    assert set(failed) == {0, 1}
    assert record.best("fedsgd", 4).row.leaked
    assert {event.case.group for event in events if event.what == "failed"} == {0, 1}


def test_ctrl_c_keeps_what_was_finished_and_says_what_is_missing(tmp_path):
    work = small_work()
    stop = iter(range(100))

    def tell(event):
        if event.what == "done" and next(stop) == 2:
            raise KeyboardInterrupt

    with Store(tmp_path) as store:
        record = run(work, store, facts(work), tell=tell)
        assert not record.finished
        assert len(record.done) == 3
        assert {left.why for left in record.missing} == {"interrupted"}
        whole = run(work, store, facts(work))
    assert whole.number == record.number
    assert whole.finished
    assert {str(left.case) for left in record.missing} <= (
        {str(done.case) for done in whole.done} | {str(left.case) for left in whole.left}
    )


def test_time_that_is_used_up_is_said_and_the_next_run_goes_on(tmp_path):
    work = small_work()
    with Store(tmp_path) as store:
        record = run(work, store, facts(work), seconds=0.0)
        assert not record.done
        assert {left.why for left in record.missing} == {"the time given was used up"}
        assert len(record.missing) == expected(work)
        assert run(work, store, facts(work)).finished


@dataclasses.dataclass(frozen=True)
class Hungry:
    """An attack that has memory for two trials, and says how many it was asked for."""

    trials: int = 8
    name: str = "hungry"
    citations: tuple[str, ...] = ()
    budget: int = 1

    def iterate(self, obs, *, rng=0):
        if self.trials > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
        x = torch.rand(obs.x_shape, generator=rng)
        yield Reconstruction(Outcome.BUDGET, x=x, y=obs.labels, score=float(x.sum()))

    def __call__(self, obs, *, rng=0):
        *_, last = self.iterate(obs, rng=rng)
        return last


def test_trials_that_memory_does_not_hold_are_shared_out_and_the_attacker_s_best_part_counts():
    x, y = gl.zoo.pictures("digits", size=8, n=1)
    seen = gl.observe(small_work().model, x, y, reveal=("labels",))
    asked = {"rng": 0, "reference": None, "names": str, "progress": None}
    found, said = run_within_memory(seen, (x, y), Hungry(), **asked)
    assert "2 of 8 trials at a time" in said
    scores = [run_within_memory(seen, (x, y), Hungry(2), **(asked | {"rng": s}))[0] for s in range(3)]
    assert len({one.findings[0].score for one in scores}) == 3
    assert math.isfinite(found.findings[0].score)
    with pytest.raises(RuntimeError, match="something else"):
        run_within_memory(seen, (x, y), _Broken(), **asked)


class _Broken(Hungry):
    def iterate(self, obs, *, rng=0):
        raise RuntimeError("something else")
        yield


def test_an_attacker_who_does_not_know_the_defense_takes_the_update_for_a_plain_one():
    work = small_work(
        records=1,
        ways={"clipped": gl.defenses.Clip(gl.OneGradient(), norm=0.01)},
        rungs=("everything known",),
    )
    record = run(work, Store(), facts(work))
    assumed = {done.case.attacker: " ".join(done.facts["assumptions"]) for done in record.attacks}
    assert "Clip" in assumed[KNOWS]
    assert "Clip" not in assumed[KNOWS_NOT]
    assert {done.case.kind for done in record.attacks} == {ATTACK}


def test_the_title_and_the_ways_name_a_run(tmp_path):
    work = small_work(records=1, rungs=("everything known",))
    with Store(tmp_path) as store:
        assert run(work, store, facts(work)).title == TITLE
        assert run(work, store, facts(work, title="Another")).number == 2
        assert [one["title"] for _, one in store.runs()] == [TITLE, "Another"]


def test_labels_are_counted_where_nobody_was_told_them_and_read_off_without_an_attack_too():
    work = small_work(records=2, per=3, rungs=("everything known",))
    record = run(work, Store(), facts(work))
    assert all(done.facts["labels_given"] for done in record.attacks)
    share, chance = record.labels("fedsgd")
    assert share == 1.0  # by the forecast
    assert 0 < chance < 0.7
    assert record.labels("fedsgd", rung="everything known") is None


def test_the_interval_of_a_rate_is_wilson_s():
    from scipy.stats import binomtest

    from gradleak.cases.done import Rate

    for leaked, of in ((0, 5), (5, 5), (1, 7), (30, 64)):
        found = binomtest(leaked, of).proportion_ci(method="wilson")
        assert Rate(leaked, of).interval == pytest.approx((found.low, found.high), abs=1e-6)
    assert Rate(0, 0).interval == (0.0, 1.0)


def test_a_loss_of_one_s_own_is_that_of_forecast_and_attack_alike():
    def doubled(output, y):
        return 2 * torch.nn.functional.cross_entropy(output, y)

    plain = small_work(
        records=1, rungs=("everything known",), attacks={"dlg": gl.attacks.dlg(evaluations=30)}
    )
    work = dataclasses.replace(plain, loss=doubled)
    record = run(work, Store(), facts(work))
    assert not record.failed
    (done,) = record.attacks
    assert "loss doubled" in done.facts["assumptions"]
    seen = gl.observe(work.model, *work.batches[0], loss=doubled, reveal=("labels",))
    found = gl.attacks.dlg(evaluations=30)(seen, rng=0)
    assert done.facts["score"] == pytest.approx(found.score, rel=1e-6)


def test_equal_ways_under_two_names_have_the_same_results_both():
    work = small_work(records=1, ways={"a": gl.OneGradient(), "b": gl.OneGradient()})
    record = run(work, Store(), facts(work))
    assert record.best("a", 0).row == record.best("b", 0).row
    assert record.forecast("a", 0) == record.forecast("b", 0)


class Tamed(torch.nn.Module):
    """In eval mode nothing of the picture passes; in training it does."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        self.drop = torch.nn.Dropout(0.0)  # so that it trains differently

    def forward(self, x):
        return self.inner(self.drop(x) if self.training else x.mean() + 0 * x)


def test_what_is_safe_in_eval_mode_spares_no_rung_of_training():
    torch.manual_seed(0)
    work = dataclasses.replace(
        small_work(records=1, rungs=("everything known", "train mode", "no labels")), model=Tamed()
    )
    record = run(work, Store(), facts(work))
    assert not record.leaked("fedsgd", rung="everything known")
    assert record.leaked("fedsgd", rung="train mode")


def test_what_did_not_answer_spares_nothing():
    work = small_work(
        records=1,
        attacks={"r_gap": gl.attacks.r_gap()},
        ways={"local": gl.LocalSGD(2, 1, 0.1)},
        rungs=("everything known", "no labels"),
    )
    record = run(work, Store(), facts(work))
    assert not any(done.answered for done in record.attacks)
    assert not record.left


def test_modes_that_were_handed_in_stay_in_training():
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 10)
    ).train()
    model[2].eval()
    work = dataclasses.replace(small_work(records=1, per=2, rungs=("train mode",)), model=model)
    seen, _ = work._observed(cases(chains(work)[0])[-1])
    assert seen.model.training
    assert not seen.model[2].training


def test_of_summed_clients_too_a_server_may_not_know_the_defense():
    noisy = {"noisy": gl.defenses.GaussianNoise(gl.OneGradient(), std=1e-3)}
    work = small_work(records=2, ways=noisy, rungs=("clients summed",))
    naive = next(case for case in cases(chains(work)[0]) if case.attacker == KNOWS_NOT)
    seen, _ = work._observed(naive)
    assert seen.client == gl.Summed(2, gl.OneGradient())
