import html as markup
import json
import math
import re
from pathlib import Path

import pytest
import torch
from report_findings import finding, findings

from gradleak import report
from gradleak.errors import InvalidInput
from gradleak.examination.findings import LEAK


def text(page: str) -> str:
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return " ".join(markup.unescape(re.sub(r"<[^>]*>", "", body)).split())


def test_the_room_exports_its_verbs():
    assert sorted(report.__all__) == ["contact_sheet", "render", "render_ladder", "write", "write_ladder"]


def test_names_reasons_and_all_other_words_of_others_are_escaped():
    evil = "<script>alert('x')</script>\"&"
    page = report.render(
        findings(
            finding(name=evil, reason=evil, outcome=evil),
            title=evil,
            model=evil,
            attack=evil,
            assumptions=(evil,),
            versions={evil: evil},
            bibtex=evil,
        )
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 10
    assert evil in text(page)


def test_the_page_can_load_nothing():
    page = report.render(findings(finding(), finding()))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    ours = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]*", "", page).lower()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<iframe|<link (?!rel=.icon)|\bon\w+=", ours)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_every_link_within_the_page_has_its_target():
    page = report.render(findings(finding(), finding()))
    ids = re.findall(r'id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'href="#([^"]*)"', page) + re.findall(r'aria-labelledby="([^"]*)"', page)
    assert {one for several in wanted for one in several.split()} <= set(ids)


def test_the_verdict_is_the_headline_and_the_assumptions_follow():
    found = findings(finding(psnr=30.0), finding(psnr=11.0))
    page = report.render(found)
    headline = re.search(r"<h1>(.*?)</h1>", page, re.S)
    assert headline is not None
    assert text(headline[1]) == found.verdict
    assert text(page).index("What the attacker knew") < text(page).index("client OneGradient()")
    assert "@article{someone}" in page
    assert f"at least {LEAK:g} dB closer" in text(page)


def test_without_pictures_none_is_embedded_and_the_page_says_so():
    page = report.render(findings(finding(), finding()), pictures=False)
    assert "<img" not in page
    assert "data:image" not in page
    assert "left out of this report" in text(page)
    assert "data:image/png;base64," in report.render(findings(finding()))


def test_the_most_exposed_picture_comes_first_and_one_without_a_guess_last():
    page = report.render(
        findings(
            finding(name="none", guess=None, psnr=-math.inf, outcome="not_applicable"),
            finding(name="weak", psnr=8.0),
            finding(name="unknown", psnr=math.nan),
            finding(name="strong", psnr=25.0),
            finding(name="exact", psnr=math.inf),
        )
    )
    titles = re.findall(r'<span id="name-\d+">(\w+)</span>', page)
    assert titles == ["exact", "strong", "weak", "unknown", "none"]


def test_a_leak_is_told_in_words_and_not_by_colour_alone():
    words = text(report.render(findings(finding(psnr=30.0))))
    assert "Leaked, 20.0 dB above the null" in words
    assert "no proof of safety: another one" not in words
    words = text(report.render(findings(finding(psnr=7.5))))
    assert "Not leaked, 2.5 dB below the null" in words
    assert "no proof of safety: another one" in words
    assert "Not leaked, just under 6 dB above the null" in text(report.render(findings(finding(psnr=15.99))))
    assert "Not leaked, level with the null" in text(report.render(findings(finding(psnr=10.01))))


def test_the_better_null_is_the_baseline():
    words = text(report.render(findings(finding(psnr=30.0, null_psnr=10.0, random_psnr=12.0))))
    assert "Leaked, 18.0 dB above the null" in words


def test_an_interrupted_run_says_so_before_its_verdict():
    page = report.render(findings(finding(), interrupted=True))
    assert page.index("This run was interrupted.") < page.index("<h1>")
    assert "This run was interrupted." not in report.render(findings(finding()))


def test_an_attack_that_did_not_run_is_no_all_clear():
    refused = finding(
        guess=None,
        psnr=-math.inf,
        null_psnr=-math.inf,
        random_psnr=-math.inf,
        ssim=None,
        null_ssim=None,
        label_guess=None,
        score=math.inf,
        outcome="not_applicable",
        reason="no layer fits",
    )
    words = text(report.render(findings(refused, label_agreement=None, null_label_agreement=None)))
    assert "cannot be run here: no layer fits." in words
    assert "proves nothing" in words
    assert "could not be run: no layer fits" in words
    assert "not scored" in words
    assert "There is nothing to draw" in words
    assert " inf" not in words


@pytest.mark.parametrize("pictures", [True, False])
def test_values_without_a_number_are_named_in_words(pictures):
    page = report.render(
        findings(
            finding(psnr=math.inf, ssim=1.0),
            finding(psnr=14.0, score=math.nan),
            finding(psnr=-math.inf, score=math.inf, ssim=-1.0, outcome="diverged"),
            finding(label=None, label_guess=None, ssim=None, null_ssim=None),
            label_agreement=None,
        ),
        pictures=pictures,
    )
    words = text(page)
    assert "exact copy" in words
    assert "not a number" in words
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", words)
    assert not re.search(r'="-?(nan|inf|None)', page)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 8, 8), (3, 8, 8), (5, 8, 4), (3, 200, 120), (1, 1, 1)])
