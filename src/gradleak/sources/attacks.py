"""An attack by its name, with the hyper-parameters that a command line may set."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from gradleak.attacks import ATTACKS, Attack
from gradleak.errors import InvalidInput
from gradleak.text import TEXT_ATTACKS

COUNTS = ("trials", "steps", "evaluations", "rounds", "polish")
"""What a spec may set: starts, and how long each of them may take; of texts, how often words are settled, and
how many changes of words are tried."""


def named(name: str, *, trials: int | None = None, steps: int | None = None) -> Attack:
    """None leaves an attack its own default. Closed forms have no random start, and so no trials."""
    if name not in ATTACKS:
        near = get_close_matches(name, ATTACKS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidInput(f"expected an attack among {', '.join(ATTACKS)}; came '{name}'{hint}")
    takes = inspect.signature(ATTACKS[name]).parameters
    if trials not in (None, 1) and "trials" not in takes:
        raise InvalidInput(f"{name} computes its answer and has no starts to try; leave --trials away")
    if steps is not None and "steps" not in takes:
        others = [n for n, build in ATTACKS.items() if "steps" in inspect.signature(build).parameters]
        raise InvalidInput(
            f"{name} has no number of steps to set; leave --steps away, or take one of {', '.join(others)}"
        )
    said = {"trials": trials, "steps": steps}
    return ATTACKS[name](**{key: value for key, value in said.items() if value is not None and key in takes})


def of_spec(spec: str, *, most: int | None = None) -> Attack:
    """From "dlg" or "dlg:trials=4,evaluations=500" to an attack.

    ``most`` matching gradients are what it may spend on one observation: its steps or evaluations are cut,
    unless the spec says them.
    """
    name, _, rest = spec.partition(":")
    counts = _counts(name, rest)
    attack = _builder(name)(**counts)
    lengths = [key for key in ("steps", "evaluations") if key in _counted(name)]
    if most is None or attack.budget <= most or not lengths or counts.keys() & set(lengths):
        return attack
    return _shortened(name, counts, lengths[0], most)


def _shortened(name: str, counts: Mapping[str, int], length: str, most: int) -> Attack:
    """The longest that keeps to ``most``, found by halving, as attacks count in ways of their own."""
    few, many = 1, inspect.signature(_builder(name)).parameters[length].default
    least = _builder(name)(**counts, **{length: few})
    if least.budget > most:
        raise InvalidInput(
            f"expected {least.budget} matching gradients or more, since {name} takes no fewer; came {most}"
        )
    while many - few > 1:
        middle = (few + many) // 2
        fits = _builder(name)(**counts, **{length: middle}).budget <= most
        few, many = (middle, many) if fits else (few, middle)
    return _builder(name)(**counts, **{length: few})


def on_texts(spec: str) -> bool:
    """Whether an attack is one on texts."""
    return spec.partition(":")[0] in TEXT_ATTACKS


def _builder(name: str) -> Callable[..., Attack]:
    known: dict[str, Callable[..., Attack]] = ATTACKS | TEXT_ATTACKS
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidInput(f"expected an attack among {', '.join(known)}; came '{name}'{hint}")
    return known[name]


def _counts(name: str, text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    takes = _counted(name)
    for part in [part.strip() for part in text.split(",") if part.strip()]:
        key, equals, value = (one.strip() for one in part.partition("="))
        if not equals:
            raise InvalidInput(f"expected settings as NAME=NUMBER, as in \"dlg:trials=4\"; came '{part}'")
        if key not in takes:
            near = get_close_matches(key, takes, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            allowed = f"it takes {', '.join(takes)}" if takes else "it has none to set"
            raise InvalidInput(f"{name} has no setting '{key}'{hint}; {allowed}")
        if key in found:
            raise InvalidInput(f"expected {key} once; it came twice in '{name}:{text}'")
        if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 0):
            raise InvalidInput(f"expected {key} as a whole number of 1 or more; came '{value}'")
        found[key] = int(value)
    return found


def _counted(name: str) -> list[str]:
    return [key for key in COUNTS if key in inspect.signature(_builder(name)).parameters]
