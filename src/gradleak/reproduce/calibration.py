"""One attack after another beside what was predicted of it, over the whole calibration set."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from gradleak.attacks import Outcome, Reconstruction
from gradleak.observe import Observation, OneGradient, observe
from gradleak.randomness import Rng
from gradleak.reproduce.calibration_set import ATTACKERS, NETWORKS, SETTINGS, Attacker, Network, Setting
from gradleak.reproduce.sample import sample
from gradleak.reproduce.table import Told
from gradleak.risk.decibels import decibels
from gradleak.risk.gram import Spectrum, jacobian, spectrum
from gradleak.risk.influence import influence_of
from gradleak.trees import norm, subtract

_LARGEST = 16  # a side; larger pictures are halved


@dataclass(frozen=True)
class Point:
    """One attack on one update. Errors are root mean squares over a picture's pixels.

    ``decibels`` is None where the server does not know of the defense: that number is of one who does.
    """

    family: str
    network: str
    data: str
    picture: int
    defense: str
    level: str
    attack: str
    prior: bool
    influence: float
    decibels: float | None
    reached: float
    gray: float
    arrived: bool
    outcome: Outcome
    score: float
    gradients: int
    seconds: float


def pictures(name: str, n: int) -> tuple[Tensor, Tensor]:
    """Few pixels, so that hundreds of attacks take minutes: at most 16 x 16, and faces are gray."""
    one = sample(name, n)
    x = one.x.double()
    if name == "faces":
        x = x.mean(1, keepdim=True)
    return (avg_pool2d(x, 2) if x.shape[-1] > _LARGEST else x), one.y % 10


def points(
    n: int,
    data: Sequence[str],
    tell: Told,
    *,
    networks: Sequence[Network] = NETWORKS,
    settings: Sequence[Setting] = SETTINGS,
    attackers: Sequence[Attacker] = ATTACKERS,
) -> Iterator[Point]:
    """Every network on the first ``n`` pictures of every set, under every setting, by every attacker."""
    done, all_ = 0, len(data) * len(networks) * n
    for name in data:
        xs, ys = pictures(name, n)
        for network in networks:
            for i in range(n):
                tell(f"{network.name}, picture {i + 1} of {n}, {name}", done / all_)
                model = network.build(xs.shape[1], xs.shape[2], i).double()
                told = _Told(model, xs[i : i + 1], ys[i : i + 1])
                for number, setting in enumerate(settings):
                    seen = told.under(setting, rng=1000 * i + number)
                    for attacker in attackers:
                        if attacker.tries(setting):
                            yield told.point(network, name, i, setting, seen, attacker)
                done += 1


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a server holds under a setting, and what is predicted of it."""

    obs: Observation
    influence: float
    decibels: float | None


class _Told:
    """One picture on one network; what does not depend on the setting is computed once."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.model, self.x, self.y = model, x, y
        self.clear = observe(model, x, y)
        self.spectrum = spectrum(jacobian(self.clear, x, y))
        entries = sum(leaf.numel() for leaf in self.clear.update.values())
        self.size = float(norm(self.clear.update)) / math.sqrt(entries)

    def under(self, setting: Setting, rng: Rng) -> _Seen:
        client = setting.client(self.size)
        obs = observe(
            self.model,
            self.x,
            self.y,
            client=client,
            assumed=client if setting.seen else OneGradient(),
            reveal=("labels",),
            rng=rng,
        )
        return _Seen(obs, self._influence(obs, setting), self._decibels(obs) if setting.seen else None)

    def _influence(self, obs: Observation, setting: Setting) -> float:
        told: Spectrum = spectrum(jacobian(obs, self.x, self.y)) if setting.hides else self.spectrum
        change = subtract(obs.update, obs.simulate(self.x, self.y))
        return float(influence_of(told, perturbation=change).rmse[0])

    def _decibels(self, obs: Observation) -> float:
        return 10 ** (-float(decibels(obs, self.x, self.y).psnr[0, 0]) / 20)

    def point(
        self, network: Network, data: str, i: int, setting: Setting, seen: _Seen, attacker: Attacker
    ) -> Point:
        found: Reconstruction = attacker.attack(seen.obs, rng=i)
        x = torch.full_like(self.x, math.inf) if found.x is None else found.x
        return Point(
            family=network.family,
            network=network.name,
            data=data,
            picture=i,
            defense=setting.defense,
            level=setting.level,
            attack=attacker.name,
            prior=attacker.prior,
            influence=seen.influence,
            decibels=seen.decibels,
            reached=float((x - self.x).square().mean().sqrt()),
            gray=float((self.x - 0.5).square().mean().sqrt()),
            arrived=attacker.arrived(found, seen.obs, self.x, self.y),
            outcome=found.outcome,
            score=found.score,
            gradients=found.cost.matching_gradients,
            seconds=found.cost.seconds,
        )
