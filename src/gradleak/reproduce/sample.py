"""The pictures that tables are made on: test sets as published where they were fetched, else bundled ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from gradleak import zoo
from gradleak.errors import InvalidInput
from gradleak.observe import Observation, observe
from gradleak.zoo import datasets

BUNDLED = {"faces": 32, "photos": 32, "digits": 8}
"""By name, the height and width at which they are attacked."""

DATA = (*datasets.DATASETS, *BUNDLED)
_CLASSES = 10
_OTHERS = 20


@dataclass(frozen=True, eq=False)
class Sample:
    """Pictures of one set with labels from 0 to 9, as MNIST and CIFAR-10 have them."""

    name: str
    x: Tensor  # [N, C, H, W]
    y: Tensor  # [N]

    def __len__(self) -> int:
        return len(self.x)

    def lenet(self, seed: int) -> nn.Sequential:
        """DLG's LeNet for these pictures, untrained; papers since iDLG draw a new one per picture."""
        return zoo.lenet(_CLASSES, self.x.shape[1], self.x.shape[2], seed=seed)

    def cases(self) -> list["Case"]:
        """Each picture alone, on a network of its own."""
        return [self.case([i], seed=i) for i in range(len(self))]

    def case(self, which: list[int], seed: int) -> "Case":
        x, y = self.x[which], self.y[which]
        return Case(x, y, observe(self.lenet(seed), x, y))


@dataclass(frozen=True, eq=False)
class Case:
    """A private batch and what a server saw of it."""

    x: Tensor
    y: Tensor
    obs: Observation


def sample(name: str, n: int, split: str = "test") -> Sample:
    """The first ``n`` pictures of a test set in its own order, or of a bundled set, which has no splits."""
    if name in datasets.DATASETS:
        return Sample(name, *datasets.load(name, split, n))
    if name not in BUNDLED:
        raise InvalidInput(f"expected data among {', '.join(DATA)}; came '{name}'")
    held = zoo.PICTURES[name].count
    if n > held:
        raise InvalidInput(f"{name} holds {held} pictures; came --pictures that need {n}. Ask for fewer.")
    x, y = zoo.pictures(name, size=BUNDLED[name], n=n)
    return Sample(name, x, y % _CLASSES)


def public(name: str, private: int) -> Sample:
    """What shares nothing with the private pictures: training pictures, or a bundled set's others."""
    if name in BUNDLED:
        more = sample(name, private + _OTHERS)
        return Sample(name, more.x[private:], more.y[private:])
    return sample(name, 10 * _OTHERS, split="train")


def mixed(n: int, data: Sequence[str]) -> list[Tensor]:
    """Colour pictures of 32 x 32, of several sets in turn."""
    each = -(-n // len(data))
    sets = [sample(name, each).x for name in data]
    for name, x in zip(data, sets, strict=True):
        if x.shape[1:] != (3, 32, 32):
            raise InvalidInput(
                f"this table is of colour pictures of 32 x 32; came {name}, {list(x.shape[1:])}"
            )
    return [x[i : i + 1] for i in range(each) for x in sets][:n]


def batches(one: Sample, size: int, count: int) -> list[list[int]]:
    """Which pictures go together: the next ones whose labels all differ."""
    left, found = list(range(len(one))), []
    for _ in range(count):
        batch: list[int] = []
        for i in left:
            if len(batch) < size and int(one.y[i]) not in {int(one.y[j]) for j in batch}:
                batch.append(i)
        if len(batch) < size:
            raise InvalidInput(
                f"{one.name} has no {count} batches of {size} different labels among {len(one)} pictures"
            )
        left = [i for i in left if i not in batch]
        found.append(batch)
    return found
