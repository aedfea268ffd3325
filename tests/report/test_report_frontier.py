"""The frontier's page, figures and numbers, on made-up runs: what they say, where things lie, no picture."""

import json
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from gradleak.report.frontier import HEIGHT, TOP, chart, figure, page, write_tradeoff
from gradleak.tradeoff import Course, Curve, Leak, Point, Target, Tradeoff, Yardstick

NULL = Leak((12.0, 14.0), (0.1, 0.2), (False, False))


def point(words: str, worst: float, accuracy: float | None, naive: float | None = None) -> Point:
    best = Leak((worst - 2, worst), (0.3, 0.4), (False, True))
    unaware = Leak((5.0, worst if naive is None else naive), (0.0, 0.1), (False, False))
    course = None
    if accuracy is not None:
        course = Course((accuracy - 0.01, accuracy, accuracy + 0.01), (None,) * 3, 0.1, "")
    return Point(words, f"Client({words})", (worst - 1, worst + 1), unaware, best, course)


def curve(title: str, *points: Point, chosen: int | None = None, reason: str = "") -> Curve:
    return Curve(title.lower(), title, points, None if chosen is None else points[chosen], reason)


@pytest.fixture
def found() -> Tradeoff:
    return Tradeoff(
        title="a <network> on digits",
        target=Target(psnr=18),
        yardstick=Yardstick(0.5, 100, 1, ("a", "b")),
        null=NULL,
        gallery=99,
        bare=point("no defense", 100.0, 0.91),
        curves=(
            curve(
                "Noise",
                point("1 ×", 24.0, 0.9, naive=9.0),
                point("2 ×", 17.0, 0.86, naive=8.0),
                point("4 ×", 15.0, 0.72, naive=7.0),
                chosen=1,
            ),
            curve("Clipping <b>", point("0.01 ×", 58.0, 0.5), reason="it is a <factor>"),
            curve("Mixup", reason="nothing to blend"),
        ),
        of="Measured on digits.",
        own=True,
    )


def words(html: str) -> str:
    return " ".join(re.sub(r"<style.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def test_the_page_says_every_number_and_loads_nothing(found: Tradeoff) -> None:
    html = page(found)
    text = words(html)
    assert "a &lt;network&gt; on digits" in html
    assert "Clipping &lt;b&gt;" in html
    assert "it is a &lt;factor&gt;" in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "<script" not in html
    assert "1 Noise 2 × yes 8.0 17.0 18.0 50 % 86.0 % 5.0 (5.0 to 5.0)" in text
    assert "2 Clipping &lt;b&gt; 0.01 × no 58.0 58.0 59.0 50 % 50.0 % 41.0 (41.0 to 41.0)" in text
    assert "3 Mixup nothing to blend – not attacked" in text
    for one in found.curves[0].points:
        assert f"{one.words} {one.naive.worst:.1f} ({one.naive.median:.1f}) {one.adaptive.worst:.1f}" in text
    assert found.recommendation.replace("<", "&lt;") in text
    assert "holds no pictures" in text
    assert "interrupted" not in text
    assert "This run was interrupted." in words(page(replace(found, interrupted=True)))


def test_every_setting_lies_where_its_numbers_are(found: Tradeoff) -> None:
    drawn = chart(found)
    assert drawn is not None
    noise, clipping = drawn.lines  # mixup has no place
    assert [line.number for line in drawn.lines] == [1, 2]
    assert [place.adaptive for place in noise.places] == [
        pytest.approx(HEIGHT * (1 - worst / TOP), abs=0.1) for worst in (24, 17, 15)
    ]
    assert [place.naive for place in noise.places] == [
        pytest.approx(HEIGHT * (1 - worst / TOP), abs=0.1) for worst in (9, 8, 7)
    ]
    assert [place.x for place in noise.places] == [80.0, 72.0, 44.0]  # of 50 to 100 %
    assert [place.chosen for place in noise.places] == [False, True, False]
    assert drawn.bare.adaptive == 0  # beyond the top, which says so
    assert drawn.down[-1] == (0.0, "60+")
    assert noise.labelled.chosen
    assert not clipping.labelled.chosen
    assert drawn.target == pytest.approx(HEIGHT * (1 - 18 / TOP), abs=0.1)


def test_the_files_are_whole_and_the_same_each_time(found: Tradeoff, tmp_path: Path) -> None:
    written = write_tradeoff(found, tmp_path / "a")
    assert [path.name for path in written] == ["report.html", "frontier.png", "frontier.svg", "defend.json"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)
    again = write_tradeoff(found, tmp_path / "b")
    assert [a.read_bytes() for a in written] == [b.read_bytes() for b in again]
    facts = json.loads(written[3].read_text())
    assert facts["defenses"][0]["holds"]["setting"] == "2 ×"
    assert facts["defenses"][0]["holds"]["cost"]["mean"] == pytest.approx(0.05)
    assert facts["constant_guess"] == 0.1
    assert Image.open(BytesIO(figure(found, "png"))).width > 1000


def test_without_an_accuracy_there_is_a_table_and_nothing_drawn(found: Tradeoff, tmp_path: Path) -> None:
    bare = replace(found.bare, course=None)
    curves = tuple(
        replace(
            one,
            points=tuple(replace(p, course=None) for p in one.points),
            chosen=one.chosen and replace(one.chosen, course=None),
        )
        for one in found.curves
    )
    write_tradeoff(found, tmp_path)
    unpriced = replace(found, bare=bare, curves=curves, of="No accuracy was measured, for a reason")
    written = write_tradeoff(unpriced, tmp_path)
    assert [path.name for path in written] == ["report.html", "defend.json"]
    assert not (tmp_path / "frontier.png").exists()  # that was another run's
    text = words(written[0].read_text())
    assert "There is nothing to draw: No accuracy was measured, for a reason." in text
    assert "what it costs in accuracy was not measured" in text


def test_a_price_that_misleads_is_said_to(found: Tradeoff) -> None:
    dear = replace(found.curves[0], chosen=found.curves[0].points[2])
    assert found.bare.course is not None
    ruined = replace(found.curves[0], chosen=point("9 ×", 15.0, 0.2))
    assert "safe and useful" not in replace(found, curves=(dear,)).recommendation
    assert (
        "no defense that was searched is both safe and useful"
        in replace(found, curves=(ruined,)).recommendation
    )
    untaught = replace(found.bare, course=replace(found.bare.course, note="train for more rounds"))
    assert "That price says nothing" in replace(found, bare=untaught).recommendation
