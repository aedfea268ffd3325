"""Which attacks, and which rungs, a plan's words stand for."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from gradleak.attacks import Attack
from gradleak.errors import InvalidInput
from gradleak.sources.attacks import of_spec
from gradleak.threats.rungs import RUNGS

AUTO = "auto"
LADDERS = ("all", "ends")
LEVELS = ("quick", "standard", "thorough")
STARTS = {"quick": 1, "standard": 1, "thorough": 3}
"""How often each attack begins anew, by level."""

FORECAST_STEPS = {"quick": 40, "standard": 150, "thorough": 600}
"""Of a forecast for large batches, by level; fewer err towards too much leakage, and it says so."""

# A step of the router's map costs tens to hundreds of matching gradients, and evaluations bound its steps.
_ROUTER = {
    "quick": "ssras:evaluations=5",
    "standard": "ssras",
    "thorough": "ssras:trials=2",
}
_SMOOTH = {
    "quick": "dlg:evaluations=500",
    "standard": "dlg:trials=2",
    "thorough": "dlg:trials=4",
}
_KINKED = {
    "quick": "inverting_gradients:steps=300",
    "standard": "inverting_gradients",
    "thorough": "inverting_gradients:trials=2,steps=4800",
}
# A descent on words costs minutes where `dager` takes seconds, and is the way where that cannot be run.
_TEXTS = {
    "quick": ("dager", "dlg_text:evaluations=60,rounds=1,polish=100"),
    "standard": ("dager", "dlg_text"),
    "thorough": ("dager", "dlg_text:trials=2", "tag", "lamp"),
}
_RUNGS = tuple(rung.name for rung in RUNGS)


def attacks_for(
    specs: Sequence[str], level: str, *, kinked: bool = False, texts: bool = False, most: int | None = None
) -> dict[str, Attack]:
    """By what they are called here, from cheap to dear.

    "auto" is the router, and then a second opinion that its closed forms have no say in. Of texts it is
    exact reading, and then descents. ``most`` matching
    gradients are what each may spend on one update, where no number of steps or evaluations was said.
    """
    if list(specs) == [AUTO]:
        second = (_KINKED if kinked else _SMOOTH)[level]
        chosen = _TEXTS[level] if texts else (_ROUTER[level], second)
        return {_name(spec): _capped(spec, most) for spec in chosen}
    found = {spec: of_spec(spec, most=most) for spec in specs}
    return dict(sorted(found.items(), key=lambda item: item[1].budget))


def require_attack(spec: str) -> str:
    if spec != AUTO:
        of_spec(spec)
    return spec


def require_attacks(specs: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse none, what is said twice, and "auto" beside others."""
    if not specs:
        raise InvalidInput('expected an attack, or "auto"; came an empty list')
    _require_alone((AUTO,), "attacks", specs)
    _require_once("attack", specs)
    return specs


def ladder_for(words: Sequence[str], skipped: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    """Names of rungs, from a server that knows everything down.

    ``skipped`` has the rungs that show nothing of their own, for every way of training: "ends" are the first
    and the last of what is left of each.
    """
    if list(words) == ["all"]:
        return _RUNGS
    if list(words) == ["ends"]:
        left = [[name for name in _RUNGS if name not in one] for one in skipped]
        ends = {name for rungs in left for name in (rungs[0], rungs[-1])}
        return tuple(name for name in _RUNGS if name in ends)
    return tuple(name for name in _RUNGS if name in words)


def require_rung(word: str) -> str:
    known = (*LADDERS, *_RUNGS)
    if word not in known:
        near = get_close_matches(word, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidInput(f"expected one of {_quoted(known)}; came '{word}'{hint}")
    return word


def require_rungs(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise InvalidInput(f"expected one of {_quoted((*LADDERS, *_RUNGS))}; came an empty list")
    _require_alone(LADDERS, "ladder", words)
    _require_once("rung", words)
    return words


def _capped(spec: str, most: int | None) -> Attack:
    """Of "auto", the numbers are ours, and give way."""
    attack = of_spec(spec)
    return attack if most is None or attack.budget <= most else of_spec(_name(spec), most=most)


def _name(spec: str) -> str:
    return spec.partition(":")[0]


def _require_alone(special: Sequence[str], key: str, words: Sequence[str]) -> None:
    for word in special:
        if word in words and len(words) > 1:
            raise InvalidInput(f'expected "{word}" alone, as in {key} = "{word}"; it came beside others')


def _require_once(what: str, words: Sequence[str]) -> None:
    twice = [word for i, word in enumerate(words) if word in words[:i]]
    if twice:
        raise InvalidInput(f"expected every {what} once; came '{twice[0]}' twice")


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
