"""The index of an audit's store: which runs there are, and of which cases each is made."""

import json
import os
import sqlite3
from pathlib import Path

from gradleak.cases.case import Case
from gradleak.cases.done import Done, Facts

VERSION = 1
"""Of what is kept. A folder of a later one is refused: it belongs to a newer gradleak."""

DAMAGED = (ValueError, KeyError, TypeError)
"""What comes out of what is no index, or one that something is missing in."""

_SCHEMA = """
CREATE TABLE cases (key TEXT PRIMARY KEY, facts TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (number INTEGER PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE parts (
    place INTEGER PRIMARY KEY, run INTEGER, key TEXT, what TEXT NOT NULL, UNIQUE (run, key, what)
);
"""


def connected(path: str) -> sqlite3.Connection:
    """For writing; where there is none, an empty one."""
    if path != ":memory:":
        # SQLite's own files take the mode of this one, and it names private records.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    index = sqlite3.connect(path, timeout=10)
    index.execute("PRAGMA journal_mode = WAL")
    index.execute("PRAGMA synchronous = FULL")
    return index


def read_only(path: str) -> sqlite3.Connection:
    """For reading alone, also where nothing may be written."""
    place = Path(path).resolve().as_uri()
    index = sqlite3.connect(f"{place}?mode=ro", timeout=10, uri=True)
    try:
        index.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        # In WAL mode a reader writes too, unless it is told that nobody else will.
        index.close()
        index = sqlite3.connect(f"{place}?immutable=1", uri=True)
    return index


def require_readable(index: sqlite3.Connection) -> None:
    """SQLite's own check looks at pages, and not at what they say."""
    for (facts,) in index.execute("SELECT facts FROM runs"):
        _require_whole(json.loads(facts))
    for key, what in index.execute("SELECT key, what FROM parts"):
        done_of(json.loads(what), key, {})
    for (facts,) in index.execute("SELECT facts FROM cases"):
        dict(json.loads(facts))


def make(index: sqlite3.Connection) -> None:
    # One transaction: a run killed in here leaves no index, or a whole one.
    index.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")


def insert_part(index: sqlite3.Connection, run: int, key: str, what: Facts) -> None:
    index.execute(
        "INSERT OR REPLACE INTO parts (run, key, what) VALUES (?, ?, ?)", (run, key, json.dumps(what))
    )


def insert_run(index: sqlite3.Connection, name: str, content: bytes) -> None:
    try:
        number, kept = int(name), json.loads(content)
        facts, parts = kept["facts"], [(part["key"], _readable(part["what"])) for part in kept["parts"]]
        _require_whole(facts)
    except DAMAGED:
        return
    index.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (number, json.dumps(facts)))
    for key, what in parts:
        insert_part(index, number, key, what)


def _require_whole(facts: Facts) -> None:
    """Raises one of ``DAMAGED`` where something is missing that a record is made of."""
    for name in ("title", "same", "finished"):
        facts[name]
    for name in ("samples", "batches", "ways", "rungs", "left"):
        list(facts["inner"][name])


def _readable(what: Facts) -> Facts:
    """The same, where it can be read."""
    return what_of(done_of(what, "", {}))


def parts(index: sqlite3.Connection, number: int) -> list[tuple[str, Facts]]:
    rows = index.execute("SELECT key, what FROM parts WHERE run = ? ORDER BY place", (number,))
    return [(key, json.loads(what)) for key, what in rows.fetchall()]


def what_of(done: Done) -> Facts:
    """What a case is called in a run, which says nothing of how it ended."""
    return {"case": done.case.to_dict(), "samples": list(done.samples)}


def done_of(what: Facts, key: str, facts: Facts) -> Done:
    return Done(Case(**what["case"]), tuple(what["samples"]), key, facts)
