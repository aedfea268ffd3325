"""An audit's page in a real browser: whole at every width, readable, asking nobody, and all by keyboard."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_audit import audit, troubled

from gradleak.report.audited import Report

pytestmark = pytest.mark.browser

READ = """() => {
  const light = rgb => rgb.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (colour.startsWith('rgb(')) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const contrast = (a, b) => {
    const [x, y] = [light(a), light(b)];
    return (Math.max(x, y) + .05) / (Math.min(x, y) + .05);
  };
  document.querySelectorAll('details').forEach(d => { d.open = true; });
  const speaks = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  const seen = e => e.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  return {
    overflow: document.documentElement.scrollWidth - innerWidth,
    scripts: document.scripts.length,
    paper: light(behind(document.body)),
    words: [...document.body.querySelectorAll('*')]
      .filter(e => seen(e) && speaks(e) && !e.closest('title, desc, style, .unseen'))
      .map(e => { const s = getComputedStyle(e); return { text: e.textContent.trim().slice(0, 40),
        size: parseFloat(s.fontSize),
        contrast: contrast(e instanceof SVGElement ? s.fill : s.color, behind(e)) }; }),
    pictures: [...document.images].map(i => ({ natural: i.naturalWidth, alt: i.alt, seen: seen(i),
      width: i.getBoundingClientRect().width })),
    figures: [...document.querySelectorAll('.panel svg[role], .bar svg[role]')].map(s => {
      const box = s.getBoundingClientRect(); return { width: box.width, height: box.height, left: box.left,
        right: innerWidth - box.right }; }),
  };
}"""

STRUCTURE = """() => {
  const all = query => [...document.querySelectorAll(query)];
  const named = e => (e.getAttribute('aria-label') || (e.getAttribute('aria-labelledby') || '').split(' ')
    .map(id => document.getElementById(id)?.textContent || '').join(' ')).trim();
  return {
    lang: document.documentElement.lang, title: document.title,
    headings: all('h1, h2, h3').map(h => Number(h.tagName[1])),
    landmarks: ['header', 'nav', 'main', 'footer'].map(name => all(name).length),
    nameless: all('[role=region], [role=img], section, nav, article').filter(e => !named(e)).length,
    regions: all('[role=region]').map(named),
    unlabelled: all('input').filter(i => !i.labels.length || !i.labels[0].textContent.trim()).length,
    legends: all('fieldset').map(f => f.querySelector('legend').textContent.trim()),
    tables: all('table').map(t => Boolean(t.caption) && t.querySelectorAll('thead th[scope=col]').length > 1
      && [...t.tBodies[0].rows].every(r => r.cells[0].scope === 'row')),
    links: all('a[href]').map(a => Boolean(document.querySelector(a.getAttribute('href')))),
  };
}"""

FOCUSABLE = """() => {
  const able = [...document.querySelectorAll('a[href], summary, [tabindex="0"], input:checked')]
    .filter(e => e.checkVisibility());
  able.forEach((e, i) => { e.dataset.place = i; });
  return able.length;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    record = troubled(audit())
    long = tuple(replace(one, name=f"{one.name} {'x' * 150}") for one in record.samples[:1])
    record = replace(record, samples=(*long, *record.samples[1:]))
    Report(record).write(folder / "with")
    Report(record).write(folder / "without", pictures=False)
    Report(audit(records=50, per=5, shape=(3, 64, 64))).write(folder / "fifty")
    return folder


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((folder / "with" / "report.html").as_uri())
    yield page
    page.close()


def looked_at(browser: Any, file: Path, width: int, scheme: str) -> Any:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        requests: list[str] = []
        troubles: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.goto(file.as_uri(), wait_until="load")
        seen = page.evaluate(READ)
    finally:
        page.close()
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    assert troubles == []
    assert seen["scripts"] == 0
    return seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 2560])
@pytest.mark.parametrize("kind", ["with", "without"])
def test_the_page_is_whole_and_readable_and_asks_nobody(
    browser: Any, folder: Path, kind: str, width: int, scheme: str
) -> None:
    seen = looked_at(browser, folder / kind / "report.html", width, scheme)
    assert seen["overflow"] <= 0
    assert (seen["paper"] > 0.5) == (scheme == "light")
    assert len(seen["words"]) > 300
    assert [word for word in seen["words"] if word["size"] < 14] == []
    assert [word for word in seen["words"] if word["contrast"] < 4.5] == []
    assert len(seen["figures"]) == 4 + 4 + 4  # the ladder, the forecast and the defenses, by way
    for figure in seen["figures"]:
        assert figure["width"] >= 180
        assert min(figure["left"], figure["right"]) >= 10
    assert len(seen["pictures"]) == (6 * 6 if kind == "with" else 0)
    for picture in seen["pictures"]:
        assert picture["natural"] == 16
        assert picture["alt"]
        assert not picture["seen"] or picture["width"] >= 60
    # Of every record: the truth, what came back under the way that is chosen, and the null.
    assert sum(picture["seen"] for picture in seen["pictures"]) == len(seen["pictures"]) // 2


