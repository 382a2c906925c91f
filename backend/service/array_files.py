"""Arrays beside messages: in files of the client's folders, or as base64 in the message itself.

In a message, an array is `{"$array": {"file": name, "dtype": "float32", "shape": [..]}}`. The file is in one of the
folders that the client has made for this connection and named in `hello`: one in memory where the system has such a
folder, and one on the disk for arrays that do not fit into memory. The name is made of digits and cannot lead anywhere
else. The client deletes the file when it has read it. A worker on another machine (`ssh host …`) shares no files with
Blender: its bytes are in the message itself, as base64 in `{"$array": {"data": …, "dtype": …, "shape": …}}`. Requests
carry their arrays in this way as well.

The rules for names, types and sizes are those of `blender_addon/worker/array_folders.py`.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import math
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import EffigyError

DTYPES: Final = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)
"""NumPy's names of the types that an array in a message may have: numbers, and nothing that points into memory."""
MAX_DIMENSIONS: Final = 8
MAX_BYTES: Final = 8 << 30
"""Of one array. The colours of the largest picture, 16384 x 16384 pixels, take 3.2 GB."""
FILE_NAME: Final = re.compile(r"[0-9]{1,10}-[0-9]{1,18}")
"""Process and number of an array's file."""
MAX_FOLDERS: Final = 4
NOT_TOLD: Final = (
    "The extension did not tell the worker where arrays go, so it is older than the backend: update the extension."
)
_BINARY: Final = getattr(os, "O_BINARY", 0)
_HAS_FOLDER_DESCRIPTORS: Final = os.open in os.supports_dir_fd and os.name == "posix"


class ArrayFiles:
    """Where this process puts the arrays of its messages."""

    def __init__(self) -> None:
        self.inline = False
        """Whether arrays go inside messages instead of files."""
        self._folders: list[_Folder] = []
        self._count = itertools.count()

    @property
    def folders(self) -> list[str]:
        return [str(folder.path) for folder in self._folders]

    def use(self, folders: object, *, empty: bool = True) -> None:
        """Put arrays into these folders of the client from now on.

        Each must be the full path of a private folder of this user. `empty`: it must also be empty, because `close`
        removes what is in it. Raises an `EffigyError`, and once the folders are known, for others.
        """
        if not isinstance(folders, list) or not 0 < len(folders) <= MAX_FOLDERS:
            raise EffigyError(f"hello: folders must be a list of 1 to {MAX_FOLDERS} folders for arrays.")
        if self._folders:
            if folders != self.folders:
                raise EffigyError("hello: the folders for arrays cannot be changed later.")
            return
        checked = [_checked_folder(folder, empty=empty) for folder in folders]
        try:
            self._folders = [_Folder(folder) for folder in checked]
        except OSError as error:
            raise EffigyError(
                f"The worker cannot use a folder for arrays ({error.strerror}): restart Blender."
            ) from error

    def put(self, array: np.ndarray) -> dict[str, Any]:
        """Write `array` to a file and describe it for a message. Raises `EffigyError` where no folder has room."""
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
        description = {"dtype": array.dtype.name, "shape": list(array.shape)}
        if array.dtype.name not in DTYPES:
            raise TypeError(f"an array of {array.dtype} cannot be in a message")
        if self.inline:
            return {"$array": {"data": base64.b64encode(array.tobytes()).decode("ascii"), **description}}
        if not self._folders:
            raise EffigyError(NOT_TOLD)
        data = array.reshape(-1).view(np.uint8).data
        for folder in self._folders:
            name = f"{os.getpid()}-{next(self._count)}"
            with suppress(OSError):
                folder.write(name, data)
                return {"$array": {"file": name, **description}}
        folders = " or ".join(self.folders)
        raise EffigyError(f"There is no room for {array.nbytes / 1e6:.0f} MB in {folders}: free some space.")

    def remove(self, descriptions: Sequence[dict[str, Any]]) -> None:
        """Remove the files of arrays that `put` has described, because their message could not be sent."""
        for description in descriptions:
            if (name := description["$array"].get("file")) is not None:
                for folder in self._folders:
                    folder.remove(name)

    def close(self) -> None:
        """Remove array files that nobody will read, and the folders with them: the client may have been killed."""
        closed, self._folders = self._folders, []
        for folder in closed:
            folder.close()


