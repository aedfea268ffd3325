"""An audit's report on records made by hand: what it says, what it escapes, and what it leaves alone."""

import html as markup
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from report_audit import CLASSES, NULL, RUNGS, WAYS, Made, attacked, audit, troubled

from gradleak.cases import Case, Record
from gradleak.cases.case import ATTACK, KNOWS, KNOWS_NOT
from gradleak.cases.done import Done
from gradleak.report import audit_album, audit_figures, audit_tables
from gradleak.report.audit_text import said
from gradleak.report.audited import Report

WEAK, STRONG, LOCAL = WAYS["weak"][0].name, WAYS["strong"][0].name, WAYS["local"][0].name


def text(page: str) -> str:
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return " ".join(markup.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def rows(record: Record, table: str) -> list[list[str]]:
    made = audit_tables.every(record)[table]
    return [[f"{cell.text} {cell.note}".strip() for cell in row] for row in made.rows]


def test_the_verdict_is_the_headline_and_rests_on_what_was_run() -> None:
    record = audit()
    page = Report(record).html()
    headline = re.search(r"<h1>(.*?)</h1>", page, re.S)
    assert headline is not None
    assert re.sub(r"\s*:\s", ": ", text(headline[1]), count=1) == record.verdict == Report(record).verdict
    assert record.verdict == (
        "Records leak under 3 of 4 ways of training: to a server that has the model and the update and runs "
        f"dlg, 6 of 6 under “fedsgd” and “{LOCAL}”; 5 of 6 under “{WEAK}”; none under “{STRONG}”."
    )
    assert page.index("<h1>") < page.index("6 dB closer") < page.index('id="ways"')


@pytest.mark.parametrize(
    ("ways", "verdict"),
    [
        (
            ["fedsgd"],
            "6 of 6 records leak: to a server that has the model and the update and runs dlg, 37.5 dB in the "
            "median under “fedsgd”, where a guess without the update has 10.0 dB.",
        ),
        (
            ["strong"],
            "None of 6 records leaks: to a server that has the model and the update and runs dlg, 3.5 dB in "
            f"the median under “{STRONG}”, where a guess without the update has 10.0 dB.",
        ),
    ],
)
def test_one_way_of_training_is_told_with_its_null(ways: list[str], verdict: str) -> None:
    assert audit(*ways).verdict == verdict
    assert audit(*ways).verdict_on(WAYS[ways[0]][0].name).startswith(f"Under “{WAYS[ways[0]][0].name}”, ")


def test_each_way_has_a_row_with_every_number() -> None:
    fedsgd, weak, strong, local = rows(audit(), "ways")
    assert fedsgd == [
        "fedsgd", "6 of 6", "40.0", "37.5", "10.0", "38.8", "100% (25%)", "–", "–", "no labels"
    ]  # fmt: skip
    # Median of 20 to 15 for who knows the defense, and 2 dB less for who does not.
    assert weak[1:] == ["5 of 6", "20.0", "17.5", "10.0", "18.8", "100% (25%)", "15.5", "17.5", RUNGS[0]]
    assert strong[1:3] == ["0 of 6", "6.0"]
    assert strong[-1] == "–"
    assert local[2:4] == ["exact copy", "exact copy"]


def test_the_ladder_says_what_leaks_on_every_rung_and_what_was_not_tried() -> None:
    first, second, third = rows(audit("fedsgd", "weak"), "rungs")
    assert first == ["1 everything known", "6 of 6 (40.0; 37.5)", "5 of 6 (20.0; 17.5)"]
    assert second == ["2 no labels", "6 of 6 (35.0; 32.5)", "0 of 6 (15.0; 12.5)"]
    assert third == ["3 clients summed", "left out", "left out"]
    drawn, _ = audit_figures.ladder(audit("fedsgd", "weak"))
    assert [dot.leaked for dot in drawn.dots] == [True, True]
    high, low = drawn.dots
    # The worst record of the first rung has 40 dB, and the median 37.5.
    assert high.y == pytest.approx(audit_figures.HEIGHT * (1 - 40 / 60), abs=0.1)
    assert high.median == pytest.approx(audit_figures.HEIGHT * (1 - 37.5 / 60), abs=0.1)
    assert high.y < low.y < high.threshold < high.base  # type: ignore[operator]


def test_rungs_that_were_spared_missed_or_failed_are_told_apart() -> None:
    record = replace(audit("fedsgd"), done=(), facts=audit("fedsgd").facts | {"skipped": {}})
    case = Case(ATTACK, "fedsgd", 0, RUNGS[0], KNOWS, "dlg")
    shown = troubled(record)
    spared = replace(shown.left[0].case, rung=RUNGS[1])
    shown = replace(shown, left=(replace(shown.left[0], case=spared), shown.left[1]))
    assert [row[1] for row in rows(shown, "rungs")] == ["failed", "spared", "–"]
    assert [row[1] for row in rows(replace(shown, done=()), "rungs")] == ["missing", "spared", "–"]
    refused = attacked(case, range(2), [-math.inf] * 2)
    refused = replace(
        refused, facts=refused.facts | {"rows": [one | {"guessed": False} for one in refused.facts["rows"]]}
    )
    assert rows(replace(record, done=(refused,)), "rungs")[0][1] == "no guess"


def test_a_defense_is_judged_by_the_record_that_is_worst_off() -> None:
    record = audit("fedsgd", "weak")
    bare, weak = rows(record, "defenses")
    assert bare == ["fedsgd", "–", "–", "–", "6 of 6", "+30.0", "+27.5"]
    assert weak == [WEAK, "3 of 6", "+8.0", "+5.5", "5 of 6", "+10.0", "+7.5"]
    drawn = audit_figures.defenses(record)
    assert drawn is not None
    bar = drawn.bars[1]
    assert drawn.null < drawn.threshold < bar.naive < bar.adaptive  # type: ignore[operator]
    assert bar.says == f"{WEAK}: naive +8.0 dB, adaptive +10.0 dB"
    assert audit_figures.defenses(audit("fedsgd")) is None
    assert "What each defense leaves" not in Report(audit("fedsgd")).html()


def test_forecasts_stand_beside_what_was_achieved() -> None:
    record = audit("weak")
    first = rows(record, "forecasts")[0]
    assert first[:5] == ["record 1", WEAK, "20.0", "20.0", "recoverable"]
    (drawn,) = audit_figures.forecast(record)
    assert (drawn.dots[0].x, drawn.dots[0].leaked) == (pytest.approx(33.33), True)
    # Foretold were 17.5 to 20 dB, of which the last record, with 15 dB, is no leak.
    assert "foretold rightly 5 of 6 times. A leak was foretold and not found 1 time" in Report(record).html()


def test_classes_and_records_are_told_by_exposure() -> None:
    record = audit("fedsgd", "weak")
    by_class = {row[0]: row[1:] for row in rows(record, "classes")}
    assert by_class["cat"] == ["2 of 2 (38.0)", "2 of 2 (18.0)"]
    assert by_class["dog"] == ["2 of 2 (37.0)", "1 of 2 (17.0)"]
    names = [row[0] for row in rows(record, "samples")]
    assert names == [f"record {i}" for i in range(1, 7)]
    shades = [row[4].shade for row in audit_tables.samples(record).rows]
    assert shades == [4, 3, 3, 3, 3, 3]  # 30 to 25 dB above the null
    assert [row[5].shade for row in audit_tables.samples(record).rows] == [1, 1, 1, 1, 1, 0]


def test_every_attack_has_its_rate_its_interval_and_its_cost() -> None:
    naive = next(row for row in rows(audit("weak"), "rates") if "naive" in row[1] and row[2] == RUNGS[0])
    # Wilson's interval of 3 in 6.
    assert naive == [
        WEAK,
        "dlg naive",
        RUNGS[0],
        "3 of 6",
        "19% to 81%",
        "15.5",
        "3 converged",
        "360",
        "4.5 s",
    ]


def test_what_failed_was_spared_or_is_missing_is_said_with_its_reason() -> None:
    page = Report(troubled(audit())).html()
    assert page.index("This run is not finished.") < page.index("1 case failed.") < page.index("<h1>")
    assert rows(troubled(audit()), "failed") == [
        ["gdl on fedsgd, batch 1, everything known", "RuntimeError: <script>out</script> of memory"]
    ]
    assert rows(troubled(audit()), "spared")[0][-1] == "dlg is well past the target"
    assert rows(troubled(audit()), "missing")[0] == ["fedsgd", "gdl", RUNGS[0], "1", "interrupted"]
    assert "48 cases done, 1 spared, 1 failed, 1 missing" in text(page)
    assert "the run is not finished" in troubled(audit()).verdict
    assert 'role="note"' not in Report(audit()).html()


@pytest.mark.parametrize("kept", ["nothing", "forecasts"])
def test_a_run_that_was_killed_early_has_a_report_all_the_same(kept: str) -> None:
    record = audit("fedsgd", "weak", finished=False)
    done = tuple(one for one in record.done if kept == "forecasts" and one.case.kind != ATTACK)
    report = Report(replace(record, done=done))
    words = text(report.html())
    assert "No attack came to a guess : which says nothing about a leak; the run is not finished." in words
    assert "it is still at work, or it was killed" in words
    assert "None" not in words
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.markdown()


@pytest.mark.parametrize(
    ("ways", "facts", "words", "absent"),
    [
        (["fedsgd"], {}, "Try defenses", "Before you rely on"),
        (["fedsgd", "weak"], {}, "No way of training that was tried holds", "Try defenses"),
        (
            ["fedsgd", "strong"],
            {},
            "Before you rely on “fedsgd, clip & <b>noise</b>”, try harder",
            "No way of",
        ),
        (["strong"], {"finished": False}, "Give the same command again", "Try defenses"),
    ],
)
def test_what_to_do_now_follows_from_what_was_found(
    ways: list[str], facts: dict[str, Any], words: str, absent: str
) -> None:
    report = Report(audit(*ways, **facts))
    for shown in (text(report.html()), report.markdown().replace("\\", "").replace("&lt;", "<")):
        shown = shown.replace("&amp;", "&").replace("&gt;", ">")
        assert words in shown
        assert absent not in shown
        assert "--max-psnr 18" in shown


def test_whatever_others_named_stays_text() -> None:
    evil = "<script>alert('x')</script>\"&|`*"
    record = audit("weak")
    done = tuple(
        replace(one, facts=one.facts | {"reason": evil, "outcome": evil, "note": evil, "assumptions": [evil]})
        for one in record.done
    )
    known = dict.fromkeys(("title", "model", "null", "bibtex", "stopped"), evil)
    record = replace(
        troubled(replace(record, done=done)),
        samples=tuple(replace(one, name=evil, label_name=evil) for one in record.samples),
        facts=record.facts | known | {"versions": {evil: evil}, "attacks": [evil], "plan": {evil: evil}},
    )
    for page in (Report(record).html(), Report(record)._repr_html_()):
        assert "<script" not in page
        assert not re.search(r"\son\w+=", re.sub(r'"[^"]*"', "", page))
    assert text(Report(record).html()).count(evil) > 20
    outside = re.sub(r"(?s)(`{3,})\w*\n.*?\n\1\n", "", Report(record).markdown())
    assert "<script" not in outside
    lines = [line for line in outside.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert set(widths) <= {len(table.columns) + 1 for table in audit_tables.every(record).values()}


def test_markdown_keeps_text_as_text() -> None:
    assert said("a_b *c* <d> | `e` [f](g) # ~h~") == (r"a\_b \*c\* &lt;d&gt; \| \`e\` \[f\](g) \# \~h\~")
    assert said("two\nlines") == "two lines"


def test_text_and_page_say_the_same() -> None:
    record = troubled(audit())
    page, words = text(Report(record).html()), Report(record).markdown()
    for name, table in audit_tables.every(record).items():
        for row in table.rows:
            for cell in row:
                assert cell.text in page or not cell.text, name
                assert said(cell.text) in words, name


def test_the_page_can_load_nothing() -> None:
    page = Report(audit()).html()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    ours = re.sub(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]*", "", page).lower()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<iframe|<link (?!rel=.icon)|\bon\w+=", ours)
    ids = re.findall(r'id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'href="#([^"]*)"', page) + re.findall(r'aria-labelledby="([^"]*)"', page)
    assert {one for several in wanted for one in several.split()} <= set(ids)


def test_pictures_come_once_for_each_record_and_stay_away_when_unwanted(tmp_path: Path) -> None:
    report = Report(audit("fedsgd", "weak"))
    assert report.html().count("<img ") == 6 * (2 + 2)
    assert "data:image/" not in report.markdown()
    written = report.write(tmp_path, pictures=False)
    for path in written:
        content = path.read_text()
        assert "<img" not in content
        assert "data:image" not in content
    assert "left out of this report" in text(written[0].read_text())
    assert "This file holds private pictures" in text(report.html())


def test_pictures_that_are_many_are_compressed_until_they_fit() -> None:
    few = audit_album.album(audit("fedsgd", records=2, shape=(3, 64, 64)))
    assert few.side is None
    assert few.records[0].truth.uri is not None
    assert few.records[0].truth.uri.startswith("data:image/png")
    many = audit("fedsgd", "weak", records=50, per=10, shape=(3, 128, 128))
    page = Report(many).html()
    assert page.count("<img ") == 50 * 4
    assert len(page) < 5_000_000
    assert "Pictures are compressed here" in page


def test_data_that_nobody_could_look_at_keep_their_numbers() -> None:
    class Words(Made):
        def truth(self, sample: int) -> torch.Tensor | None:
            return torch.rand(12)

        def null(self, sample: int) -> torch.Tensor | None:
            return None

    record = audit("fedsgd", records=2)
    kept = record.contents
    assert isinstance(kept, Made)
    page = Report(replace(record, contents=Words(kept.shape, kept.psnr, kept.first))).html()
    assert page.count("<img ") == 2  # what was recovered
    assert text(page).count("cannot be shown") == 4
    assert "40.0 dB" in text(page)


def test_the_files_are_private_strict_and_leave_the_store_alone(tmp_path: Path) -> None:
    for name in (
        "index.sqlite",
        "in-use.lock",
        "cases/a.safetensors",
        "batches/b.safetensors",
        "runs/1.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("the store's")
    report = Report(audit("local", "weak"))
    for _ in range(2):
        written = report.write(tmp_path)
    assert [path.name for path in written] == ["report.html", "report.md", "audit.json"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path not in written]
    assert len(kept) == 5
    assert all(path.read_text() == "the store's" for path in kept)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    read = json.loads((tmp_path / "audit.json").read_text(), parse_constant=refuse)
    assert read == report.to_dict()
    assert read["ways"][0]["worst_psnr"] == "inf"
    assert read["verdict"] == report.verdict


def test_a_name_that_is_not_text_does_not_lose_the_report(tmp_path: Path) -> None:
    record = audit("fedsgd", records=2)
    report = Report(replace(record, samples=tuple(replace(s, name="bad\udcff") for s in record.samples)))
    page, words, _ = report.write(tmp_path)
    assert "bad?" in page.read_text()
    assert "bad?" in words.read_text()
    report._repr_html_().encode()


def test_numbers_that_are_none_come_last_and_break_nothing() -> None:
    record = audit("fedsgd", records=2)

    def unknown(one: Done) -> Done:
        if one.case.kind != ATTACK:
            return one
        first, *others = one.facts["rows"]
        bad = {"psnr": "nan", "leak": "nan", "leaked": False}
        return replace(one, facts=one.facts | {"rows": [first | bad, *others]})

    report = Report(replace(record, done=tuple(map(unknown, record.done))))
    assert [row[0] for row in rows(report.record, "samples")] == ["record 2", "record 1"]
    assert "not a number" in text(report.html())
    assert not re.search(r"\b(nan|inf|Undefined)\b", text(report.html()))
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_same_record_gives_the_same_page_and_a_frame_for_notebooks() -> None:
    report = Report(audit("fedsgd"))
    assert report.html() == report.html()
    framed = report._repr_html_()
    inner = markup.unescape(re.findall(r'srcdoc="([^"]*)"', framed)[0])
    assert inner.replace('<base href="about:srcdoc">\n', "") == report.html()
    assert repr(report) == f"Report({report.verdict})"


def test_helpers_are_as_they_are_said_to_be() -> None:
    record = audit("weak", records=4)
    assert {one.case.attacker for one in record.attacks} == {KNOWS, KNOWS_NOT}
    assert all(best.row.null == NULL for best in record.bests(WEAK))
    assert [sample.label_name for sample in record.samples] == list(CLASSES)
