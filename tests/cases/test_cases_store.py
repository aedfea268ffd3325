"""What a folder goes through: damage, full disks, newer versions, strangers."""

import dataclasses
import json
import sqlite3
import stat
from pathlib import Path

import pytest
import torch
from small_audit import Fussy, facts, figures, small_work

from gradleak.cases import Store, run
from gradleak.cases.index import VERSION
from gradleak.cases.packed import pack, said_in, unpack
from gradleak.errors import CannotWrite, InvalidInput


@pytest.fixture
def finished(tmp_path):
    work = small_work()
    with Store(tmp_path) as store:
        return tmp_path, run(work, store, facts(work))


def test_a_damaged_index_is_made_again_and_nothing_finished_is_lost(finished):
    folder, before = finished
    index = folder / "index.sqlite"
    content = bytearray(index.read_bytes())
    content[4096:8192] = b"\xff" * 4096  # a page of it
    index.write_bytes(content)
    with Store(folder) as store:
        assert "was damaged" in store.mended
        assert figures(store.record()) == figures(before)
        assert store.record().finished
    assert list(folder.glob("index.damaged-1.sqlite"))
    with Store(folder) as store:
        assert not store.mended


def test_an_index_that_is_no_database_at_all_is_made_again_too(finished):
    folder, before = finished
    for ending in ("-wal", "-shm"):
        (folder / f"index.sqlite{ending}").unlink(missing_ok=True)
    (folder / "index.sqlite").write_bytes(b"not a database, though of some length" * 200)
    with Store(folder) as store:
        assert figures(store.record()) == figures(before)


def test_a_case_whose_file_was_cut_off_is_run_again(finished):
    folder, before = finished
    key = next(done.key for done in before.attacks)
    file = folder / "cases" / f"{key}.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    events = []
    work = small_work()
    with Store(folder) as store:
        after = run(work, store, facts(work), tell=events.append)
    assert [event.what for event in events].count("done") == 1
    assert figures(after) == figures(before)


def test_a_newer_folder_is_refused_and_stays_as_it_is(finished):
    folder, _ = finished
    index = sqlite3.connect(folder / "index.sqlite")
    index.execute(f"PRAGMA user_version = {VERSION + 1}")
    index.commit()
    index.close()
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(InvalidInput, match="newer gradleak"):
        Store(folder)
    with pytest.raises(InvalidInput, match="newer gradleak"):  # and the lock is free again
        Store(folder)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_files_are_their_owner_s_alone(tmp_path):
    folder = tmp_path / "new"
    work = small_work(records=1)
    with Store(folder) as store:
        run(work, store, facts(work))
        open_files = [path for path in folder.rglob("*") if path.is_file()]
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in open_files}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert any(name.endswith(".safetensors") for name in modes)
    assert "index.sqlite-wal" in modes
    assert set(modes.values()) == {0o600}


def test_a_full_disk_is_said_and_what_was_finished_stays(tmp_path, monkeypatch):
    work, room = small_work(), 3
    real = Path.replace

    def fills_up(self, target):
        nonlocal room
        if "cases" in str(target):
            room -= 1
            if room < 0:
                raise OSError(28, "No space left on device")
        return real(self, target)

    with Store(tmp_path) as store:
        monkeypatch.setattr(Path, "replace", fills_up)
        with pytest.raises(CannotWrite, match="No space left on device"):
            run(work, store, facts(work))
    monkeypatch.undo()
    with Store(tmp_path) as store:
        assert len(store.record().done) == 3
        assert not store.record().finished
        events = []
        whole = run(work, store, facts(work), tell=events.append)
    assert [event.what for event in events].count("kept") == 3
    assert whole.number == 1
    assert whole.finished


def test_a_place_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWrite, match="Expected a folder that you may write to"):
        Store(tmp_path / "file" / "audit")


def test_reading_changes_nothing_and_asks_for_a_folder_of_ours(finished, tmp_path_factory):
    folder, before = finished
    with Store(folder), Store(folder, alone=False) as reader:  # also while an audit is at work
        assert figures(reader.record()) == figures(before)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InvalidInput, match="expected the folder of an audit"):
        Store(empty, alone=False)
    assert not list(empty.iterdir())


def test_a_run_that_is_not_there_is_said(finished):
    folder, _ = finished
    with Store(folder, alone=False) as store, pytest.raises(InvalidInput, match="a run among 1; came 7"):
        store.record(7)


def test_pictures_come_from_disk_as_they_were(finished):
    folder, before = finished
    with Store(folder, alone=False) as store:
        record = store.record()
        for i in range(len(record.samples)):
            for name in ("truth", "null"):
                kept, first = (getattr(one.contents, name)(i) for one in (record, before))
                assert torch.equal(kept, first)
            kept, first = (one.best("fedsgd", i) for one in (record, before))
            assert kept.row == first.row
            guesses = [
                one.contents.guess(best.done.key, best.row.place)
                for one, best in ((record, kept), (before, first))
            ]
            assert torch.equal(*guesses)


def test_a_store_in_memory_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work = small_work(records=1)
    record = run(work, Store(), facts(work))
    best = record.best("fedsgd", 0)
    assert record.contents.guess(best.done.key, best.row.place) is not None
    assert not list(tmp_path.iterdir())


def test_packed_files_hold_what_was_put_in_and_a_cut_one_says_nothing():
    tensors, said = {"guess": torch.rand(2, 3, 4)}, {"a": [1, "ü"], "b": None}
    content = pack(tensors, said)
    assert said_in(content) == said
    assert torch.equal(unpack(content)["guess"], tensors["guess"])
    for cut in (0, 4, 8, 40, len(content) - 1):
        assert said_in(content[:cut]) is None
        assert unpack(content[:cut]) == {}
    assert said_in(b"\x10" + bytes(7) + json.dumps([1, 2, 3]).encode().ljust(16)) is None
    assert said_in(pack({}, said)) == said


def test_reading_writes_nothing_even_where_the_index_is_damaged(finished):
    folder, before = finished
    index = folder / "index.sqlite"
    content = bytearray(index.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    index.write_bytes(content)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with Store(folder, alone=False) as store:
        assert figures(store.record()) == figures(before)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    beside = {folder / f"index.sqlite{ending}" for ending in ("-wal", "-shm")}  # SQLite's own, for readers
    assert {path: content for path, content in after.items() if path not in beside} == files


def test_what_failed_is_run_again_where_that_is_asked_for(tmp_path):
    work = dataclasses.replace(small_work(records=1, per=3, rungs=("everything known",)), model=Fussy())
    with Store(tmp_path) as store:
        first = run(work, store, facts(work))
        assert first.failed
        events = []
        run(work, store, facts(work), tell=events.append)
        assert "failed" not in {event.what for event in events}
        run(work, store, facts(work), retry=True, tell=events.append)
        assert [event.what for event in events].count("failed") == len(first.failed)
