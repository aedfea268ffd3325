import csv
import io
import json
import math

from gradleak.audit.diff import diff
from gradleak.audit.rows import COLUMNS, as_csv, rows
from gradleak.cases.done import Way
from hand_made_audit import BELOW, attack, broke, forecast, left, run


def test_the_change_of_every_record_is_that_of_its_leak():
    """A run's figures are held against its own null."""
    before = run(attack([30, 12], null=10.0), forecast([31, 13]))
    after = run(attack([16, 14], null=12.0), forecast([15, 15]), number=2)
    (way,) = diff(before, after).ways
    assert [one.by for one in way.records] == [-16.0, 0.0]
    assert [one.values for one in way.records] == [(30, 16), (12, 14)]
    assert [one.nulls for one in way.records] == [(10, 12), (10, 12)]
    assert way.leaked == (1, 0)
    assert way.forecast == (22, 15)
    assert way.sentence == (
        "8.0 dB less leak in the median of 2 records (0 more exposed, 1 less, 1 the same); 1 of 2 leaked, "
        "and now 0"
    )


def test_pictures_that_are_both_the_same_as_the_true_one_do_not_differ():
    (way,) = diff(run(attack([math.inf, 150])), run(attack([90, 70]), number=2)).ways
    assert [one.by for one in way.records] == [0, 0]
    assert way.sentence.startswith(
        "the same leak in the median of 2 records (0 more exposed, 0 less, 2 the same)"
    )
    (way,) = diff(run(attack([math.inf, 59])), run(attack([40, 57]), number=2)).ways
    assert [one.by for one in way.records] == [-20, -2]


def test_less_than_a_decibel_is_no_change():
    (way,) = diff(run(attack([20, 20])), run(attack([20.9, 21.0]), number=2)).ways
    assert "(1 more exposed, 0 less, 1 the same)" in way.sentence


def test_records_and_ways_are_matched_by_name():
    before = run(attack([30, 12]), attack([9, 9], way="old"), ways=("old", "plain"), names=("a", "b"))
    after = run(attack([15, 20]), ways=("plain", "new"), names=("b", "c"), number=2)
    found = diff(before, after)
    assert [way.name for way in found.ways] == ["plain"]
    assert found.only_ways == (("old",), ("new",))
    assert found.only_records == (("a",), ("c",))
    assert [(one.name, one.values) for one in found.ways[0].records] == [("b", (12, 15))]
    json.dumps(found.to_dict(), allow_nan=False)


def test_records_of_one_name_are_matched_in_their_order():
    (way,) = diff(
        run(attack([30, 12]), names=("a", "a")), run(attack([31, 14]), names=("a", "a"), number=2)
    ).ways
    assert [one.by for one in way.records] == [1, 2]


def test_two_lone_ways_are_compared_whatever_they_are_called():
    local = Way("local", "LocalSGD(epochs=2)", ())
    found = diff(run(attack([30, 30])), run(attack([20, 20], way="local"), ways=(local,), number=2))
    (way,) = found.ways
    assert way.name == "plain to local"
    assert way.clients == ("OneGradient()", "LocalSGD(epochs=2)")
    assert found.only_ways == ((), ())
    two = run(attack([20, 20], way="local"), ways=(local, "other"), number=2)
    assert diff(run(attack([30, 30])), two).ways == ()


def test_another_strength_of_a_defense_is_compared_with_the_first_where_there_is_one_of_each():
    noisy, louder = "phones, gaussian:std=0.1", "phones, gaussian:std=1"
    before = run(attack([30, 30], way=noisy), ways=("phones", noisy))
    after = run(attack([20, 20], way=louder), ways=("phones", louder), number=2)
    found = diff(before, after)
    assert [way.name for way in found.ways] == ["phones", f"{noisy} to {louder}"]
    assert [one.by for one in found.ways[1].records] == [-10, -10]
    assert found.only_ways == ((), ())
    many = run(attack([20, 20], way=louder), ways=("phones", louder, "phones, sign"), number=2)
    assert [way.name for way in diff(before, many).ways] == ["phones"]
    assert diff(before, many).only_ways == ((noisy,), (louder, "phones, sign"))


def test_labels_and_the_last_server_are_compared():
    before = run(attack([30, 30]), attack([20, 12], rung=BELOW, labels=(1.0, 0.2)))
    after = run(attack([30, 30]), number=2)
    (way,) = diff(before, after).ways
    assert way.labels == ((1.0, 0.2), None)
    assert way.lowest == (BELOW, "everything known")


def test_what_else_differs_is_noted():
    before = run(attack([30, 12]), broke("out of memory"))
    after = run(
        attack([30, None]), number=2, model="Net, 13 parameters", attacks=["dlg", "gdl"], finished=False,
        left=[left("interrupted")], versions={"gradleak": "0.2.0"},
    )  # fmt: skip
    found = diff(before, after)
    assert found.notes == (
        "the model differs: Net, 12 parameters, and now Net, 13 parameters",
        "the attacks differ: dlg, and now dlg, gdl",
        "the versions differ: gradleak 0.1.0, and now gradleak 0.2.0",
        "1 case of the first run failed",
        "the second run is not finished",
    )
    assert found.ways[0].sentence.endswith("1 without a guess in one of them")
    assert diff(before, before).notes == (
        "1 case of the first run failed",
        "1 case of the second run failed",
    )


def test_other_labels_under_the_same_names_are_noted():
    other = run(attack([30, 12]), names=("b", "a"), number=2)
    assert diff(run(attack([30, 12])), other).notes == (
        "records of the same name have other labels: these may not be the same records",
    )


def test_nothing_to_compare_is_said():
    (way,) = diff(run(attack([30, 12])), run(attack([None, None]), number=2)).ways
    assert way.sentence == "no record has a guess in both runs, so that nothing can be compared"


def test_a_table_has_a_row_for_every_record_and_attack():
    record = run(
        forecast([31, math.inf]), attack([30, None], ssim=0.5), attack([math.inf, 9], name='g"d,l', seed=1),
        broke("no memory"),
    )  # fmt: skip
    table = rows(record)
    assert [tuple(row) for row in table] == [COLUMNS] * 6
    assert [(row["record"], row["attack"], row["seed"], row["guessed"], row["psnr"]) for row in table] == [
        ("a", "dlg", 0, True, 30), ("b", "dlg", 0, False, None),
        ("a", 'g"d,l', 1, True, "inf"), ("b", 'g"d,l', 1, True, 9),
        ("a", "idlg", 0, False, None), ("b", "idlg", 0, False, None),
    ]  # fmt: skip
    assert [row["forecast_psnr"] for row in table] == [31, "inf"] * 3
    assert [row["outcome"] for row in table] == ["converged"] * 4 + ["failed"] * 2
    assert table[-1]["reason"] == "no memory"
    read = list(csv.DictReader(io.StringIO(as_csv({"folder": "f", **row} for row in table))))
    assert [row["attack"] for row in read] == [row["attack"] for row in table]
    assert read[2]["psnr"] == "inf"
    assert read[1]["psnr"] == ""
