import json
import math
import re
from pathlib import Path

import pytest
from report_findings import finding, findings
from report_ladder import ladder, pictures, step, usual
from test_report_page import text

from gradleak import report
from gradleak.report.chart import HEIGHT, chart_of_rungs

REFUSED = finding(
    guess=None,
    psnr=-math.inf,
    null_psnr=-math.inf,
    random_psnr=-math.inf,
    ssim=None,
    null_ssim=None,
    label_guess=None,
    score=math.inf,
    outcome="not_applicable",
    reason="the update leaves all open",
)


def rows(page: str) -> list[str]:
    table = page[page.index("<tbody>") : page.index("</tbody>")]
    return [text(row) for row in table.split("</tr>")[:-1]]


def test_the_verdict_is_the_headline_and_every_rung_has_its_line():
    made = usual()
    page = report.render_ladder(made)
    headline = re.search(r"<h1>(.*?)</h1>", page, re.S)
    assert headline is not None
    assert text(headline[1]) == made.verdict
    assert rows(page) == [
        "1 everything known: nothing: all is known 2 of 5 9.0 10.0 100 % (10 %)",
        "2 train mode: the labels as above: no layer trains differently",
        "3 no labels: the labels 1 of 5 9.0 10.0 100 % (10 %)",
        "4 no order: the labels 0 of 5 9.0 10.0 100 % (10 %)",
    ]
    assert "no proof of safety: another one" not in text(page)
    assert "no proof of safety: another one" in text(report.render_ladder(ladder(made.steps[-1])))


def test_each_rung_shows_its_most_exposed_pictures():
    page = report.render_ladder(usual())
    strips = page.split('<section class="rung"')[1:]
    assert [strip.count("<img ") for strip in strips] == [12, 0, 12, 12]
    shown = re.findall(r'<span class="name">(.*?)</span>', strips[0])
    assert shown == ["picture 1", "picture 2", "picture 3", "picture 4"]
    assert "as above: no layer trains differently" in text(strips[1])
    assert [strip.count('<article class="card leaked">') for strip in strips] == [2, 0, 1, 0]
    assert "No leak" in text(strips[3])


def test_names_reasons_and_all_other_words_of_others_are_escaped():
    evil = "<script>alert('x')</script>\"&"
    found = findings(
        finding(name=evil, reason=evil, outcome=evil),
        title=evil,
        model=evil,
        attack=evil,
        assumptions=(evil,),
        versions={evil: evil},
        bibtex=evil,
        null=evil,
    )
    refused = findings(finding(name=evil, reason=evil, outcome="not_applicable", guess=None))
    page = report.render_ladder(
        ladder(step(evil, found, lost=evil), step(evil, refused), step(evil, None, evil), title=evil)
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 15
    assert evil in text(page)


@pytest.mark.parametrize("shown", [True, False])
def test_the_page_loads_nothing_and_its_links_have_targets(shown):
    page = report.render_ladder(usual(), pictures=shown)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    ours = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]*", "", page).lower()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<iframe|<link (?!rel=.icon)|\bon\w+=", ours)
    ids = re.findall(r'id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'href="#([^"]*)"', page) + re.findall(r'aria-labelledby="([^"]*)"', page)
    assert {one for several in wanted for one in several.split()} <= set(ids)
    assert ("<img" in page) == shown
    assert ("left out of this report" in text(page)) == (not shown)


def test_an_interrupted_ladder_says_so_and_what_was_not_run():
    made = ladder(
        step("top", pictures(30.0)),
        step("second", None, "the model has no BatchNorm"),
        step("third", findings(finding(guess=None, psnr=-math.inf, outcome="running"), interrupted=True)),
        step("fourth", None, "the run was stopped before"),
    )
    page = report.render_ladder(made)
    assert page.index("This run was interrupted.") < page.index("<h1>")
    assert "stopped early" in text(page)
    assert rows(page)[1].endswith("as above: the model has no BatchNorm")
    assert rows(page)[3].endswith("not tried: the run was stopped before")
    assert "This run was interrupted." not in report.render_ladder(usual())


def test_an_attack_that_could_not_be_run_is_no_all_clear():
    page = report.render_ladder(ladder(step("top", findings(REFUSED)), step("next", findings(REFUSED))))
    words = text(page)
    assert "proves nothing" in words
    assert rows(page)[0].endswith("could not be run: the update leaves all open")
    assert "There is nothing to draw" in words
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", words)


def test_a_ladder_of_which_every_rung_was_left_out_still_has_its_page(tmp_path: Path):
    made = ladder(step("top", None, "nothing to see"), step("next", None, "nor here"))
    written = report.write_ladder(made, tmp_path)
    assert [path.name for path in written] == ["report.html", "ladder.json"]
    words = text(written[0].read_text())
    assert "as above: nothing to see" in words
    assert "There is nothing to draw" in words


def test_the_chart_holds_medians_against_their_null():
    made = chart_of_rungs([(1, "everything known", pictures(30.0, 18.0, 9.0)), (4, "top", findings(REFUSED))])
    assert made is not None
    top, bottom = made.ticks[-1], made.ticks[0]
    first, second = made.columns
    assert first.y is not None
    assert top.value - first.y / HEIGHT * (top.value - bottom.value) == pytest.approx(18, abs=0.02)
    assert (first.lines, second.lines, first.leaked) == (("everything", "known"), ("top",), True)
    assert (second.number, second.y, second.base) == (4, None, None)
    assert first.title == "1, everything known: median 18.0 dB, null 10.0 dB, 2 of 3 leaked"
    assert second.title == "4, top: no guess"
    assert chart_of_rungs([]) is None


def test_the_sheet_is_that_of_the_lowest_rung_on_which_a_picture_leaks(tmp_path: Path):
    made = usual()
    page, numbers, sheet = report.write_ladder(made, tmp_path)
    assert page.read_text(encoding="utf-8") == report.render_ladder(made)
    assert json.loads(numbers.read_text()) == made.to_dict()
    assert made.steps[2].findings is not None
    assert sheet.read_bytes() == report.contact_sheet(made.steps[2].findings)
    none = ladder(*made.steps[3:])
    assert none.steps[0].findings is not None
    assert report.write_ladder(none, tmp_path)[2].read_bytes() == report.contact_sheet(none.steps[0].findings)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (page, numbers, sheet))


def test_a_folder_shows_one_run(tmp_path: Path):
    def names() -> list[str]:
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())

    report.write(findings(finding()), tmp_path)
    report.write_ladder(usual(), tmp_path)
    assert names() == ["ladder.json", "pictures.png", "report.html"]
    report.write_ladder(usual(), tmp_path, pictures=False)
    assert names() == ["ladder.json", "report.html"]
    report.write(findings(finding()), tmp_path, pictures=False)
    assert names() == ["findings.json", "report.html"]
