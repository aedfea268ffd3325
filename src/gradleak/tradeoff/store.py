"""Finished points on disk, each in a file of its own: a run that was killed goes on where it was."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradleak.files import write_whole

Facts = dict[str, Any]


class Store:
    """What was worked out, by what defines it; without a folder, it is remembered for this run alone.

    A file holds what defines its point beside what was found, and is believed only where that is the same.
    What cannot be read is worked out anew. A ``closed`` store works nothing out: it ends like Ctrl-C.
    """

    def __init__(self, folder: Path | None = None, *, closed: bool = False) -> None:
        self.folder = folder
        self.closed = closed
        self.computed = 0
        self.found = 0
        self._known: dict[str, Facts] = {}

    def get(self, key: Mapping[str, Any], compute: Callable[[], Facts], names: Sequence[str] = ()) -> Facts:
        """What belongs to ``key``, which is plain JSON: from before, or computed now and kept.

        A file that lacks one of ``names`` is not believed.
        """
        said = json.dumps(key, sort_keys=True)
        if said in self._known:
            return self._known[said]
        facts = self._read(said)
        if facts is None or not facts.keys() >= set(names):
            if self.closed:
                raise KeyboardInterrupt
            facts = compute()
            self.computed += 1
            if self.folder is not None:
                write_whole(
                    self._file(said), json.dumps({"of": json.loads(said), "found": facts}, indent=1) + "\n"
                )
        else:
            self.found += 1
        self._known[said] = facts
        return facts

    def _file(self, said: str) -> Path:
        folder = Path() if self.folder is None else self.folder
        return folder / f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.json"

    def _read(self, said: str) -> Facts | None:
        if self.folder is None:
            return None
        try:
            kept = json.loads(self._file(said).read_text(encoding="utf-8"))
            same = kept["of"] == json.loads(said) and isinstance(kept["found"], dict)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return dict(kept["found"]) if same else None
