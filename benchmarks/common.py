"""What the measurements share: the pairs of picture and network that they look at, and one table."""

import json
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import gradleak as gl

CLASSES = 100


SETS = ("faces", "photos")


def pairs(n: int, size: int = 32, sets: Sequence[str] = SETS) -> list[tuple[Tensor, Tensor]]:
    """``n`` pictures with labels, at most 20 of each of ``sets``, in turn; ``("faces",)`` for faces alone.

    Only the faces, 0 to 19, are independent of the defaults: those were chosen on faces 30 to 59, on
    photographs 20 to 59 and on networks with seeds from 100 on. Photographs 0 to 19 are other crops, but
    crops of the same six photographs, and overlap with those that the defaults were chosen on.
    """
    most = 20 * len(sets)
    if n > most:
        raise ValueError(f"{', '.join(sets)} hold {most} pictures that are not used elsewhere; came {n}")
    found = [gl.zoo.pictures(name, size=size, n=20)[0] for name in sets]
    pictures = torch.stack([one for row in zip(*found, strict=True) for one in row])[:n]
    return [(pictures[i : i + 1], torch.tensor([(37 * i + 11) % CLASSES])) for i in range(n)]


def public() -> Tensor:
    """Pictures that no measurement attacks, for the null baseline.

    The photographs' crops overlap with attacked ones, which can only make the null too strong.
    """
    return torch.cat([gl.zoo.pictures("faces")[0][50:], gl.zoo.pictures("photos")[0][20:]])


def show(title: str, rows: Sequence[dict[str, object]], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"title": title, "rows": rows}, indent=2))
        return
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for heading in rows[0]:
        table.add_column(heading, justify="left" if isinstance(rows[0][heading], str) else "right")
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=140).print(table)
