"""The folders through which a worker on this machine passes arrays: made here, named to the worker, and removed here.

One is in memory where the system has such a folder, and one on the disk for arrays that do not fit into memory. A
message names an array by its file's plain name, which is made of digits. The folders are held open where the system
can, and files are found by the open folder instead of a path. So nothing that a message says, and nothing that happens
to a path, makes this process read or remove a file anywhere else.

The rules for names, types and sizes are those of `backend/service/array_files.py`.
"""

from __future__ import annotations

import math
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import EffigyError

MEMORY_FOLDER: Final = Path("/dev/shm")
PREFIX: Final = "effigy-arrays-"
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
COPY_BELOW: Final = 1 << 16
"""Bytes below which a copy is cheaper than a mapping."""
REMOVAL_TRIES: Final = 20
REMOVAL_SECONDS: Final = 0.05
"""Between two tries. A job that outlives the worker for a moment may still be writing a preview."""
_BINARY: Final = getattr(os, "O_BINARY", 0)
_HAS_FOLDER_DESCRIPTORS: Final = os.open in os.supports_dir_fd and os.name == "posix"


class ArrayFolders:
    """The folders of one connection."""

    def __init__(self) -> None:
        """Makes them, private to this user. Raises an `EffigyError`."""
        # Of two threads that remove at once, one must not use a folder that the other has closed.
        self._lock = threading.Lock()
        self._folders: list[_Folder] = []
        if os.access(MEMORY_FOLDER, os.W_OK):
            with suppress(OSError):
                self._folders.append(_Folder(MEMORY_FOLDER))
        try:
            self._folders.append(_Folder(None))
        except OSError as error:
            self.remove()
            raise EffigyError(
                f"No folder for the worker's arrays can be made in {tempfile.gettempdir()} "
                f"({error.strerror or error}): free some space, or set TMPDIR to a folder that can be written."
            ) from error

    @property
    def paths(self) -> list[str]:
        return [str(folder.path) for folder in self._folders]

    def take(self, name: object, dtype: np.dtype[Any], shape: tuple[int, ...], size: int) -> np.ndarray:
        """Reads and removes an array's file of `size` bytes.

        On Linux and macOS a memory-mapped file stays readable after it is deleted: nothing is copied, and the memory is
        freed together with the array. Windows cannot delete a mapped file, so there the file is read into memory first.
        Raises a ValueError or an OSError for anything else than a file of this size in these folders.
        """
        if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
            raise ValueError(f"an array in a file that is not named by the protocol, {str(name)[:80]!r}")
        with self._lock:
            for folder in self._folders:
                with suppress(FileNotFoundError):
                    return folder.take(name, dtype, shape, size)
        raise ValueError(f"the file of an array, {name}, does not exist")

    def remove(self) -> None:
        """Removes the folders, which exist no longer for anyone who would still write into them."""
        for _ in range(REMOVAL_TRIES):
            with self._lock:
                self._folders = [folder for folder in self._folders if not folder.remove()]
                if not self._folders:
                    return
            time.sleep(REMOVAL_SECONDS)


class _Folder:
    def __init__(self, parent: Path | None) -> None:
        """Makes a folder in `parent`, None for the system's folder for temporary files. Raises an `OSError`."""
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).absolute()
        self._made = os.lstat(self.path)
        self._where: dict[str, int] = {}
        if _HAS_FOLDER_DESCRIPTORS:
            self._where["dir_fd"] = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def take(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], size: int) -> np.ndarray:
        # O_NONBLOCK: a pipe of that name must not make this thread wait.
        flags = os.O_RDONLY | _BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        place = self._place(name)
        try:
            # Only Windows, which cannot refuse a link when it opens a file, needs the look before.
            if not _is_own_file(os.lstat(place, **self._where)) or not self._is_made_here():
                raise ValueError(f"the file of an array, {name}, is a link, or no file of this user")
            with open(os.open(place, flags, **self._where), "rb") as file:
                found = os.fstat(file.fileno())
                if not _is_own_file(found) or found.st_size != size:
                    raise ValueError(f"the file of an array has {found.st_size} bytes instead of {size}")
                if os.name == "nt" or size < COPY_BELOW:
                    return np.fromfile(file, dtype).reshape(shape)
                return np.memmap(file, dtype, "c", shape=shape).view(np.ndarray)
        finally:
            self._unlink(name)

    def remove(self) -> bool:
        """Removes the folder with the files in it, if it is still the one that was made. Returns whether it is gone."""
        with suppress(OSError):
            if self._is_made_here():
                with os.scandir(self._where.get("dir_fd", self.path)) as entries:
                    names = [entry.name for entry in entries]
                for name in names:
                    self._unlink(name)
                # Removes nothing but an empty folder, and fails on a link.
                self.path.rmdir()
        if gone := not self._is_made_here():
            self._close()
        return gone

    def _is_made_here(self) -> bool:
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return stat.S_ISDIR(found.st_mode) and os.path.samestat(found, self._made)

    def _place(self, name: str) -> str:
        return name if self._where else str(self.path / name)

    def _unlink(self, name: str) -> None:
        """Removes the entry of this name itself: of a link the link, and nothing of a folder."""
        if self._where or self._is_made_here():
            with suppress(OSError):
                os.unlink(self._place(name), **self._where)

    def _close(self) -> None:
        if (descriptor := self._where.pop("dir_fd", None)) is not None:
            os.close(descriptor)


def check_description(described: Mapping[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Type, shape and bytes of an array that a message describes, checked before memory is taken for it.

    Raises a ValueError.
    """
    name, shape = described.get("dtype"), described.get("shape")
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"an array of a type that the protocol has not, {str(name)[:80]!r}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array whose shape is not a short list of whole numbers")
    dtype = np.dtype(name)
    if dtype.itemsize * math.prod(max(n, 1) for n in shape) > MAX_BYTES:
        raise ValueError("an array that is too large for a message")
    return dtype, tuple(shape), dtype.itemsize * math.prod(shape)


def _is_own_file(found: os.stat_result) -> bool:
    """Whether this is a file of this user that has no other name; neither a link nor a folder, device or pipe."""
    # On Windows, the attribute marks links of every kind.
    linked = getattr(found, "st_file_attributes", 0) & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0)
    own = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    return stat.S_ISREG(found.st_mode) and not linked and own and found.st_nlink <= 1
