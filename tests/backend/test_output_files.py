"""Modes, replaced folders, and what a power cut or a kill leaves."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_capture import make_small_capture

import backend.avatar.avatar as avatar_module
from backend import output_files, storage
from backend.avatar.avatar import load_avatar, save_avatar
from backend.errors import EffigyError
from backend.formats.capture import load_capture, read_frame, read_head_matte
from backend.formats.safetensors_file import is_as_written, write_tensors
from backend.head.formats import load_head
from backend.storage import write_beside

ROOT = Path(__file__).resolve().parents[2]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask_of_a_group():
    before = os.umask(0o007)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask_of_a_group")
def test_files_and_folders_have_the_mode_of_the_users_umask_whatever_library_writes_them(tmp_path):
    with write_beside(tmp_path / "a.effigy") as temporary:
        write_tensors(temporary, {"x": torch.zeros(3)}, {})
        assert mode_of(temporary) == 0o600
    with write_beside(tmp_path / "frames") as temporary:
        temporary.mkdir()
        (temporary / "0.png").touch()
    assert mode_of(tmp_path / "a.effigy") == 0o660
    assert mode_of(tmp_path / "frames") == 0o770 and mode_of(tmp_path / "frames" / "0.png") == 0o660
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.effigy", "frames"]


@pytest.mark.parametrize(("before", "after"), [(0o600, 0o600), (0o664, 0o664), (0o4755, 0o755), (0o440, 0o640)])
def test_a_replaced_file_keeps_the_permissions_that_somebody_chose(tmp_path, before, after):
    target = tmp_path / "a.effigy"
    target.touch()
    target.chmod(before)
    with write_beside(target) as temporary:
        temporary.touch()
    assert mode_of(target) == after


def test_a_replaced_folder_keeps_its_permissions(tmp_path):
    target = tmp_path / "frames"
    target.mkdir()
    target.chmod(0o2750)
    with write_beside(target) as temporary:
        temporary.mkdir()
    assert mode_of(target) == 0o2750


def test_a_folder_is_replaced_without_a_moment_in_which_there_is_none(tmp_path, monkeypatch):
    """Linux exchanges the two; without that, there would be a renaming of the old folder."""
    (tmp_path / "frames").mkdir()
    monkeypatch.setattr(storage, "rename", lambda *_: pytest.fail("it was renamed"))
    with write_beside(tmp_path / "frames") as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["frames", "new"]


def test_a_link_to_a_folder_is_replaced_and_the_folder_is_not_touched(tmp_path, monkeypatch):
    for exchange in (output_files._exchange, lambda one, other: False):
        monkeypatch.setattr(output_files, "_exchange", exchange)
        (tmp_path / "precious").mkdir(exist_ok=True)
        (tmp_path / "precious" / "diary").touch()
        (tmp_path / "frames").symlink_to(tmp_path / "precious")
        with write_beside(tmp_path / "frames") as temporary:
            temporary.mkdir()
        assert (tmp_path / "frames").is_dir() and not (tmp_path / "frames").is_symlink()
        assert (tmp_path / "precious" / "diary").exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "precious"]
        (tmp_path / "frames").rmdir()


KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from backend import output_files, storage
output_files._exchange = lambda one, other: False
real = storage.rename
def rename(source, target):
    real(source, target)
    if "old-" in target.name:
        os.kill(os.getpid(), signal.SIGKILL)
storage.rename = rename
with storage.write_beside(Path(sys.argv[1])) as temporary:
    temporary.mkdir()
    (temporary / "capture.json").write_text("new")
"""


@pytest.mark.parametrize("next_one", ["reader", "writer"])
def test_a_folder_moved_aside_by_a_killed_writer_is_brought_back(tmp_path, next_one):
    folder = tmp_path / "ann.capture"
    folder.mkdir()
    (folder / "capture.json").write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED_BETWEEN, str(folder)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL and not folder.exists()
    if next_one == "reader":
        with pytest.raises(EffigyError, match=r"capture\.json cannot be read"):
            load_capture(folder)
    else:
        with pytest.raises(KeyboardInterrupt), write_beside(folder):
            raise KeyboardInterrupt
    assert (folder / "capture.json").read_text() == "old"
    with write_beside(folder) as temporary:
        temporary.mkdir()
    assert list(tmp_path.iterdir()) == [folder]


