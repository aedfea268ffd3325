"""What is wrong with a plan, in sentences: where, what was expected, what came, and the nearest name."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from gradleak.audit.places import Keys, dotted, line_of
from gradleak.errors import GradleakError, InvalidPlan

_LONGEST = 60  # letters of a value that came


@dataclass(frozen=True)
class Mistake:
    """``keys`` lead to it from the top of the file."""

    keys: Keys
    words: str

    def told(self, file: Path, lines: Mapping[Keys, int]) -> str:
        keys, line = self.keys, line_of(lines, self.keys)
        if lines and keys not in lines and isinstance(keys[-1], int):
            keys = keys[:-1]  # one word where a list may stand is no list in the file
        place = f"{file}" if line is None else f"{file}:{line}"
        end = "" if self.words.endswith((".", "?")) else "."
        return f"{place}: {dotted(keys)}: {self.words}{end}"


@dataclass(frozen=True)
class Where:
    """The file that a plan is in, and on which of its lines everything stands."""

    file: Path
    lines: Mapping[Keys, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.file.parent

    def refusal(self, found: list[Mistake]) -> InvalidPlan:
        found = sorted(found, key=lambda one: line_of(self.lines, one.keys) or 0)
        said = [one.told(self.file, self.lines) for one in found]
        return InvalidPlan(said[0] if len(said) == 1 else "\n".join([f"{len(said)} mistakes:", *said]))

    @contextmanager
    def blamed(self, *keys: str | int, on: list[Mistake]) -> Iterator[None]:
        """What is refused inside is a mistake at that place of the plan, and the work goes on."""
        try:
            yield
        except InvalidPlan:
            raise
        except GradleakError as error:
            on.append(Mistake(keys, str(error)))


def of(error: ValidationError, plan: type[BaseModel]) -> list[Mistake]:
    """One for each thing that pydantic found."""
    found = [_mistake(dict(one), plan) for one in error.errors(include_url=False)]
    return list(dict.fromkeys(found))


def not_toml(file: Path, error: Exception) -> str:
    """The parser says the line in words, at the end."""
    words = "its lists or tables are nested too deeply" if isinstance(error, RecursionError) else str(error)
    line = re.search(r"at line (\d+)", words)
    place = f"{file}:{line[1]}" if line else f"{file}"
    twice = "overwrite" in words or "twice" in words.lower() or "multiple times" in words
    hint = (
        " Is something there said twice?"
        if twice
        else " Text stands in quotes, and a [table] on a line of its own."
    )
    return f"{place}: expected TOML; it cannot be read: {words}.{hint}"


def shown(value: Any) -> str:
    """As it stands in the file, or what it is."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "an empty list" if not value else f"a list of {len(value)}"
    if isinstance(value, bool | str):
        said = json.dumps(value, ensure_ascii=False)
        return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
    if isinstance(value, datetime | date | time):
        return f"the date or time {value}"
    said = f"{value!r}"
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}... ({len(said)} digits)"


def _mistake(error: Mapping[str, Any], plan: type[BaseModel]) -> Mistake:
    keys: Keys = tuple(error["loc"])
    kind, came, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return Mistake(keys, f"expected {_example(keys)}; it is missing")
    if kind == "extra_forbidden":
        return Mistake(keys, _unknown(keys, plan))
    if kind == "value_error":
        return Mistake(keys, str(context["error"]))
    if kind == "literal_error":
        options = _literals(keys, plan)
        near = get_close_matches(str(came), map(str, options), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        told = " or ".join(json.dumps(one) for one in options)
        return Mistake(keys, f"expected {told}; came {shown(came)}{hint}")
    return Mistake(keys, f"expected {_expected(kind, context)}; came {shown(came)}")


def _expected(kind: str, context: Mapping[str, Any]) -> str:
    plain = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "int_parsing_size": "a smaller number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "string_type": "text in quotes",
        "bool_type": "true or false",
        "dict_type": "a table",
        "model_type": "a table",
        "model_attributes_type": "a table",
        "tuple_type": "a list",
        "list_type": "a list",
        "string_too_short": "some text",
        "string_too_long": f"at most {context.get('max_length')} letters",
        "too_short": f"at least {context.get('min_length')} of them",
        "greater_than_equal": f"{_number(context.get('ge'))} or more",
        "greater_than": f"a number above {_number(context.get('gt'))}",
        "less_than_equal": f"at most {_number(context.get('le'))}",
        "less_than": f"a number below {_number(context.get('lt'))}",
    }
    return plain.get(kind, "something else")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value}" if value is None else f"{value:g}"


_EXAMPLES: dict[Keys, str] = {
    ("model",): 'a table [model] with build = "module:callable"',
    ("data",): 'a table [data] with source = "a/folder"',
    ("model", "build"): 'what builds the model, as in build = "module:callable"',
    ("data", "source"): 'where the records are, as in source = "a/folder"',
}


def _example(keys: Keys) -> str:
    return _EXAMPLES.get(keys, f"{keys[-1]} here")


def _unknown(keys: Keys, plan: type[BaseModel]) -> str:
    """The nearest name that is known there; else the table in which it is; else all that there are."""
    name, here = str(keys[-1]), _names(_part(keys[:-1], plan))
    near = get_close_matches(name, here, n=1, cutoff=0.7)
    if near:
        return f"there is no such key; did you mean {near[0]}?"
    if len(keys) > 1 and name in _names(plan):
        return "there is no such key; it belongs to the top of the file, before the first [table]"
    elsewhere = [table for table, part in _tables(plan).items() if name in _names(part)]
    if elsewhere:
        belongs = "clients.NAME" if elsewhere[0] == "clients" else elsewhere[0]
        return f"there is no such key; it belongs to the table [{belongs}]"
    return f"there is no such key; expected {', '.join(here)}"


def _literals(keys: Keys, plan: type[BaseModel]) -> list[Any]:
    part = _part(keys[:-1], plan)
    return [one for one in _flat(part.model_fields[str(keys[-1])].annotation) if one is not None]


def _flat(annotation: Any) -> list[Any]:
    inner = get_args(annotation)
    if not inner:
        return [] if isinstance(annotation, type) else [annotation]
    return [one for part in inner for one in _flat(part)]


def _part(keys: Keys, plan: type[BaseModel]) -> type[BaseModel]:
    """The model of the table that the keys lead to."""
    part = plan
    for key in keys:
        part = _tables(part).get(str(key), part)
    return part


def _tables(plan: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Those directly inside, and of named ones what each of them is."""
    found = {}
    for name, known in plan.model_fields.items():
        kinds = [one for one in _types(known.annotation) if issubclass(one, BaseModel)]
        if kinds:
            found[known.alias or name] = kinds[0]
    return found


def _types(annotation: Any) -> list[type]:
    inner = get_args(annotation)
    if not inner:
        return [annotation] if isinstance(annotation, type) else []
    return [one for part in inner for one in _types(part)]


def _names(part: type[BaseModel]) -> list[str]:
    return [known.alias or name for name, known in part.model_fields.items()]
