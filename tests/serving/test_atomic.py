import fcntl
import os
import stat
import threading
from pathlib import Path
from typing import IO

import pytest

from serving.atomic import (
    locked,
    make_folder,
    move_directory,
    move_file,
    open_atomic,
    remove_folder,
    remove_partial,
    replace_file,
    symlink_atomic,
    write_text_atomic,
)


def test_text_replaces_what_was_there_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("an old, longer text")
    write_text_atomic(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomic(path, "half of it \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_written_in_part_is_not_seen(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with pytest.raises(KeyboardInterrupt), open_atomic(path) as file:
        file.write("half of it")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "part.parquet", list[int]()
    fsync, replace = os.fsync, os.replace
    path.write_bytes(b"old")

    def recorded_fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def checked_replace(old: Path, new: Path) -> None:
        assert synced == [Path(old).stat().st_ino]
        replace(old, new)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", checked_replace)
    with replace_file(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert synced[1:] == [tmp_path.stat().st_ino]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_can_be_made_again_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        pytest.fail("waited for the disk")

    (tmp_path / "blocks").mkdir()
    monkeypatch.setattr(os, "fsync", fail)
    path = tmp_path / "blocks" / "0"
    with replace_file(path, folder=tmp_path, durable=False) as partial:
        partial.write_bytes(b"rows")
        assert partial.parent == tmp_path
    assert path.read_bytes() == b"rows"
    assert [entry.name for entry in tmp_path.iterdir()] == ["blocks"]


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with replace_file(path) as first, replace_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the last one to end
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tables"
    (tmp_path / "deep" / ".tables.partial").mkdir(parents=True)
    (tmp_path / "deep" / ".tables.partial" / "left by a killed writer").touch()
    with pytest.raises(KeyboardInterrupt), make_folder(path) as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt
    assert list((tmp_path / "deep").iterdir()) == []
    with make_folder(path) as folder:
        (folder / "a").write_text("a")
        assert not path.exists()
    with pytest.raises(OSError, match="not empty"), make_folder(path) as folder:
        (folder / "a").write_text("b")
    assert [(file.name, file.read_text()) for file in path.iterdir()] == [("a", "a")]
    assert [file.name for file in path.parent.iterdir()] == ["tables"]


def test_a_file_moves_over_another(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    move_file(tmp_path / "new", tmp_path / "old")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("old", "new")]


def test_a_folder_loses_its_name_before_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(folder: Path, **_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "work"
    (folder / "deep").mkdir(parents=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("serving.atomic.shutil.rmtree", stop)
        remove_folder(folder)
    assert not folder.exists()
    assert len(list(tmp_path.iterdir())) == 1
    remove_partial(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_not_finished_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a" / ".tables.partial").mkdir(parents=True)
    (tmp_path / "a" / ".tables.partial" / ".inner.partial").touch()
    for name in (".hidden", "kept.partial", ".killed.0123.partial", "file"):
        (tmp_path / "a" / name).touch()
    remove_partial(tmp_path)
    left = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert left == [".hidden", "file", "kept.partial"]


def test_text_is_readable_by_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text_atomic(tmp_path / "text", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "text").stat().st_mode) == 0o644


def test_symlink_replaces_a_symlink_and_is_kept_as_given(tmp_path: Path) -> None:
    link = tmp_path / "current"
    symlink_atomic(link, Path("versions/1"))
    symlink_atomic(link, Path("versions/2"))
    assert link.readlink() == Path("versions/2")
    assert list(tmp_path.iterdir()) == [link]


def test_symlink_does_not_replace_a_folder(tmp_path: Path) -> None:
    (tmp_path / "current" / "folder").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        symlink_atomic(tmp_path / "current", Path("versions/1"))
    assert (tmp_path / "current" / "folder").is_dir()


def test_symlink_is_set_where_a_killed_writer_left_its_own(tmp_path: Path) -> None:
    (tmp_path / ".current.partial").symlink_to("versions/1")
    symlink_atomic(tmp_path / "current", Path("versions/2"))
    assert (tmp_path / "current").readlink() == Path("versions/2")
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_directory_moves_whole_and_never_over_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_text(name)
    with pytest.raises(OSError, match="not empty"):
        move_directory(tmp_path / "a", tmp_path / "b")
    move_directory(tmp_path / "a", tmp_path / "c")
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "b" / "deep" / "file").read_text() == "b"
    assert (tmp_path / "c" / "deep" / "file").read_text() == "a"


def test_every_file_and_folder_is_on_disk_before_the_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("x")
    inodes = {path.stat().st_ino for path in (source, source / "deep", source / "deep" / "file")}
    synced: list[int] = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def checked_rename(old: Path, new: Path) -> None:
        assert set(synced) == inodes
        rename(old, new)

    monkeypatch.setattr(os, "rename", checked_rename)
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    move_directory(source, tmp_path / "target")
    assert synced[len(inodes) :] == [tmp_path.stat().st_ino] * 2


def test_lock_is_held_by_one_and_then_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as first:
        with locked(path, wait=False) as second:
            assert (first, second) == (True, False)
        with locked(path, wait=False) as third:
            assert not third  # the second did not give back what it never had
    with locked(path, wait=False) as free:
        assert free


def test_lock_whose_holder_has_just_removed_it_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    lock = fcntl.flock

    def lock_too_late(file: IO[bytes], operation: int) -> None:
        path.unlink(missing_ok=True)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_too_late)
    with locked(path, wait=False) as held:
        assert not held


def test_lock_is_waited_for(tmp_path: Path) -> None:
    order: list[str] = []

    def wait() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(timeout=0.05)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
