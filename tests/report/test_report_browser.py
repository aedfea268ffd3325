import math
from pathlib import Path
from typing import Any

import pytest
from report_findings import finding, findings
from report_ladder import ladder, step

from gradleak.report import write, write_ladder

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    odd = [
        finding(name="exact", psnr=math.inf, seed=1),
        finding(name="<script>throw Error('ran')</script>", psnr=9.0, outcome="budget", seed=2),
        finding(name="x" * 200, reason="y" * 300, guess=None, psnr=-math.inf, outcome="not_applicable"),
        finding(name="gray", shape=(1, 28, 28), psnr=16.5),
        finding(name="large", shape=(3, 224, 160), psnr=13.0),
        finding(name="words", shape=(12,)),
    ]
    more = [finding(name=f"picture {i}", psnr=8.0 + i, seed=i) for i in range(14)]
    write(findings(*odd, *more, assumptions=("model", "z" * 150), interrupted=True), folder / "with")
    write(findings(*odd, *more), folder / "without", pictures=False)
    made = ladder(
        step("everything known", findings(*odd, *more), lost="nothing: all is known"),
        step("x" * 80, None, "y" * 200),
        step("settings guessed", findings(*odd, interrupted=True), lost="z " * 60),
    )
    write_ladder(made, folder / "ladder")
    return folder


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[1280, 400])
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=["with", "without"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


LOOK = """() => {
  const number = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => number(rgb).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const contrast = (a, b) => {
    const [x, y] = [light(a), light(b)];
    return (Math.max(x, y) + .05) / (Math.min(x, y) + .05);
  };
  document.querySelectorAll('details').forEach(d => { d.open = true; });
  const speaks = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  const words = [...document.body.querySelectorAll('*')].filter(e =>
    speaks(e) && !e.closest('title, desc, style, .unseen'));
  return {
    overflow: document.documentElement.scrollWidth - innerWidth,
    words: words.map(e => { const s = getComputedStyle(e); return {
      text: e.textContent.trim().slice(0, 40), size: parseFloat(s.fontSize),
      contrast: contrast(e instanceof SVGElement ? s.fill : s.color, behind(e)) }; }),
    pictures: [...document.images].map(i => ({ natural: i.naturalWidth, alt: i.alt,
      shown: i.checkVisibility({ opacityProperty: true, visibilityProperty: true }),
      width: i.getBoundingClientRect().width, height: i.getBoundingClientRect().height,
      pixels: getComputedStyle(i).imageRendering })),
    paper: light(behind(document.body)), scripts: document.scripts.length,
    dots: [...document.querySelectorAll('.chart circle')].filter(c => c.getBoundingClientRect().width).length,
  };
}"""


def looked_at(browser: Any, page_file: Path, width: int, scheme: str) -> Any:
    """What the browser shows of a page that must load nothing, run nothing, and be readable."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        requests: list[str] = []
        troubles: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        address = page_file.as_uri()
        page.goto(address, wait_until="load")
        seen = page.evaluate(LOOK)
    finally:
        page.close()
    assert [url for url in requests if url != address and not url.startswith("data:")] == []
    assert requests.count(address) == 1
    assert troubles == []
    assert seen["scripts"] == 0
    assert seen["overflow"] <= 0
    assert len(seen["words"]) > 50
    assert [word for word in seen["words"] if word["size"] < 14] == []
    assert [word for word in seen["words"] if word["contrast"] < 4.5] == []
    assert (seen["paper"] > 0.5) == (scheme == "light")
    for picture in seen["pictures"]:
        assert picture["natural"] > 0
        assert picture["alt"]
        assert picture["shown"]
        assert min(picture["width"], picture["height"]) >= 60
        assert (picture["pixels"] == "pixelated") == (picture["natural"] < 100)
    return seen


def test_a_real_browser_shows_the_page_whole_and_asks_nobody(browser, folder, kind, width, scheme):
    seen = looked_at(browser, folder / kind / "report.html", width, scheme)
    assert seen["dots"] >= 17
    # 20 pictures of which one is none at all, and one has no guess.
    assert len(seen["pictures"]) == (0 if kind == "without" else 3 * 19 - 1)


def test_a_ladder_is_shown_whole_too(browser, folder, width, scheme):
    seen = looked_at(browser, folder / "ladder" / "report.html", width, scheme)
    assert seen["dots"] >= 2
    # The four most exposed of each rung that was attacked, of which one is no picture.
    assert len(seen["pictures"]) == 2 * 3 * 3
