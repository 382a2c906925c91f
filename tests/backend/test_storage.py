"""Nothing is ever half-written, and the system's errors become sentences."""

from __future__ import annotations

import errno

import pytest

from backend.errors import EffigyError
from backend.storage import as_effigy_error, check_schema, write_beside


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
