"""How many avatars the worker keeps open, and which of them makes room."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.devices import usable_cuda
from backend.service import open_avatars
from backend.service.open_avatars import MAX_OPEN, OpenAvatars


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, in order; what is read of a file is its name."""
    names: list[str] = []

    def load_avatar(path: Path, device: torch.device) -> str:
        names.append(path.name)
        assert device.type == ("cuda" if usable_cuda().usable else "cpu")
        return path.name

    monkeypatch.setattr(open_avatars, "load_avatar", load_avatar)
    return names


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / str(number) for number in range(MAX_OPEN + 1)]
    for path in made:
        path.write_bytes(b"avatar")
    return made


def test_one_avatar_more_than_fit_closes_the_one_longest_unused(files: list[Path], read: list[str]) -> None:
    avatars = OpenAvatars()
    for path in files[:MAX_OPEN]:
        assert avatars.get(path) == path.name
    # The first is used again, so that the second is the longest unused when the last comes.
    avatars.get(files[0])
    avatars.get(files[MAX_OPEN])
    assert read == [path.name for path in files], "an open avatar is not read again"
    for path in (files[0], *files[2:]):
        avatars.get(path)
    assert len(read) == MAX_OPEN + 1
    avatars.get(files[1])
    assert read[MAX_OPEN + 1 :] == [files[1].name]


def test_an_avatar_whose_file_changed_is_read_again_and_one_whose_file_is_gone_stays_open(
    files: list[Path], read: list[str]
) -> None:
    avatars = OpenAvatars()
    avatars.get(files[0])
    files[0].write_bytes(b"a longer avatar")
    avatars.get(files[0])
    assert read == ["0", "0"]
    files[0].unlink()
    assert avatars.get(files[0]) == "0" and read == ["0", "0"]
