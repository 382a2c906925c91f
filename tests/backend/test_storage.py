"""Nothing is ever half-written, and the system's errors become sentences."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from backend import output_files, storage
from backend.errors import EffigyError
from backend.service.exchange_store import exchange_folder
from backend.storage import as_effigy_error, check_schema, write_beside
from backend.user_cache import user_cache
from blender_addon import output_files as extension_output_files
from blender_addon import renaming, writing
from blender_addon.worker import placing


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "figures.json"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), write_beside(target) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_the_older_one_as_a_whole(tmp_path):
    target = tmp_path / "frames"
    target.mkdir()
    (target / "old.png").touch()
    with write_beside(target) as temporary:
        temporary.mkdir()
        (temporary / "new.png").touch()
    assert [path.name for path in target.iterdir()] == ["new.png"] and list(tmp_path.iterdir()) == [target]


def test_a_file_where_a_folder_is_needed_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(EffigyError, match="a file stands where a folder is needed"),
        write_beside(tmp_path / "file" / "x"),
    ):
        pytest.fail("there is no place to write to")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError("I/O error: No space left on device (os error 28)")],
)
def test_a_full_disk_is_told_however_the_system_puts_it(tmp_path, error):
    assert "is full" in str(as_effigy_error(error, tmp_path))


def test_only_a_newer_schema_is_refused():
    check_schema(2, 2, "The track")
    with pytest.raises(EffigyError, match="newer Effigy"):
        check_schema(3, 2, "The track")


def test_the_extension_waits_for_a_file_in_use_and_names_the_reason(tmp_path, monkeypatch):
    (tmp_path / "new").write_text("new")
    tried = refuse(monkeypatch, 2, 32)
    renaming.rename(tmp_path / "new", tmp_path / "ann.effigy")
    assert (tmp_path / "ann.effigy").read_text() == "new" and len(tried) == 3
    refuse(monkeypatch, 10**6, 32)
    with pytest.raises(renaming.EffigyError, match="another program has it open"):
        renaming.rename(tmp_path / "ann.effigy", tmp_path / "other")


def test_a_fetched_folder_that_cannot_be_placed_leaves_the_older_one(tmp_path, monkeypatch):
    (tmp_path / "content").write_text("new")
    folder = tmp_path / "ann.capture"
    folder.mkdir()
    (folder / "capture.json").write_text("old")

    def rename(source, target):
        if target == folder and (source / "capture.json").read_text() == "new":
            raise renaming.EffigyError("another program has it open")
        source.replace(target)

    monkeypatch.setattr(writing, "rename", rename)
    monkeypatch.setattr(extension_output_files, "_exchange", lambda one, other: False)
    with pytest.raises(renaming.EffigyError, match="open"):
        placing.place_folder(folder, {"capture.json": tmp_path / "content"})
    assert [path.read_text() for path in folder.iterdir()] == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ann.capture", "content"]


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "is full: free some space"),
        (errno.EACCES, "read-only for you, or another program has the file open"),
        (errno.EIO, "cannot be written (Input/output error): choose another folder"),
    ],
)
def test_a_fetched_file_that_cannot_be_placed_is_told_by_its_cause(tmp_path, monkeypatch, number, sentence):
    (tmp_path / "content").write_text("new")

    def copyfile(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(placing.shutil, "copyfile", copyfile)
    with pytest.raises(placing.EffigyError) as raised:
        placing.place_files({tmp_path / "ann.effigy": tmp_path / "content"})
    assert sentence in str(raised.value) and "ann.effigy" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["content"]


def refuse(monkeypatch, times: int, code: int) -> list[tuple[str, str]]:
    """Makes the next renamings fail as Windows does for a file in use; returns the list of all renamings."""
    real, tried = Path.replace, []

    def replace(self, target):
        tried.append((self.name, Path(target).name))
        if len(tried) <= times:
            error = PermissionError(errno.EACCES, "The process cannot access the file")
            error.winerror = code
            raise error
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    for module in (storage, renaming):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.3)
    return tried


@pytest.mark.parametrize("code", sorted(storage.IN_USE))
def test_a_file_that_is_in_use_for_a_moment_is_replaced(tmp_path, monkeypatch, code):
    (tmp_path / "ann.effigy").write_text("old")
    tried = refuse(monkeypatch, 3, code)
    with write_beside(tmp_path / "ann.effigy") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "ann.effigy").read_text() == "new" and len(tried) == 4


def test_a_file_that_stays_in_use_is_told_as_that_and_kept(tmp_path, monkeypatch):
    (tmp_path / "ann.effigy").write_text("old")
    refuse(monkeypatch, 10**6, 32)
    with (
        pytest.raises(EffigyError, match=r"ann\.effigy cannot be replaced because another program has it open"),
        write_beside(tmp_path / "ann.effigy") as temporary,
    ):
        temporary.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_cannot_be_replaced_keeps_its_content(tmp_path, monkeypatch):
    target = tmp_path / "frames"
    target.mkdir()
    (target / "old.png").touch()
    real = storage.rename

    def rename(source, to):
        if to == target and "old-" not in source.name:
            raise EffigyError("another program has it open")
        real(source, to)

    monkeypatch.setattr(storage, "rename", rename)
    monkeypatch.setattr(output_files, "_exchange", lambda one, other: False)
    with pytest.raises(EffigyError, match="open"), write_beside(target) as temporary:
        temporary.mkdir()
    assert [path.name for path in target.iterdir()] == ["old.png"] and list(tmp_path.iterdir()) == [target]


def test_a_missing_right_is_not_waited_for(tmp_path, monkeypatch):
    """On Linux and macOS an open file is replaced, so a refusal has another reason."""

    def replace(self, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waited"))
    with pytest.raises(EffigyError, match="read-only"), write_beside(tmp_path / "x") as temporary:
        temporary.touch()


@pytest.mark.parametrize(
    ("system", "folder"),
    [("win32", "local/Effigy"), ("darwin", "home/Library/Caches/Effigy"), ("linux", "xdg/effigy")],
)
def test_files_that_can_be_made_again_are_in_the_systems_own_cache(system, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("EFFIGY_USER", raising=False)
    assert user_cache() == tmp_path / folder
    assert exchange_folder() == user_cache() / "exchange"
