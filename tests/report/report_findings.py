"""Findings made by hand, so that these tests need no attack."""

from typing import Any

import torch
from torch import Generator

from gradleak.examination.findings import Finding, Findings

UNSET = object()


def finding(
    *, shape: tuple[int, ...] = (3, 32, 32), guess: Any = UNSET, seed: int = 0, **facts: Any
) -> Finding:
    rng = Generator().manual_seed(seed)
    truth = torch.rand(shape, generator=rng)
    noisy = (truth + 0.05 * torch.randn(shape, generator=rng)).clamp(0, 1)
    known: dict[str, Any] = {
        "name": "a picture",
        "truth": truth,
        "guess": noisy if guess is UNSET else guess,
        "null": torch.full(shape, 0.5),
        "psnr": 26.0,
        "null_psnr": 10.0,
        "random_psnr": 8.0,
        "ssim": 0.9,
        "null_ssim": 0.1,
        "label": 3,
        "label_guess": 3,
        "score": 1e-4,
        "outcome": "converged",
        "reason": "",
        "matching_gradients": 1200,
        "seconds": 3.5,
    }
    return Finding(**known | facts)


def findings(*found: Finding, **facts: Any) -> Findings:
    known: dict[str, Any] = {
        "title": "a test",
        "model": "LeNet, 15,826 parameters",
        "attack": "inverting_gradients",
        "assumptions": ("model", "parameters", "client OneGradient()"),
        "label_agreement": 1.0,
        "null_label_agreement": 0.1,
        "seed": 7,
        "trials": 4,
        "versions": {"gradleak": "0.1.0", "torch": "2.6"},
        "bibtex": "@article{someone}",
    }
    return Findings(findings=found, **known | facts)
