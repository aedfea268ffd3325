"""What a run says of itself, as plain JSON: enough to report on it without the model and the data."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from gradleak.cases.chain import cases, chains
from gradleak.cases.done import Facts
from gradleak.cases.store import words_file
from gradleak.cases.work import Work
from gradleak.identity import identity
from gradleak.observe import Client
from gradleak.observe.uncertainty import Defended
from gradleak.references import cite


def facts_of(
    work: Work,
    *,
    title: str,
    class_names: Mapping[int, str] | None = None,
    plan: Mapping[str, Any] | None = None,
) -> Facts:
    """Runs of the same "same" are one: the later one goes on where the earlier one ended."""
    weights = sum(p.numel() for p in work.model.parameters())
    return {
        "title": title,
        "of": work.kind.scale.noun,
        "same": _same(work, title),
        "finished": False,
        "stopped": "",
        "model": f"{type(work.model).__name__}, {weights:,} parameters",
        "null": work.kind.null,
        "data": identity(list(work.batches)),
        "seed": work.seed,
        "starts": work.starts,
        "target": work.target,
        "attacks": list(work.attacks),
        "settings": {name: repr(attack) for name, attack in work.attacks.items()},
        "loss": "cross entropy" if work.loss is None else getattr(work.loss, "__name__", repr(work.loss)),
        "normalization": None if work.kind.normalization is None else repr(work.kind.normalization),
        "skipped": {way: work.skipped(way) for way in work.ways},
        "versions": {name: version(name) for name in ("gradleak", "torch", "numpy")},
        "bibtex": cite(*work.attacks.values()),
        "plan": dict(plan or {}),
        "inner": {
            "samples": _samples(work, class_names or {}),
            "batches": _batches(work),
            "vocabulary": words_file(work.kind.vocabulary),
            "ways": [
                {"name": name, "client": repr(client), "defenses": defenses_of(client)}
                for name, client in work.ways.items()
            ],
            "rungs": list(work.rungs),
            "left": [],
        },
    }


def defenses_of(client: Client) -> list[str]:
    """The kinds of defenses around a client, the innermost first."""
    found = []
    while isinstance(client, Defended):
        found.append(type(client).__name__)
        client = client.client
    return found[::-1]


def _samples(work: Work, class_names: Mapping[int, str]) -> list[Facts]:
    found = []
    for group, (_, y) in enumerate(work.batches):
        labels: Sequence[int | None] = (
            y.tolist() if y.dim() == 1 and not y.is_floating_point() else [None] * len(y)
        )
        for name, label in zip(work.names[group], labels, strict=True):
            called = "" if label is None else class_names.get(label, str(label))
            found.append(
                {
                    "name": _shown(name),
                    "batch": group,
                    "label": label,
                    "label_name": _shown(called),
                }
            )
    return found


def _shown(name: str) -> str:
    """On one line, whatever a file was called."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


def _batches(work: Work) -> list[Facts]:
    first, found = 0, []
    for group, (x, _) in enumerate(work.batches):
        samples = list(range(first, first + len(x)))
        found.append({"file": work.batch_name(group), "samples": samples})
        first += len(x)
    return found


def _same(work: Work, title: str) -> str:
    """A hash of every case that might be run."""
    keys = [work.key(case) for chain in chains(work) for case in cases(chain)]
    said = {"title": title, "keys": keys, "ways": list(work.ways), "attacks": list(work.attacks)}
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]
