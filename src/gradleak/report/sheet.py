"""One PNG with every private picture beside its best guess and its null, for a slide or a ticket."""

import math
from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gradleak.examination.findings import Finding, Findings
from gradleak.report import wording
from gradleak.report.exposure import by_exposure
from gradleak.report.pictures import encoded, image

PER_SHEET = 24
SIDE, LARGEST = 128, 256  # a small picture is enlarged to at most SIDE; a large one is shrunk to LARGEST
MARGIN, GAP, GUTTER = 40, 8, 44
LINE = 20
PAPER, INK, SOFT, RULE, ACCENT = "#fcfbf8", "#1c1b19", "#5d5a54", "#dcd8d0", "#a8321c"

Box = tuple[int, int]  # width, height


def contact_sheet(findings: Findings) -> bytes:
    """The (at most 24) most exposed pictures: true, recovered, null guess, with their decibels."""
    ordered = by_exposure(findings)
    shown = ordered[:PER_SHEET]
    rows = [[enlarged(p) for p in (f.truth, f.guess, f.null)] for _, f in shown]
    cell = _largest([tile for row in rows for tile in row if tile is not None])
    group = (3 * cell[0] + 2 * GAP, cell[1] + 4 * LINE)
    columns = min(4, math.ceil(math.sqrt(len(shown))))
    width = 2 * MARGIN + columns * group[0] + (columns - 1) * GUTTER
    title = _wrapped(findings.verdict, _font(22, bold=True), width - 2 * MARGIN)
    note = _wrapped(_note(findings, len(shown)), _font(14), width - 2 * MARGIN)
    top = MARGIN + 30 * len(title) + LINE * len(note) + LINE
    height = top + math.ceil(len(shown) / columns) * (group[1] + GUTTER) - GUTTER + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _head(draw, title, note)
    for k, ((number, finding), tiles) in enumerate(zip(shown, rows, strict=True)):
        corner = (MARGIN + k % columns * (group[0] + GUTTER), top + k // columns * (group[1] + GUTTER))
        _group(sheet, draw, corner, cell, number, finding, tiles)
    return encoded(sheet)


def enlarged(picture: Tensor | None) -> Image.Image | None:
    """By a whole number, pixel for pixel, so that what is seen is what was recovered."""
    small = None if picture is None else image(picture)
    if small is None:
        return None
    if max(small.size) > LARGEST:
        small.thumbnail((LARGEST, LARGEST))
        return small
    scale = max(1, SIDE // max(small.size))
    return small.resize((scale * small.width, scale * small.height), Image.Resampling.NEAREST)


def _largest(tiles: list[Image.Image]) -> Box:
    # Captions need some room even below a tiny picture.
    return max([SIDE - 16, *(t.width for t in tiles)]), max([SIDE // 4, *(t.height for t in tiles)])


def _note(findings: Findings, shown: int) -> str:
    total = len(findings.findings)
    parts = [findings.title, findings.model]
    if shown < total:
        parts.append(f"the {shown} most exposed of {total} pictures")
    if findings.interrupted:
        parts.append("the run was interrupted: these are the best guesses until then")
    return _one_line(" · ".join(parts))


def _head(draw: ImageDraw.ImageDraw, title: list[str], note: list[str]) -> None:
    y = MARGIN
    for line in title:
        draw.text((MARGIN, y), line, fill=INK, font=_font(22, bold=True))
        y += 30
    for line in note:
        draw.text((MARGIN, y), line, fill=SOFT, font=_font(14))
        y += LINE


def _group(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: Box,
    cell: Box,
    number: int,
    finding: Finding,
    tiles: list[Image.Image | None],
) -> None:
    x, y = corner
    width = 3 * cell[0] + 2 * GAP
    _heading(draw, corner, width, number, finding)
    y += LINE + 6
    captions = (
        ("true", ""),
        ("recovered", wording.recovered_psnr(finding)),
        ("null guess", wording.null_psnr(finding.null_psnr)),
    )
    for tile, (what, value) in zip(tiles, captions, strict=True):
        if tile is None:
            draw.rectangle((x, y, x + cell[0] - 1, y + cell[1] - 1), outline=RULE)
        else:
            sheet.paste(tile, (x, y + cell[1] - tile.height))
        draw.text((x, y + cell[1] + 6), what, fill=SOFT, font=_font(13))
        bold = what == "recovered"
        draw.text((x, y + cell[1] + 6 + LINE), value, fill=INK, font=_font(14, bold=bold))
        x += cell[0] + GAP


def _heading(draw: ImageDraw.ImageDraw, corner: Box, width: int, number: int, finding: Finding) -> None:
    """A full square and the word for a leak, an empty one for none: colour only repeats them."""
    x, y = corner
    colour = ACCENT if finding.leaked else SOFT
    verdict = "leaked" if finding.leaked else "not leaked"
    font, bold = _font(13), _font(13, bold=finding.leaked)
    room = int(bold.getlength(verdict)) + 18
    name = _cut(_one_line(f"{number}  {finding.name}"), font, width - room - GAP)
    draw.text((x, y), name, fill=INK, font=font)
    left = x + width - room
    draw.rectangle((left, y + 3, left + 10, y + 13), outline=colour, fill=colour if finding.leaked else None)
    draw.text((left + 18, y), verdict, fill=colour, font=bold)


@lru_cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib brings this one along, so that a sheet looks the same on every machine.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_cut(word, font, width))
    return lines
