"""Files that are written whole or not at all, and that only their owner can read."""

import os
import tempfile
from pathlib import Path

from gradleak.errors import CannotWrite


def write_whole(path: Path, content: bytes | str) -> None:
    """Replace ``path`` in one step; a run that dies half-way leaves the old file, or none."""
    data = content.encode() if isinstance(content, str) else content
    scratch: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes the file 0600: what gradleak writes may hold private pictures.
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".gradleak.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(path)
        scratch = None
    except OSError as error:
        raise CannotWrite(
            f"cannot write {path}: {error.strerror or error}. Expected a place where you may create files."
        ) from error
    finally:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)


def require_folder(path: Path) -> None:
    """Make ``path`` and try it, so that long work does not end in an error that was there at the start."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise CannotWrite(
            f"cannot write to {path}: {error.strerror or error}. Expected a folder that you may write to."
        ) from error