def test_fifty_records_fit_and_every_picture_loads(browser: Any, folder: Path) -> None:
    file = folder / "fifty" / "report.html"
    assert file.stat().st_size < 5_000_000
    seen = looked_at(browser, file, 1280, "light")
    assert len(seen["pictures"]) == 50 * 6
    assert all(picture["natural"] == 64 for picture in seen["pictures"])


def test_who_cannot_see_it_is_told_what_is_where(opened: Any) -> None:
    found = opened.evaluate(STRUCTURE)
    assert found["lang"] == "en"
    assert found["title"]
    assert found["headings"][0] == 1
    assert found["headings"].count(1) == 1
    assert all(b - a <= 1 for a, b in zip(found["headings"], found["headings"][1:], strict=False))
    assert found["landmarks"] == [1, 1, 1, 1]
    assert found["nameless"] == 0
    assert len(found["regions"]) == len(set(found["regions"])) > 5
    assert found["unlabelled"] == 0
    assert found["legends"] == ["Way of training", "Batch"]
    assert len(found["tables"]) == 13
    assert all(found["tables"])
    assert all(found["links"])


def test_every_part_is_reached_by_tab_in_the_order_of_the_page(opened: Any) -> None:
    wanted = opened.evaluate(FOCUSABLE)
    reached = []
    for _ in range(wanted):
        opened.keyboard.press("Tab")
        reached.append(opened.evaluate("Number(document.activeElement.dataset.place ?? -1)"))
        outline = opened.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
    assert reached == list(range(wanted))
    assert wanted > 25


def shown(page: Any) -> list[str]:
    """The alt texts of what can be seen of the pictures, as they lie on the page."""
    found: list[str] = page.evaluate(
        """() => [...document.images].filter(i => i.checkVisibility())
          .map(i => [i.getBoundingClientRect(), i.alt]).sort(([a], [b]) => a.top - b.top || a.left - b.left)
          .map(([, alt]) => alt)"""
    )
    return found


def test_ways_and_batches_are_browsed_with_the_arrow_keys(browser: Any, tmp_path: Path) -> None:
    record = audit("fedsgd", "weak")
    # Under the second way the last record is worst off.
    best = {one.row.sample: one for one in record.bests(record.ways[1].name)}
    last = best[5].done
    rows = [row | {"psnr": 30.0 + i, "leak": 20.0 + i} for i, row in enumerate(last.facts["rows"])]
    done = tuple(replace(o, facts=o.facts | {"rows": rows}) if o is last else o for o in record.done)
    page_file = Report(replace(record, done=done)).write(tmp_path)[0]
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(page_file.as_uri())
    assert len(shown(page)) == 18
    assert [alt.split(":")[0] for alt in shown(page)[:3]] == [
        "True picture",
        "Recovered picture",
        "Guess without the update",
    ]
    assert "True picture: record 1" in shown(page)[0]
    page.focus("#way-1")
    page.keyboard.press("ArrowRight")
    under = [alt for alt in shown(page) if alt.startswith("Recovered")]
    assert len(under) == 6
    assert all("under fedsgd, gaussian:std=0.01" in alt for alt in under)
    assert "record 6" in shown(page)[0]
    page.keyboard.press("Tab")
    browsed = []
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        browsed.append({alt.partition(": ")[2].partition(",")[0] for alt in shown(page)})
    page.close()
    assert browsed == [
        {"record 1", "record 2"},
        {"record 3", "record 4"},
        {"record 5", "record 6"},
    ]


def test_on_paper_everything_is_there(opened: Any) -> None:
    opened.emulate_media(media="print", color_scheme="dark")
    found = opened.evaluate(
        """() => { const seen = e => e.checkVisibility() && e.getBoundingClientRect().height > 0; return {
          pictures: [...document.images].every(seen),
          tables: [...document.querySelectorAll('table')].every(seen),
          choices: [...document.querySelectorAll('fieldset')].some(seen),
          paper: getComputedStyle(document.body).backgroundColor } }"""
    )
    assert found == {"pictures": True, "tables": True, "choices": False, "paper": "rgb(255, 255, 255)"}
    assert opened.pdf(format="A4").startswith(b"%PDF")


def test_a_notebook_shows_it_in_a_frame_of_its_own(browser: Any) -> None:
    report = Report(audit("fedsgd"))
    page = browser.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.set_content(f"<h1>A notebook</h1>{report._repr_html_()}", wait_until="load")
    (frame,) = page.frames[1:]
    assert frame.locator("h1").inner_text().startswith("6 of 6 records leak")
    assert frame.evaluate("[...document.images].every(i => i.naturalWidth === 16)")
    frame.locator("nav a").first.click()
    assert frame.url == "about:srcdoc#ways"
    assert frame.locator("h1").count() == 1
    page.close()
    assert troubles == []
