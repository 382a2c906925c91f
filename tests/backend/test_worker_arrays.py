"""Arrays beside messages arrive unchanged, whatever their shape and type, and their files are deleted when read."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from backend.errors import EffigyError
from backend.service.protocol import ArrayFolders, read_inline
from blender_addon.worker.arrays import put_arrays, take_arrays

ARRAYS = {
    "large": np.random.default_rng(0).normal(size=(200, 400, 3)).astype(np.float32),
    "small": np.arange(5, dtype=np.int32),
    "none": np.zeros((0, 3), np.float32),
    "one": np.array(2.5),
    "image": np.full((3, 4, 3), 200, np.uint8),
    "strided": np.arange(24, dtype=np.float64).reshape(4, 6)[:, ::2],
}


@pytest.fixture
def folders():
    folders = ArrayFolders()
    yield folders
    folders.close()


@pytest.mark.parametrize("inline", [False, True])
def test_arrays_arrive_unchanged(folders, inline):
    folders.inline = inline
    message = json.loads(json.dumps({"nested": [{name: folders.put(array)} for name, array in ARRAYS.items()]}))
    taken = {name: array for entry in take_arrays(message)["nested"] for name, array in entry.items()}
    assert not any(list(Path(folder).iterdir()) for folder in folders.folders)
    for name, array in ARRAYS.items():
        assert taken[name].dtype == array.dtype and np.array_equal(taken[name], array), name
        if array.size:
            # The receiver may write into the array.
            taken[name].reshape(-1)[0] = 1


def test_requests_carry_arrays_of_any_size():
    for array in ARRAYS.values():
        received = read_inline(json.loads(json.dumps(put_arrays({"group": {"array": array}}))))["group"]["array"]
        assert np.array_equal(np.asarray(received, array.dtype).reshape(array.shape), array)


@pytest.mark.skipif(os.name == "nt", reason="on Windows the user's temporary folder is private by its access list")
def test_other_users_cannot_read_the_folders(folders):
    assert all(stat.S_IMODE(Path(folder).stat().st_mode) == 0o700 for folder in folders.folders)


def test_an_array_that_does_not_fit_into_memory_goes_to_the_disk(tmp_path):
    folders = ArrayFolders([str(tmp_path / "full"), str(tmp_path)])
    assert take_arrays(folders.put(ARRAYS["large"])).shape == (200, 400, 3)
    assert list(tmp_path.iterdir()) == []


def test_no_room_anywhere_is_an_error(tmp_path):
    with pytest.raises(EffigyError, match="no room for 1 MB"):
        ArrayFolders([str(tmp_path / "full")]).put(ARRAYS["large"])