def test_every_kind_of_picture_is_shown(shape):
    page = report.render(findings(finding(shape=shape)))
    assert page.count("<img ") == 3
    assert f'width="{shape[2]}" height="{shape[1]}"' in page
    assert ('class="pixels"' in page) == (shape[1] < 100)


@pytest.mark.parametrize("shape", [(7,), (4, 16), (2, 3, 8, 8), (3, 0, 8)])
def test_data_that_are_no_pictures_keep_their_numbers(shape):
    found = findings(finding(shape=shape, psnr=30.0))
    page = report.render(found)
    assert "<img" not in page
    assert "not a picture" in text(page)
    assert "30.0 dB" in text(page)
    assert report.contact_sheet(found).startswith(b"\x89PNG")


def test_a_cost_is_never_added_up_over_the_pictures_of_one_batch():
    words = text(report.render(findings(finding(matching_gradients=1500), finding(matching_gradients=1500))))
    assert "Matching gradients per update1,500Time" in words.replace(" Time", "Time")
    assert "3,000" not in words


def test_the_same_findings_give_the_same_page():
    found = findings(finding(), finding(psnr=9.0))
    assert report.render(found) == report.render(found)


def test_findings_of_nothing_are_refused():
    with pytest.raises(InvalidInput, match="at least one picture"):
        report.render(findings())


def test_the_folder_holds_the_page_the_numbers_and_the_pictures(tmp_path: Path):
    found = findings(finding(), finding(guess=None, psnr=-math.inf), finding(shape=(4,)))
    written = report.write(found, tmp_path / "new" / "report")
    names = [str(path.relative_to(tmp_path / "new" / "report")) for path in written]
    assert names == [
        "report.html",
        "findings.json",
        "pictures.png",
        "pictures/01-true.png",
        "pictures/01-recovered.png",
        "pictures/02-true.png",
    ]
    assert all(path.is_file() for path in written)
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)
    assert written[0].read_text(encoding="utf-8") == report.render(found)


def test_the_numbers_are_strict_json(tmp_path: Path):
    found = findings(finding(psnr=math.inf, score=math.nan), finding(guess=None, psnr=-math.inf))
    report.write(found, tmp_path)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    read = json.loads((tmp_path / "findings.json").read_text(), parse_constant=refuse)
    assert read == found.to_dict()
    assert read["findings"][0]["psnr"] == "inf"


def test_a_folder_written_without_pictures_holds_none_of_an_earlier_report(tmp_path: Path):
    report.write(findings(finding(), finding()), tmp_path)
    (tmp_path / "pictures" / "mine.png").write_bytes(b"not gradleak's")
    report.write(findings(finding()), tmp_path)
    assert not (tmp_path / "pictures" / "02-true.png").exists()
    assert (tmp_path / "pictures" / "01-true.png").exists()
    written = report.write(findings(finding()), tmp_path, pictures=False)
    assert [path.name for path in written] == ["report.html", "findings.json"]
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["findings.json", "pictures/mine.png", "report.html"]


def test_a_name_that_is_not_text_does_not_lose_the_report(tmp_path: Path):
    report.write(findings(finding(name="bad\udcff name")), tmp_path)
    assert "bad? name" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_nothing_that_was_handed_in_is_changed():
    found = findings(finding())
    before = [t.clone() for f in found.findings for t in (f.truth, f.guess, f.null) if t is not None]
    report.render(found)
    report.contact_sheet(found)
    after = [t for f in found.findings for t in (f.truth, f.guess, f.null) if t is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
