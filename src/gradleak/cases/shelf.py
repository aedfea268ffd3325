"""Where an audit's files lie: in a folder, or for one process alone in its memory."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gradleak.files import write_whole


class Shelf(Protocol):
    """Whole files by name."""

    def put(self, name: str, content: bytes) -> None: ...

    def get(self, name: str) -> bytes | None: ...

    def names(self, under: str) -> list[str]: ...


@dataclass(frozen=True)
class Folder:
    """On disk, where only their owner can read them."""

    path: Path

    def put(self, name: str, content: bytes) -> None:
        with suppress(OSError):  # which the next line explains
            (self.path / name).parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(self.path / name, content)

    def get(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return None

    def names(self, under: str) -> list[str]:
        found = (self.path / under).glob("*")
        return sorted(f"{under}/{one.name}" for one in found if not one.name.startswith("."))


@dataclass(frozen=True)
class Memory:
    """Gone with the process: nothing private is left anywhere."""

    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, name: str, content: bytes) -> None:
        self.files[name] = content

    def get(self, name: str) -> bytes | None:
        return self.files.get(name)

    def names(self, under: str) -> list[str]:
        return sorted(name for name in self.files if name.startswith(f"{under}/"))
