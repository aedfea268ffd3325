"""On which line of a TOML file something stands, which ``tomllib`` does not say."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Keys = tuple[str | int, ...]
"""From the top of a file to something in it."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_TEXT = re.compile(
    r""""{3}(?:[^\\]|\\.)*?"{3,5}|\'{3}.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'""",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}\n#]+")


def lines_of(text: str, data: Mapping[str, Any]) -> dict[Keys, int]:
    """The line of every key, table and element of a list in ``text``, of which ``data`` was read.

    Where what is found is not what was read, nothing is said: no line is better than a wrong one.
    """
    scan = _Scan(text.replace("\r\n", "\n"))
    try:
        scan.document()
    except (_Lost, RecursionError, ValueError):
        return {}
    return scan.lines if set(_paths(data)) == scan.lines.keys() else {}


def line_of(lines: Mapping[Keys, int], path: Keys) -> int | None:
    """That of the path, or of the nearest thing around it that has one."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)


def dotted(path: Keys) -> str:
    """As one says it: clients."at night".lr, defenses[1]."""
    said = ""
    for part in path:
        if isinstance(part, int):
            said += f"[{part}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            said += ("." if said else "") + (part if plain else f'"{part}"')
    return said


class _Lost(Exception):
    """The scan met something that it does not know."""


@dataclass
class _Scan:
    """Walks over text that is known to be TOML, and notes where everything begins."""

    text: str
    at: int = 0
    lines: dict[Keys, int] = field(default_factory=dict)
    lists: dict[Keys, int] = field(default_factory=dict)

    def document(self) -> None:
        table: Keys = ()
        while self._after(_BLANK) < len(self.text):
            if self._comes("[["):
                table = self._element(self._keys(table=()))
                self._expect("]]")
            elif self._comes("["):
                begun = self._line()
                table = self._inside(self._keys(table=()))
                self.lines[table] = begun  # its own header says more than an earlier one of a table in it
                self._expect("]")
            else:
                self._pair(table)

    def _pair(self, table: Keys) -> None:
        path = self._keys(table)
        self._expect("=")
        self._value(path)

    def _keys(self, table: Keys) -> Keys:
        """A dotted key, and each of its parts is noted where it is met first."""
        path = table
        while True:
            self._after(_SPACE)
            path = (*self._inside(path), self._key())
            self.lines.setdefault(path, self._line())
            self._after(_SPACE)
            if not self._comes("."):
                return path

    def _inside(self, path: Keys) -> Keys:
        """In a list of tables, the last of them is meant."""
        return (*path, self.lists[path]) if path in self.lists else path

    def _element(self, path: Keys) -> Keys:
        self.lists[path] = self.lists.get(path, -1) + 1
        self.lines[self._inside(path)] = self._line()
        return self._inside(path)

    def _key(self) -> str:
        raw = self._match(_KEY)
        return str(tomllib.loads(f"key = {raw}")["key"]) if raw[0] in "\"'" else raw

    def _value(self, path: Keys) -> None:
        self._after(_SPACE)
        if self._comes("["):
            self._list(path)
        elif self._comes("{"):
            self._table(path)
        elif self.text[self.at : self.at + 1] in ('"', "'"):
            self._match(_TEXT)
        else:
            self._match(_PLAIN)

    def _list(self, path: Keys) -> None:
        number = 0
        while self._after(_BLANK) >= 0 and not self._comes("]"):
            self.lines[(*path, number)] = self._line()
            self._value((*path, number))
            self._after(_BLANK)
            self._comes(",")
            number += 1

    def _table(self, path: Keys) -> None:
        while self._after(_BLANK) >= 0 and not self._comes("}"):
            self._pair(path)
            self._after(_BLANK)
            self._comes(",")

    def _line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

    def _after(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        self.at = self.at if found is None else found.end()
        return self.at

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise _Lost
        self.at = found.end()
        return found[0]

    def _comes(self, mark: str) -> bool:
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def _expect(self, mark: str) -> None:
        self._after(_SPACE)
        if not self._comes(mark):
            raise _Lost


def _paths(value: Any, path: Keys = ()) -> Iterator[Keys]:
    """Of everything that was read."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from _paths(one, (*path, key))
