import os
import stat
from pathlib import Path

import pytest

from gradleak import files
from gradleak.errors import CannotWrite
from gradleak.files import require_folder, write_together, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("content", "written"), [(b"\x00\xff", b"\x00\xff"), ("Straße", "Straße".encode())])
def test_writes_bytes_and_text(tmp_path: Path, content: bytes | str, written: bytes) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_whole(path, content)
    assert path.read_bytes() == written
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_read_it(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old, and open to all")
    path.chmod(0o644)
    before = os.umask(umask)
    try:
        write_whole(path, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "crash", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_crash_leaves_the_old_file_and_no_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: BaseException, where: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise crash

    monkeypatch.setattr(*((os, "fsync") if where == "fsync" else (Path, "replace")), fail)
    with pytest.raises(CannotWrite if isinstance(crash, OSError) else type(crash)) as caught:
        write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
    if isinstance(crash, OSError):
        assert "No space left" in str(caught.value)


def test_the_content_is_on_disk_before_the_name_points_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, order = tmp_path / "file", []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: (order.append(os.fstat(fd).st_size), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("replace"), replace(self, to)))
    write_whole(path, b"12345")
    assert order == [5, "replace"]


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "below", tmp_path):
        with pytest.raises(CannotWrite, match=str(path)):
            write_whole(path, b"x")
    assert isinstance(CannotWrite(), OSError)


def test_the_longest_name_that_the_disk_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_whole(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "there" / "later")
    write_whole(dangling, b"x")
    assert (tmp_path / "there" / "later").read_bytes() == b"x"
    assert dangling.is_symlink()


def test_what_is_no_regular_file_is_left_as_it_is(tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    (tmp_path / "to_pipe").symlink_to(pipe)
    for path in (pipe, tmp_path / "to_pipe", loop, tmp_path / "nul\0"):
        with pytest.raises(CannotWrite):
            write_whole(path, b"x")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == ["loop", "pipe", "to_pipe"]
    with pytest.raises(CannotWrite):
        require_folder(tmp_path / "nul\0")


def test_files_of_an_earlier_run_go_once_the_new_ones_are_there(tmp_path: Path) -> None:
    one, two, other = (tmp_path / name for name in ("1", "2", "other"))
    for path in (one, two, other):
        path.write_bytes(b"old")
    write_together({one: b"new"}, earlier=[one, two])
    assert names(tmp_path) == ["1", "other"]
    assert one.read_bytes() == b"new"
