"""Files and folders are written atomically: they are complete or absent."""

import os
import shutil

import pytest

from keras_vae import atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_file_is_replaced_and_keeps_its_line_ends(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("one\n", "two\r\nthree\n"):
        atomic.write_text(path, text)
        assert path.read_bytes() == text.encode()
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("sole_writer", [True, False])
def test_only_the_sole_writer_removes_temporary_files(tmp_path, sole_writer):
    path = tmp_path / "a[1].txt"
    with atomic.replacing(path) as part:
        shutil.copyfile(__file__, part)
        other = tmp_path / ".b-0123456789abcdef.txt"
        other.touch()
        atomic.write_text(path, "new", sole_writer)
        assert part.exists() != sole_writer and other.exists()
        part.touch()


def test_temporary_files_have_names_that_cannot_be_guessed(tmp_path):
    found = set()
    for _ in range(2):
        with atomic.replacing(tmp_path / "a.txt") as part:
            part.touch()
            found.add(part.name)
    assert len(found) == 2 and all(len(name) >= len(".a-.txt") + 16 for name in found)


def test_an_error_leaves_no_part_of_a_new_folder(tmp_path):
    with pytest.raises(OSError), atomic.creating(tmp_path / "new" / "a") as part:
        part.mkdir()
        (part / "file").touch()
        raise OSError
    assert names(tmp_path / "new") == []


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.touch()])
def test_an_existing_path_is_not_overwritten(tmp_path, make):
    path = tmp_path / "a"
    with pytest.raises(FileExistsError), atomic.creating(path) as part:
        make(part)
        part.with_name("other").touch()
        if path.exists():
            return
        path.mkdir() if part.is_dir() else path.touch()
        (path / "full").touch() if path.is_dir() else None
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("age, remains", [(0.0, False), (atomic.DAY, True)])
def test_stale_folders_of_killed_processes_are_removed(tmp_path, age, remains):
    leftover = tmp_path / ".keras-vae-1-abc"
    leftover.mkdir()
    with atomic.creating(tmp_path / "a", stale_after=age) as part:
        part.touch()
    assert leftover.exists() == remains and (tmp_path / "a").is_file()


def test_files_are_flushed_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.rename

    def flush(descriptor):
        events.append("flush")
        fsync(descriptor)

    def move(source, target):
        events.append("move")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "rename", move)
    with atomic.creating(tmp_path / "a") as part:
        part.mkdir()
        (part / "file").touch()
    # The file, its folder, the hidden folder; after the move, the parent.
    assert events == ["flush", "flush", "flush", "move", "flush"]