def test_what_is_stored_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    log = []
    monkeypatch.setattr(os, "fsync", lambda file: log.append(os.readlink(f"/proc/self/fd/{file}").rpartition("/")[2]))
    real = storage.rename
    monkeypatch.setattr(storage, "rename", lambda *paths: (log.append("renamed"), real(*paths)))
    with write_beside(tmp_path / "a.capture") as temporary:
        (temporary / "frames").mkdir(parents=True)
        (temporary / "frames" / "0.jpg").touch()
        (temporary / "capture.json").touch()
    assert set(log[:2]) == {"0.jpg", "capture.json"}
    assert log[2:] == ["frames", temporary.name, "renamed", tmp_path.name]
    log.clear()
    with write_beside(tmp_path / "report.png", durable=False) as temporary:
        temporary.touch()
    assert log == ["renamed"]


def test_a_disk_that_is_full_only_when_it_is_synchronised_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "a.effigy").write_text("old")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EffigyError, match="is full"), write_beside(tmp_path / "a.effigy") as temporary:
        temporary.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nobody keeps the superuser from reading a folder")
@pytest.mark.parametrize("suffix", [".effigy", ".capture"])
def test_a_folder_that_can_be_written_and_not_read_takes_new_files(tmp_path, suffix):
    box = tmp_path / "Drop Box"
    box.mkdir()
    box.chmod(0o300)
    try:
        with write_beside(box / f"ann{suffix}") as temporary:
            temporary.touch() if suffix == ".effigy" else temporary.mkdir()
    finally:
        box.chmod(0o700)
    assert [path.name for path in box.iterdir()] == [f"ann{suffix}"]


@pytest.mark.parametrize("name", [".", "inner/.."])
def test_the_folder_in_which_a_command_was_started_can_be_its_output(tmp_path, monkeypatch, name):
    folder = tmp_path / "ann.capture"
    (folder / "inner").mkdir(parents=True)
    monkeypatch.chdir(folder)
    with write_beside(Path(name)) as temporary:
        temporary.mkdir()
        (temporary / "capture.json").touch()
    assert [path.name for path in folder.iterdir()] == ["capture.json"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_whole_disk_is_no_output():
    with pytest.raises(EffigyError, match="whole disk"), write_beside(Path("/")):
        pass


def test_a_damaged_byte_of_a_written_file_is_noticed(tmp_path):
    tensors = {"a": torch.randn(5000), "b": torch.tensor(float("nan")), "c": torch.randn(3, 3).half()}
    path, metadata = tmp_path / "x", {"effigy": "{}"}
    write_tensors(path, tensors, metadata)
    whole = path.read_bytes()
    assert is_as_written(path, tensors, metadata)
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole.replace(b"{}", b"[]"), b""):
        path.write_bytes(damaged)
        assert not is_as_written(path, tensors, metadata)


def test_an_avatar_that_is_not_on_the_disk_as_written_replaces_nothing(tmp_path, monkeypatch):
    files = ROOT / "tests" / "files_of_0_1"
    avatar = load_avatar(files / "person.effigy", load_head(files / "small_head.npz"))
    target = tmp_path / "person.effigy"
    save_avatar(avatar, target)
    whole = target.read_bytes()

    def damaging(path, tensors, metadata):
        write_tensors(path, tensors, metadata)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    monkeypatch.setattr(avatar_module, "write_tensors", damaging)
    with pytest.raises(EffigyError, match="cannot be read back as it was written"):
        save_avatar(avatar, target)
    assert target.read_bytes() == whole and list(tmp_path.iterdir()) == [target]


def test_frames_of_two_captures_are_never_mixed(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    folder = make_small_capture(tmp_path, frames=3)[0].folder
    capture = load_capture(folder)
    read_frame(capture, 0)
    read_head_matte(capture, 0)
    with write_beside(folder / "head_mattes") as temporary:
        temporary.mkdir()
    with pytest.raises(EffigyError, match="was tracked again while it was being read: start again"):
        read_head_matte(capture, 1)
    read_frame(capture, 1)
    with write_beside(folder) as temporary:
        temporary.mkdir()
    for index in (1, 2):
        with pytest.raises(EffigyError, match="was made again while it was being read: start again"):
            read_frame(capture, index)
