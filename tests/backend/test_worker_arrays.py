"""Arrays beside messages arrive unchanged, and no message makes this process touch a file outside its own folders."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from backend.errors import EffigyError
from backend.service import array_files
from backend.service.array_files import ArrayFiles, read_inline
from blender_addon.worker import array_folders
from blender_addon.worker.array_folders import ArrayFolders
from blender_addon.worker.arrays import put_arrays, take_arrays

ARRAYS = {
    "large": np.random.default_rng(0).normal(size=(200, 400, 3)).astype(np.float32),
    "small": np.arange(5, dtype=np.int32),
    "none": np.zeros((0, 3), np.float32),
    "one": np.array(2.5),
    "image": np.full((3, 4, 3), 200, np.uint8),
    "strided": np.arange(24, dtype=np.float64).reshape(4, 6)[:, ::2],
    "marks": np.array([True, False]),
}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArrayFolders]:
    """The client's folders, both in `tmp_path`."""
    for name in ("memory", "disk"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(array_folders, "MEMORY_FOLDER", tmp_path / "memory")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "disk"))
    made = ArrayFolders()
    yield made
    made.remove()


@pytest.fixture
def worker(folders: ArrayFolders) -> ArrayFiles:
    files = ArrayFiles()
    files.use(folders.paths)
    return files


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are unlinked: recorded, and not unlinked."""
    names: list[str] = []
    for remove in ("unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, remove, lambda path, **where: names.append(os.fspath(path)))
    return names


def left_in(folders: ArrayFolders) -> list[Path]:
    return [path for folder in folders.paths for path in Path(folder).iterdir()]


def file_of(array: np.ndarray, folders: ArrayFolders, name: str = "1-1") -> dict:
    array.tofile(Path(folders.paths[0]) / name)
    return {"$array": {"file": name, "dtype": str(array.dtype), "shape": list(array.shape)}}


@pytest.mark.parametrize("inline", [False, True])
def test_arrays_arrive_unchanged(folders: ArrayFolders, worker: ArrayFiles, inline: bool) -> None:
    worker.inline = inline
    message = json.loads(json.dumps({"nested": [{name: worker.put(array)} for name, array in ARRAYS.items()]}))
    assert bool(left_in(folders)) != inline
    taken = {name: array for entry in take_arrays(message, folders)["nested"] for name, array in entry.items()}
    assert not left_in(folders)
    for name, array in ARRAYS.items():
        assert taken[name].dtype == array.dtype and np.array_equal(taken[name], array), name
        if array.size:
            # The receiver may write into the array.
            taken[name].reshape(-1)[0] = 1


def test_numbers_in_the_other_order_of_bytes_arrive_as_numbers(folders: ArrayFolders, worker: ArrayFiles) -> None:
    assert take_arrays(worker.put(np.array([1.5, 2.5], ">f4")), folders).tolist() == [1.5, 2.5]


def test_requests_carry_arrays_of_any_size() -> None:
    for array in ARRAYS.values():
        received = read_inline(json.loads(json.dumps(put_arrays({"group": {"array": array}}))))["group"]["array"]
        assert np.array_equal(np.asarray(received, array.dtype).reshape(array.shape), array)


@pytest.mark.skipif(os.name == "nt", reason="on Windows the user's temporary folder is private by its access list")
def test_other_users_cannot_read_the_folders_and_the_files(folders: ArrayFolders, worker: ArrayFiles) -> None:
    worker.put(ARRAYS["small"])
    assert all(stat.S_IMODE(Path(folder).stat().st_mode) == 0o700 for folder in folders.paths)
    assert [stat.S_IMODE(path.stat().st_mode) for path in left_in(folders)] == [0o600]


def test_an_array_that_does_not_fit_into_memory_goes_to_the_disk(folders: ArrayFolders, worker: ArrayFiles) -> None:
    memory, disk = map(Path, folders.paths)
    memory.rename(memory.with_name("elsewhere"))
    # Not even an open folder takes a file when it has been removed.
    memory.with_name("elsewhere").rmdir()
    described = worker.put(ARRAYS["large"])
    assert len(list(disk.iterdir())) == 1
    assert take_arrays(described, folders).shape == (200, 400, 3) and not list(disk.iterdir())


def test_no_room_anywhere_is_an_error_and_leaves_no_file(
    folders: ArrayFolders, worker: ArrayFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullFile:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        array_files, "open", lambda descriptor, *_, **__: os.close(descriptor) or FullFile(), raising=False
    )
    with pytest.raises(EffigyError, match="no room for 1 MB"):
        worker.put(ARRAYS["large"])
    assert not left_in(folders)


@pytest.mark.parametrize(
    "name",
    [
        "{victim}",
        "../victim",
        "1-1/../../victim",
        "C:1-1",
        "..",
        "",
        "1-1\x00",
        "1-1\n",
        "x",
        1,
        None,
        ["1-1"],
        "\uff11-1",
    ],
)
def test_an_array_outside_the_folders_is_neither_read_nor_removed(
    folders: ArrayFolders, tmp_path: Path, removed: list[str], name: object
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    name = name.replace("{victim}", str(victim)) if isinstance(name, str) else name
    with pytest.raises(ValueError, match="not named by the protocol"):
        take_arrays({"a": [{"$array": {"file": name, "dtype": "uint8", "shape": [4]}}]}, folders)
    assert removed == []


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "folder", "pipe"])
def test_what_is_no_file_of_an_array_is_not_followed(folders: ArrayFolders, tmp_path: Path, kind: str) -> None:
    victim, place = tmp_path / "victim", Path(folders.paths[0]) / "1-1"
    victim.write_bytes(b"mine")
    match kind:
        case "symbolic link":
            place.symlink_to(victim)
        case "hard link":
            place.hardlink_to(victim)
        case "folder":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
    with pytest.raises(ValueError, match="is a link, or no file"):
        take_arrays({"$array": {"file": "1-1", "dtype": "uint8", "shape": [4]}}, folders)
    assert victim.read_bytes() == b"mine" and place.exists() == (kind == "folder")
    if kind == "folder":
        place.rmdir()


@pytest.mark.parametrize("linked", [True, False])
def test_a_folder_whose_path_leads_elsewhere_by_now_is_left_alone(
    folders: ArrayFolders, tmp_path: Path, linked: bool
) -> None:
    victim, made = tmp_path / "victim", Path(folders.paths[0])
    victim.mkdir()
    made.rename(tmp_path / "moved")
    if linked:
        (victim / "1-1").write_bytes(b"mine")
        made.symlink_to(victim)
    else:
        # Not even an empty folder of somebody else is removed.
        victim.rename(made)
    with pytest.raises(ValueError):
        take_arrays({"$array": {"file": "1-1", "dtype": "uint8", "shape": [4]}}, folders)
    folders.remove()
    assert made.is_dir() and (not linked or (victim / "1-1").read_bytes() == b"mine")


@pytest.mark.parametrize("size", [0, 3, 5])
def test_an_array_file_of_the_wrong_size_is_removed_and_refused(folders: ArrayFolders, size: int) -> None:
    described = file_of(np.zeros(size, np.uint8), folders)
    described["$array"]["shape"] = [4]
    with pytest.raises(ValueError, match="bytes instead of 4"):
        take_arrays(described, folders)
    assert not left_in(folders)


BAD_DESCRIPTIONS = [
    {"dtype": "object"},
    {"dtype": "O"},
    {"dtype": "<U8"},
    {"dtype": "float32, float32"},
    {"dtype": ["float32"]},
    {"dtype": None},
    {"shape": [10**12]},
    {"shape": [1 << 40, 1 << 40]},
    {"shape": [0, 1 << 62]},
    {"shape": [-1]},
    {"shape": [True]},
    {"shape": [1.0]},
    {"shape": "4"},
    {"shape": None},
    {"shape": [1] * 9},
    {"shape": {"0": 1}},
    {"data": "AACAPw=="},
    {"data": "AACAPwAAAEAAAEB"},
    {"data": "AACAPwAAAEAAAE*A"},
    {"data": 7},
]


@pytest.mark.parametrize("wrong", BAD_DESCRIPTIONS, ids=str)
def test_a_wrong_description_is_refused_at_both_ends(wrong: dict) -> None:
    """Before memory is taken: 10^12 numbers would be 4 TB."""
    right = {"dtype": "float32", "shape": [3], "data": "AACAPwAAAEAAAEBA"}
    assert take_arrays({"$array": right}, None).tolist() == read_inline({"$array": right}).tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError):
        take_arrays({"$array": right | wrong}, None)
    with pytest.raises(EffigyError, match="does not fit its own description"):
        read_inline({"a": [{"$array": right | wrong}]})


def test_a_request_cannot_name_a_file_of_the_workers_machine(tmp_path: Path, removed: list[str]) -> None:
    (tmp_path / "1-1").write_bytes(b"mine")
    with pytest.raises(EffigyError, match="does not fit its own description"):
        read_inline({"$array": {"file": str(tmp_path / "1-1"), "dtype": "uint8", "shape": [4]}})
    assert removed == []


def test_an_array_of_objects_is_never_sent(worker: ArrayFiles) -> None:
    with pytest.raises(TypeError, match="object cannot be in a message"):
        worker.put(np.array([{}]))


def test_both_ends_have_the_same_rules() -> None:
    for name in ("DTYPES", "MAX_DIMENSIONS", "MAX_BYTES", "FILE_NAME"):
        assert getattr(array_files, name) == getattr(array_folders, name), name


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("relative", "is not a full path"),
        (7, "is not a full path"),
        ("/a\x00b", "is not a full path"),
        ("{here}/missing", "is not a folder that can be read"),
        ("{here}/file", "is not a folder"),
        ("{here}/link", "is not a folder itself"),
        ("{here}/open", "is open to other users"),
        ("{here}/full", "is not empty"),
    ],
)
def test_the_worker_uses_only_an_empty_private_folder(tmp_path: Path, folder: object, why: str) -> None:
    for name in ("private", "open", "full"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "full" / "1-1").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "private")
    folder = folder.replace("{here}", str(tmp_path)) if isinstance(folder, str) else folder
    worker = ArrayFiles()
    with pytest.raises(EffigyError, match=why):
        worker.use([str(tmp_path / "private"), folder])
    with pytest.raises(EffigyError, match="older than the backend"):
        worker.put(ARRAYS["small"])
    assert (tmp_path / "full" / "1-1").exists()


@pytest.mark.parametrize("folders_named", ["/", [], ["/tmp"] * 9, {"0": "/"}, 1])
def test_the_worker_takes_a_short_list_of_folders_and_no_text(folders_named: object) -> None:
    with pytest.raises(EffigyError, match="must be a list of 1 to 4 folders"):
        ArrayFiles().use(folders_named)


def test_a_worker_whose_client_was_killed_removes_its_arrays_and_nothing_else(folders: ArrayFolders) -> None:
    worker = ArrayFiles()
    worker.use(folders.paths)
    worker.put(ARRAYS["small"])
    foreign = Path(folders.paths[1]) / "letter.txt"
    foreign.touch()
    worker.close()
    assert not Path(folders.paths[0]).exists() and left_of(folders.paths[1]) == ["letter.txt"]


def left_of(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]


def test_the_folders_are_removed_with_what_is_in_them(
    folders: ArrayFolders, worker: ArrayFiles, tmp_path: Path
) -> None:
    worker.put(ARRAYS["large"])
    (Path(folders.paths[1]) / "link").symlink_to(tmp_path)
    folders.remove()
    assert not any(Path(folder).exists() for folder in folders.paths) and (tmp_path / "memory").is_dir()
    assert not list((tmp_path / "memory").iterdir()) and not list((tmp_path / "disk").iterdir())
