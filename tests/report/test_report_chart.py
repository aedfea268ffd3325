import math
import xml.etree.ElementTree as ET

import pytest
from report_findings import finding, findings

from gradleak.examination.findings import LEAK
from gradleak.report import render
from gradleak.report.chart import ABOVE, HEIGHT, chart


def test_heights_are_decibels():
    made = chart([(1, finding(psnr=30.0, null_psnr=10.0, random_psnr=8.0)), (2, finding(psnr=12.0))])
    assert made is not None
    top, bottom = made.ticks[-1], made.ticks[0]
    assert (top.y, bottom.y) == (0, HEIGHT)

    def value(y: float | None) -> float:
        assert y is not None
        return top.value - y / HEIGHT * (top.value - bottom.value)

    first, second = made.columns
    assert value(first.y) == pytest.approx(30, abs=0.02)
    assert value(first.base) == pytest.approx(10, abs=0.02)
    assert value(first.threshold) == pytest.approx(10 + LEAK, abs=0.02)
    assert value(first.weaker) == pytest.approx(8, abs=0.02)
    assert value(second.y) == pytest.approx(12, abs=0.02)
    assert (first.x, second.x) == (25, 75)
    assert (first.leaked, second.leaked) == (True, False)


def test_what_is_not_finite_lies_off_the_axis():
    made = chart(
        [(1, finding(psnr=math.inf)), (2, finding(psnr=-math.inf, guess=None)), (3, finding(psnr=math.nan))]
    )
    assert made is not None
    assert [column.y for column in made.columns] == [ABOVE, None, None]
    assert made.any_exact
    assert made.any_missing


def test_there_is_no_chart_of_nothing():
    empty = finding(guess=None, psnr=-math.inf, null_psnr=-math.inf, random_psnr=-math.inf)
    assert chart([(1, empty)]) is None


@pytest.mark.parametrize("low", [-400.0, 0.0, 9.9])
@pytest.mark.parametrize("high", [10.0, 60.0, 380.0])
def test_ticks_are_few_and_hold_every_value(low, high):
    made = chart([(1, finding(psnr=high, null_psnr=low, random_psnr=low))])
    assert made is not None
    values = [tick.value for tick in made.ticks]
    assert 2 <= len(values) <= 8
    assert values[0] <= low
    assert values[-1] >= max(high, low + LEAK)


def test_numbers_below_the_axis_never_run_into_each_other():
    for many in (1, 9, 24, 100, 1000):
        made = chart([(i + 1, finding(shape=(1,))) for i in range(many)])
        assert made is not None
        shown = [column for column in made.columns if column.shows_number]
        assert 0 < sum(len(str(column.number)) for column in shown) <= 32


def test_the_drawing_is_well_formed_and_speaks():
    page = render(findings(finding(name="a & <b>", psnr=math.inf), finding(guess=None, psnr=-math.inf)))
    figure = page[page.index('<figure class="chart') :]
    drawing = ET.fromstring(figure[figure.index("<svg") : figure.index("<figcaption>")].strip())
    titles = [title.text for title in drawing.iter("title")]
    assert titles[0] == "PSNR of every recovered picture against its nulls"
    assert titles[1] == "1, a & <b>: recovered exact copy, better null 10.0 dB, leaked"
    assert drawing.find("desc") is not None
    assert drawing.attrib["aria-labelledby"] == "chart-title chart-desc"
