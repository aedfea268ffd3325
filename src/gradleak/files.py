"""Files that are written whole or not at all, and that only their owner can read."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from gradleak.errors import CannotWrite


def write_whole(path: Path, content: bytes | str) -> None:
    """Replace ``path`` in one step; a run that dies half-way leaves the old file, or none.

    A link stays, and the file that it points to is replaced.
    """
    data = content.encode() if isinstance(content, str) else content
    target = _regular(path)
    scratch: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes the file 0600: what gradleak writes may hold private pictures.
        handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=".gradleak.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(target)
        scratch = None
    except OSError as error:
        raise CannotWrite(
            f"cannot write {path}: {error.strerror or error}. Expected a place where you may create files."
        ) from error
    finally:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)


def write_together(contents: Mapping[Path, bytes], earlier: Iterable[Path]) -> None:
    """Write every file, then remove those of an ``earlier`` run: a folder shows one run, never two."""
    for path, content in contents.items():
        write_whole(path, content)
    for path in earlier:
        if path not in contents:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise CannotWrite(
                    f"cannot remove {path}, which an earlier run left: {error.strerror or error}. "
                    "Remove it by hand before you share the folder."
                ) from error


def _regular(path: Path) -> Path:
    """Where ``path`` leads; a device, a pipe or a folder there is refused, for it would be replaced."""
    try:
        target = path.resolve()
        usable = target.is_file() or not target.exists()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, a link to itself
        raise CannotWrite(f"cannot write {path!r}: {error}. Expected the path of a file.") from error
    if not usable:
        raise CannotWrite(f"cannot write {path}: it is there, and no regular file. Name another file.")
    return target


def require_folder(path: Path) -> None:
    """Make ``path`` and try it, so that long work does not end in an error that was there at the start."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CannotWrite(
            f"cannot write to {path}: {reason}. Expected a folder that you may write to."
        ) from error
