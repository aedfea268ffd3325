"""Defenses by name, with the strengths that a line of text sets."""

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from math import nan
from typing import Any, cast

from gradleak.defenses import DEFENSES, Defense
from gradleak.errors import InvalidInput
from gradleak.observe import Client


def defended(client: Client, specs: tuple[str, ...]) -> Client:
    """The client with every defense around it, in the order in which they were said."""
    for spec in specs:
        client = _around(client, spec)
    return client


def _around(client: Client, spec: str) -> Defense:
    name, _, rest = spec.partition(":")
    if name not in DEFENSES:
        raise InvalidInput(
            f"expected a defense among {', '.join(DEFENSES)}; came '{name}'{_near(name, DEFENSES)}"
        )
    kind, strengths = DEFENSES[name], _strengths(DEFENSES[name])
    said: dict[str, str] = {}
    for key, value in (_pair(name, part) for part in rest.split(",") if part.strip()):
        if key in said:
            raise InvalidInput(f"expected {key} once; came '{said[key]}' and '{value}' in '{spec}'")
        said[key] = value
    if unknown := [key for key in said if key not in strengths]:
        raise InvalidInput(
            f"{name} has no strength '{unknown[0]}'{_near(unknown[0], strengths)}; it takes "
            f"{_takes(kind, strengths)}"
        )
    missing = [key for key, field in strengths.items() if _required(field) and key not in said]
    if missing:
        raise InvalidInput(
            f"expected {name}'s {' and '.join(missing)}, as in \"{name}:{missing[0]}=...\"; came '{spec}'. "
            f"It takes {_takes(kind, strengths)}"
        )
    return kind(client, **{key: _value(strengths[key], text) for key, text in said.items()})


def _strengths(kind: type[Defense]) -> dict[str, Field[Any]]:
    """What one sets: neither the client inside, nor what is found out on the way."""
    return {f.name: f for f in fields(kind) if f.init and f.repr and f.name != "client"}


def _pair(name: str, text: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not value:
        raise InvalidInput(
            f"expected strengths as NAME=VALUE with commas, as in \"{name}:std=1e-3\"; came '{text}'"
        )
    return key, value


def _value(field: Field[Any], text: str) -> Any:
    """The text as what the strength is: a layer "1" stays a name."""
    if field.type is bool:
        words = {"true": True, "yes": True, "false": False, "no": False}
        if text.lower() not in words:
            raise InvalidInput(f"expected {field.name} as true, yes, false or no; came '{text}'")
        return words[text.lower()]
    if field.type is float:
        try:
            return float("no number" if "_" in text else text)
        except ValueError:
            raise InvalidInput(f"expected {field.name} as a number; came '{text}'") from None
    if field.name == "layers":
        return tuple(part.strip() for part in text.split("+"))
    return None if field.type == str | None and text.lower() == "none" else text


def _near(name: str, known: Any) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _takes(kind: type[Defense], strengths: dict[str, Field[Any]]) -> str:
    return "; ".join(_range(kind, strengths, name) for name in strengths) or "none"


def _range(kind: type[Defense], strengths: dict[str, Field[Any]], name: str) -> str:
    """A strength with what it may be, which the defense says itself when it is handed what is no number."""
    others = {other: nan for other, field in strengths.items() if _required(field)}
    told, build = "", cast(Callable[..., Defense], kind)
    try:
        build(**(others | {name: nan}))
    except Exception as error:  # only its words count here
        told = str(error).partition(";")[0]
    said = told.removeprefix(f"expected {name} as ") if told.startswith(f"expected {name} as ") else ""
    default = "" if _required(strengths[name]) else f" [{strengths[name].default}]"
    return f"{name}{default}" + (f", {said}" if said else "")


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
