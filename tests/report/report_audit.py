"""Records of audits made by hand, so that these tests run no attack."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Generator, Tensor

from gradleak.cases import Case, Left, Record
from gradleak.cases.case import ATTACK, FORECAST, KNOWS, KNOWS_NOT
from gradleak.cases.done import Done, Sample, Way

RUNGS = ("everything known", "no labels", "clients summed")
NULL, NOISE = 10.0, 8.0
CLASSES = ("cat", "dog", "<script>throw Error('a class')</script>", "a | b * c")


@dataclass(frozen=True)
class Made:
    """Pictures as noisy as their number of decibels says."""

    shape: tuple[int, ...]
    psnr: dict[str, list[float]] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    vocabulary: None = None

    def truth(self, sample: int) -> Tensor | None:
        return smooth(self.shape, sample)

    def null(self, sample: int) -> Tensor | None:
        return torch.full(self.shape, 0.5)

    def guess(self, key: str, place: int) -> Tensor | None:
        truth = smooth(self.shape, self.first[key] + place)
        off = 10 ** (-min(self.psnr[key][place], 60.0) / 20)
        noise = torch.randn(self.shape, generator=Generator().manual_seed(place))
        return (truth + off * noise).clamp(0, 1)


def smooth(shape: tuple[int, ...], seed: int) -> Tensor:
    rng = Generator().manual_seed(seed)
    coarse = torch.rand((1, shape[0], 5, 5), generator=rng)
    fine = torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic")
    return (fine[0] + 0.05 * torch.rand(shape, generator=rng)).clamp(0, 1)


def row(psnr: float, label: int = 0, **facts: Any) -> dict[str, Any]:
    """As an examination writes it into a case."""
    leak = psnr - NULL
    known = {
        "name": "not read",
        "psnr": psnr,
        "null_psnr": NULL,
        "random_psnr": NOISE,
        "leak": leak,
        "leaked": leak >= 6.0,
        "ssim": 0.8,
        "null_ssim": 0.1,
        "label": label,
        "label_guess": label,
        "guessed": True,
        "score": 1e-3,
        "outcome": "converged",
        "reason": "",
        "matching_gradients": 120,
        "seconds": 1.5,
    }
    return {key: _plain(value) for key, value in (known | facts).items()}


def attacked(case: Case, samples: range, psnr: list[float], **facts: Any) -> Done:
    known = {
        "outcome": "converged",
        "reason": "",
        "score": 1e-3,
        "rows": [row(value, i % len(CLASSES)) for i, value in zip(samples, psnr, strict=True)],
        "label_agreement": 1.0,
        "null_label_agreement": 0.25,
        "labels_given": case.rung == RUNGS[0],
        "assumptions": ["model", "parameters", "update", "client OneGradient()", "batch size 2"],
        "trials": 1,
        "matching_gradients": 120,
        "seconds": 1.5,
    }
    return Done(case, tuple(samples), key_of(case), known | facts)


def foretold(way: str, group: int, samples: range, psnr: list[float]) -> Done:
    case = Case(FORECAST, way, group)
    said = [
        {
            "verdict": "recoverable" if value >= NULL + 6 else "in part",
            "psnr": _plain(value),
            "null_psnr": NULL,
            "label_read": True,
            "reasons": ["the update shows 12 of 20 directions"],
        }
        for value in psnr
    ]
    return Done(case, tuple(samples), key_of(case), {"verdict": "some leak", "samples": said, "seconds": 0.2})


def key_of(case: Case) -> str:
    return "-".join(str(value).replace(" ", "_") for value in case.to_dict().values())


LONG = "local training with a name that is long: " + "very " * 12 + "long"
WAYS = {
    "fedsgd": (Way("fedsgd", "OneGradient()", ()), 40.0),
    "weak": (
        Way("fedsgd, gaussian:std=0.01", "GaussianNoise(client=OneGradient())", ("GaussianNoise",)),
        20.0,
    ),
    "strong": (Way("fedsgd, clip & <b>noise</b>", "Noise(client=Clip())", ("Clip", "Noise")), 6.0),
    "local": (Way(LONG, "LocalSGD(epochs=2)", ()), math.inf),
}
"""Each with the decibels of its first record on the first rung."""


def audit(
    *ways: str, records: int = 6, per: int = 2, shape: tuple[int, ...] = (3, 16, 16), **facts: Any
) -> Record:
    """Every way reaches its own decibels at the first record and on the first rung, and less further on."""
    ways = ways or tuple(WAYS)
    samples = tuple(
        Sample(f"record {i + 1}", i // per, i % len(CLASSES), CLASSES[i % len(CLASSES)])
        for i in range(records)
    )
    done: list[Done] = []
    for way, reached in (WAYS[name] for name in ways):
        for group in range(records // per):
            members = range(group * per, (group + 1) * per)
            done.append(foretold(way.name, group, members, [reached - 0.5 * i for i in members]))
            for step, rung in enumerate(RUNGS[:2]):
                for who in (KNOWS_NOT, KNOWS) if way.defenses else (KNOWS,):
                    case = Case(ATTACK, way.name, group, rung, who, "dlg")
                    worse = 5.0 * step + (2.0 if who == KNOWS_NOT else 0.0)
                    done.append(attacked(case, members, [reached - i - worse for i in members]))
    attacks = [one for one in done if one.case.kind == ATTACK]
    pictures = Made(
        shape,
        {one.key: [found.value for found in one.rows] for one in attacks},
        {one.key: one.samples[0] for one in attacks},
    )
    known = {
        "title": "An audit of <em>tests</em>",
        "same": "same",
        "finished": True,
        "stopped": "",
        "model": "LeNet, 15,826 parameters",
        "null": "mid-gray",
        "seed": 7,
        "starts": 1,
        "target": 20.0,
        "attacks": ["dlg", "gdl"],
        "skipped": {
            WAYS[name][0].name: {"clients summed": "it takes 2 clients, and 1 came"} for name in ways
        },
        "versions": {"gradleak": "0.1.0", "torch": "2.6"},
        "bibtex": "@article{someone}",
        "plan": {"title": "An audit", "model": {"build": "lenet"}},
    }
    return Record(
        number=3,
        facts=known | facts,
        samples=samples,
        ways=tuple(WAYS[name][0] for name in ways),
        rungs=RUNGS,
        done=tuple(done),
        left=(),
        contents=pictures,
    )


def troubled(record: Record) -> Record:
    """The same with a case that failed, one that was spared and one that is missing."""
    way = record.ways[0].name
    broken = Case(ATTACK, way, 0, RUNGS[0], KNOWS, "gdl")
    failed = Done(broken, (0, 1), key_of(broken), {"error": "RuntimeError: <script>out</script> of memory"})
    spared = Left(Case(ATTACK, way, 1, RUNGS[0], KNOWS, "gdl"), "dlg is well past the target", spared=True)
    missing = Left(Case(ATTACK, way, 2, RUNGS[0], KNOWS, "gdl"), "interrupted", spared=False)
    return replace(
        record,
        facts=record.facts | {"finished": False, "stopped": "interrupted"},
        done=(*record.done, failed),
        left=(spared, missing),
    )


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
