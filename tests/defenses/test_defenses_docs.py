"""The page on defenses runs, and leaves none out."""

import re
from pathlib import Path

import torch

import gradleak as gl

PAGE = (Path(__file__).parents[2] / "docs/defenses.md").read_text(encoding="utf-8")


def test_the_page_runs():
    names: dict = {"__name__": "docs"}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(code, "defenses.md", "exec"), names)
    assert set(names["dropped"].told_client.mask.tolist()) == {0.0, 2.0}
    noisy = names["noisy"].uncertainty["linear.weight"]  # kept entries are off by the noise, others unseen
    assert bool((noisy.isinf() | (noisy < 2e-3)).all())
    assert bool(noisy.isfinite().any())
    assert isinstance(names["learning"].client, gl.defenses.LearntMask)
    assert torch.isfinite(names["found"].x).all()
    assert names["later"].client.residual is None


def test_every_defense_is_described():
    rows = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(kind.__name__ for kind in gl.defenses.DEFENSES.values())
