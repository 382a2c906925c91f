"""Bytes from a stranger are recognised as an avatar by their header, before the extension writes or sends them."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from blender_addon.avatar_header import MOST_HEADER_BYTES, check_avatar_file, is_avatar
from blender_addon.errors import EffigyError

AVATARS = sorted((Path(__file__).resolve().parents[1] / "files_of_0_1").glob("*.effigy"))
TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(header: object, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def recognised(content: bytes) -> bool:
    return is_avatar(io.BytesIO(content), len(content))


@pytest.mark.parametrize("path", AVATARS, ids=lambda path: path.name)
def test_avatars_of_earlier_versions_are_recognised(path: Path) -> None:
    check_avatar_file(path)
    content = path.read_bytes()
    assert recognised(content) and not recognised(content[:-1]) and not recognised(content + b"\0")


def test_the_smallest_avatar_is_recognised() -> None:
    assert recognised(file_of({"__metadata__": {"effigy": "{}"}, "a": TENSOR}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"import os\nos.system('x')\n",
        b"\0" * 100,
        (1 << 60).to_bytes(8, "little") + b"{}",
        file_of({"a": TENSOR}),
        file_of({"__metadata__": {"format": "pt"}, "a": TENSOR}),
        file_of({"__metadata__": "effigy", "a": TENSOR}, bytes(4)),
        file_of({"__metadata__": {"effigy": ""}, "a": TENSOR | {"shape": [3]}}),
        file_of({"__metadata__": {"effigy": ""}, "a": TENSOR | {"shape": [-2]}}),
        file_of({"__metadata__": {"effigy": ""}, "a": TENSOR | {"shape": [10**30, 10**30]}}),
        file_of({"__metadata__": {"effigy": ""}, "a": TENSOR | {"shape": 2}}),
        file_of({"__metadata__": {"effigy": ""}, "a": TENSOR | {"dtype": "X"}}),
        file_of({"__metadata__": {"effigy": ""}, "a": TENSOR | {"data_offsets": [0]}}),
        file_of({"__metadata__": {"effigy": ""}, "a": TENSOR | {"data_offsets": ["0", 8]}}),
        file_of({"__metadata__": {"effigy": ""}, "a": TENSOR, "b": TENSOR}),
        file_of({"__metadata__": {"effigy": ""}, "a": None}),
        file_of([1]),
        file_of(b"\xff\xfe\xfd"),
        file_of(b"[" * 100_000),
        file_of({"__metadata__": {"effigy": " " * MOST_HEADER_BYTES}, "a": TENSOR}),
    ],
    ids=lambda content: repr(content[:24]),
)
def test_anything_else_is_refused(content: bytes, tmp_path: Path) -> None:
    assert not recognised(content)
    (tmp_path / "x.effigy").write_bytes(content)
    with pytest.raises(EffigyError, match=r"x\.effigy is (not an avatar|empty|full of zeros|weights of another)"):
        check_avatar_file(tmp_path / "x.effigy")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_a_device_and_a_pipe_are_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(EffigyError, match="is a pipe or a device"):
            check_avatar_file(tmp_path / name)


def test_a_missing_file_and_an_impossible_name_give_a_sentence(tmp_path: Path) -> None:
    for name in ("gone", "a" * 5000, "a\0b"):
        with pytest.raises(EffigyError, match="There is no avatar at"):
            check_avatar_file(tmp_path / name)