class _Folder:
    """A folder of array files. Where the system can, it is held open, and a file is found by the open folder instead of
    the path, so that nothing that happens to the path leads elsewhere.
    """

    def __init__(self, path: Path) -> None:
        """Raises an `OSError` if this is no folder, or a link to one."""
        self.path = path
        self._where: dict[str, int] = {}
        if _HAS_FOLDER_DESCRIPTORS:
            self._where["dir_fd"] = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def write(self, name: str, data: memoryview) -> None:
        """Raises an `OSError`, and then leaves no file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
        made = os.open(self._place(name), flags, 0o600, **self._where)
        try:
            with open(made, "wb", buffering=0) as file:
                while data:
                    data = data[file.write(data) :]
        except OSError:
            self.remove(name)
            raise

    def remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(self._place(name), **self._where)

    def close(self) -> None:
        with suppress(OSError):
            with os.scandir(self._where.get("dir_fd", self.path)) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                if FILE_NAME.fullmatch(name):
                    self.remove(name)
        with suppress(OSError):
            # Removes nothing but an empty folder, and fails on a link.
            self.path.rmdir()

    def _place(self, name: str) -> str:
        if not FILE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an array's file")
        return name if self._where else str(self.path / name)


def _checked_folder(path: object, *, empty: bool) -> Path:
    wrong = _what_is_wrong_with(path, empty=empty)
    if wrong:
        raise EffigyError(
            f"The worker cannot use the folder for arrays that the extension names, {str(path)[:200]!r}: it {wrong}. "
            "Restart Blender; if that does not help, install the extension and its backend again."
        )
    return Path(str(path))


def _what_is_wrong_with(path: object, *, empty: bool) -> str | None:
    if not isinstance(path, str) or "\x00" in path or not Path(path).is_absolute():
        return "is not a full path"
    try:
        found = os.lstat(path)
        holds_files = empty and any(Path(path).iterdir())
    except (OSError, ValueError):
        return "is not a folder that can be read"
    # On Windows, the attribute marks links of every kind.
    linked = getattr(found, "st_file_attributes", 0) & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0)
    if not stat.S_ISDIR(found.st_mode) or linked:
        return "is not a folder itself"
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        return "belongs to another user"
    if os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o077:
        return "is open to other users"
    return "is not empty" if holds_files else None


def read_inline(value: Any) -> Any:
    """A request's parameters with base64 arrays decoded; everything else is returned unchanged.

    Type, shape and size are checked before memory is taken. Raises an `EffigyError`, also for an array in a file.
    """
    if isinstance(value, dict):
        if isinstance(description := value.get("$array"), dict):
            try:
                return _decoded(description)
            except (KeyError, ValueError, TypeError) as error:
                raise EffigyError("An array of the request does not fit its own description.") from error
        return {name: read_inline(entry) for name, entry in value.items()}
    if isinstance(value, list) and any(isinstance(entry, (dict, list)) for entry in value):
        return [read_inline(entry) for entry in value]
    return value


def _decoded(description: dict[str, Any]) -> np.ndarray:
    dtype, shape, data = description["dtype"], description["shape"], description["data"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError("a type that no array of a message has")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("no shape of an array")
    size = np.dtype(dtype).itemsize * math.prod(shape)
    if np.dtype(dtype).itemsize * math.prod(max(n, 1) for n in shape) > MAX_BYTES:
        raise ValueError("too large for a message")
    if not isinstance(data, str) or len(data) != 4 * ((size + 2) // 3):
        raise ValueError("another number of bytes than its shape says")
    return np.frombuffer(binascii.a2b_base64(data, strict_mode=True), dtype).reshape(shape)
