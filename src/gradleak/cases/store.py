"""An audit's store: an index in SQLite, and for every finished case a file that holds all there is of it."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from gradleak.cases.case import Case, Left
from gradleak.cases.done import Done, Facts, Sample, Way
from gradleak.cases.index import (
    DAMAGED,
    VERSION,
    connected,
    done_of,
    insert_part,
    insert_run,
    make,
    parts,
    read_only,
    require_readable,
    what_of,
)
from gradleak.cases.packed import pack, said_in, unpack
from gradleak.cases.record import Record
from gradleak.cases.shelf import Folder, Memory, Shelf
from gradleak.errors import CannotWrite, InvalidInput
from gradleak.files import require_folder
from gradleak.identity import identity
from gradleak.text import Vocabulary

_INDEX = "index.sqlite"


class Store:
    """Finished cases by what defines them, and runs, each a list of cases.

    A case is on disk, whole, before the next one begins. The index can be made again from the files, and is
    where it was damaged. With ``alone``, no other audit may use the folder at the same time.
    """

    def __init__(self, folder: Path | None = None, *, alone: bool = True) -> None:
        self.folder = folder
        self.alone = alone
        self.mended = ""
        self._lock: FileLock | None = None
        self._shelf: Shelf = Memory() if folder is None else Folder(folder)
        if folder is not None:
            if alone:
                self._lock = _locked(folder)
            elif not (folder / _INDEX).is_file() and not self._shelf.names("runs"):
                raise InvalidInput(f"expected the folder of an audit; {folder} holds no {_INDEX}")
        try:
            self._index = self._opened()
        except BaseException:
            self._release()
            raise

    def close(self) -> None:
        self._index.close()
        self._release()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Cases.

    def find(self, key: str, case: Case, samples: Sequence[int]) -> Done | None:
        """What was finished before, under whatever name; None where its file is gone or damaged."""
        row = self._index.execute("SELECT facts FROM cases WHERE key = ?", (key,)).fetchone()
        said = None if row is None else _case_in(self._shelf.get(_file(key)), key)
        if said is None or said["facts"] != json.loads(row[0]):
            return None
        return Done(case, tuple(samples), key, said["facts"])

    def keep(self, done: Done, guess: Tensor | None, run: int) -> None:
        """A finished case. Its file is whole before the index names it."""
        tensors = {} if guess is None else {"guess": guess}
        said = {"version": VERSION, "key": done.key, "what": what_of(done), "facts": done.facts}
        self._shelf.put(_file(done.key), pack(tensors, said))
        with self._writing() as index:
            index.execute("INSERT OR REPLACE INTO cases VALUES (?, ?)", (done.key, json.dumps(done.facts)))
            insert_part(index, run, done.key, what_of(done))

    def take(self, done: Done, run: int) -> None:
        """A case of an earlier run that holds for this one too."""
        with self._writing() as index:
            insert_part(index, run, done.key, what_of(done))

    def keep_batch(self, name: str, truth: Tensor, null: Tensor) -> None:
        """A private batch beside what anyone would guess, for reports."""
        content = pack({"truth": truth, "null": null}, {"version": VERSION})
        if self._shelf.get(_batch(name)) != content:
            self._shelf.put(_batch(name), content)

    def keep_vocabulary(self, vocabulary: Vocabulary | None) -> None:
        """What the words of texts are, so that they can be read without their model."""
        if vocabulary is not None and self._shelf.get(words_file(vocabulary)) is None:
            self._shelf.put(words_file(vocabulary), json.dumps(asdict(vocabulary)).encode())

    # Runs.

    def begin(self, facts: Facts) -> int:
        """The number of a new run, or of the last one where that is the same."""
        number, last = (self.runs() or [(0, {"same": ""})])[-1]
        if last["same"] != facts["same"]:
            number += 1
        self.tell(number, facts)
        return number

    def tell(self, number: int, facts: Facts) -> None:
        """What a run says of itself from now on."""
        with self._writing() as index:
            index.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (number, json.dumps(facts)))
            listed = parts(index, number)
        said = {"facts": facts, "parts": [{"key": key, "what": what} for key, what in listed]}
        self._shelf.put(f"runs/{number}.json", json.dumps(said, indent=1).encode())

    def runs(self) -> list[tuple[int, Facts]]:
        rows = self._index.execute("SELECT number, facts FROM runs ORDER BY number").fetchall()
        return [(number, json.loads(facts)) for number, facts in rows]

    def record(self, number: int | None = None) -> Record:
        """A run with its finished cases; the last one, unless said."""
        known = dict(self.runs())
        if not known:
            raise InvalidInput(f"expected a folder with a run in it; {self.folder} holds none")
        number = max(known) if number is None else number
        if number not in known:
            raise InvalidInput(f"expected a run among {', '.join(map(str, known))}; came {number}")
        facts = dict(known[number])
        inner = facts.pop("inner")
        rows = self._index.execute(
            "SELECT what, cases.key, facts FROM parts JOIN cases ON parts.key = cases.key "
            "WHERE run = ? ORDER BY place",
            (number,),
        ).fetchall()
        return Record(
            number=number,
            facts=facts,
            samples=tuple(Sample(**one) for one in inner["samples"]),
            ways=tuple(Way(one["name"], one["client"], tuple(one["defenses"])) for one in inner["ways"]),
            rungs=tuple(inner["rungs"]),
            done=tuple(done_of(json.loads(what), key, json.loads(said)) for what, key, said in rows),
            left=tuple(Left(Case(**one["case"]), one["why"], one["spared"]) for one in inner["left"]),
            contents=_Kept(self._shelf, inner["batches"], inner.get("vocabulary", "")),
        )

    # The index.

    def _opened(self) -> sqlite3.Connection:
        path = ":memory:" if self.folder is None else str(self.folder / _INDEX)
        try:
            index = connected(path) if self.alone else read_only(path)
            found = index.execute("PRAGMA user_version").fetchone()[0]
            if found > VERSION:
                index.close()
                raise InvalidInput(
                    f"{self.folder} was written by a newer gradleak (store version {found}, and this one "
                    f"knows {VERSION}). Upgrade gradleak, or use another folder."
                )
            wrong = index.execute("PRAGMA quick_check").fetchone()[0]
            if wrong != "ok":
                raise sqlite3.DatabaseError(wrong)
            if not found:
                if self._shelf.names("cases") or self._shelf.names("runs"):
                    raise sqlite3.DatabaseError("it is gone")
                make(index)
            require_readable(index)
        except InvalidInput:
            raise
        except sqlite3.OperationalError as error:
            if "no such" in str(error):  # table, or column
                return self._rebuilt(str(error))
            raise CannotWrite(
                f"cannot open {path}: {error}. Expected a folder that you may write to."
            ) from error
        except (sqlite3.DatabaseError, *DAMAGED) as error:
            return self._rebuilt(str(error))
        return index

    def _rebuilt(self, why: str) -> sqlite3.Connection:
        """The index again, from the files; the damaged one is kept beside it, and a reader writes nothing."""
        if not self.alone:
            return self._refilled(connected(":memory:"))[0]
        folder = self.folder or Path()
        number = 1 + len(list(folder.glob("index.damaged-*")))
        for ending in ("", "-wal", "-shm"):
            damaged = folder / f"{_INDEX}{ending}"
            if damaged.exists():
                damaged.replace(folder / f"index.damaged-{number}.sqlite{ending}")
        index, cases = self._refilled(connected(str(folder / _INDEX)))
        self.mended = (
            f"The index of {folder} was damaged ({why}). It was made again from {cases} files of finished "
            f"cases; the damaged one is index.damaged-{number}.sqlite."
        )
        return index

    def _refilled(self, index: sqlite3.Connection) -> tuple[sqlite3.Connection, int]:
        make(index)
        cases = 0
        with index:
            for name in self._shelf.names("cases"):
                said = _case_in(self._shelf.get(name), Path(name).stem)
                if said is not None:
                    row = (said["key"], json.dumps(said["facts"]))
                    index.execute("INSERT OR REPLACE INTO cases VALUES (?, ?)", row)
                    cases += 1
            for name in self._shelf.names("runs"):
                insert_run(index, Path(name).stem, self._shelf.get(name) or b"")
        return index, cases

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._index:
                yield self._index
        except sqlite3.Error as error:
            raise CannotWrite(
                f"cannot write to {self.folder}: {error}. What was finished is kept; the same command goes "
                "on from there."
            ) from error

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


class _Kept:
    """A run's pictures or texts, read where somebody looks."""

    def __init__(self, shelf: Shelf, batches: list[Facts], vocabulary: str) -> None:
        self._shelf = shelf
        self._places = {
            sample: (batch["file"], place)
            for batch in batches
            for place, sample in enumerate(batch["samples"])
        }
        self._read: dict[str, dict[str, Tensor]] = {}
        self._vocabulary = vocabulary

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        content = self._shelf.get(self._vocabulary) if self._vocabulary else None
        try:
            said = json.loads(content or b"")
            return Vocabulary(tuple(map(str, said["words"])), tuple(map(int, said["special"])))
        except DAMAGED:
            return None

    def truth(self, sample: int) -> Tensor | None:
        return self._of(sample, "truth")

    def null(self, sample: int) -> Tensor | None:
        return self._of(sample, "null")

    def guess(self, key: str, place: int) -> Tensor | None:
        return self._row(_file(key), "guess", place)

    def _of(self, sample: int, name: str) -> Tensor | None:
        batch, place = self._places[sample]
        return self._row(_batch(batch), name, place)

    def _row(self, file: str, name: str, place: int) -> Tensor | None:
        if file not in self._read:
            self._read[file] = unpack(self._shelf.get(file) or b"")
        rows = self._read[file].get(name)
        return None if rows is None or place >= len(rows) else rows[place]


def words_file(vocabulary: Vocabulary | None) -> str:
    """The name of a vocabulary's file; empty where there is none."""
    return "" if vocabulary is None else f"words/{identity(vocabulary)}.json"


def _locked(folder: Path) -> FileLock:
    with suppress(OSError):  # which the next line explains
        folder.mkdir(mode=0o700, parents=True)
    require_folder(folder)
    lock = FileLock(folder / "in-use.lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CannotWrite(
            f"another audit is at work in {folder}. Wait for it to end, or give this one another folder."
        ) from error
    return lock


def _case_in(content: bytes | None, key: str) -> Facts | None:
    """What a case's file says; None where it is damaged, or another case's."""
    said = said_in(content or b"")
    try:
        whole = said is not None and said["version"] <= VERSION and said["key"] == key and bool(said["facts"])
    except DAMAGED:
        return None
    return said if whole else None


def _file(key: str) -> str:
    return f"cases/{key}.safetensors"


def _batch(name: str) -> str:
    return f"batches/{name}.safetensors"
