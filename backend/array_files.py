"""Reading of `.npz` archives, within bounds that are checked before anything is decompressed.

An archive of a few kilobytes can claim arrays of terabytes, and its compressed members can expand to a thousand times
their size. `read_arrays` therefore reads the archive's directory and each array's header first, adds up their claims,
and decompresses only what fits. Arrays of Python objects are never read, because unpickling them can run a program.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from .errors import EffigyError
from .file_kinds import sentence_of_kind
from .reading import Damaged, open_regular, shown, too_large

MOST_MEMBERS: Final = 256
"""Arrays of one archive; a head model, which has the most, has about 30."""
_MOST_DIRECTORY: Final = MOST_MEMBERS * 1024
"""Bytes of an archive's directory: Python makes an object of some hundred bytes from every 46 bytes of it."""
_END: Final = struct.Struct("<4s4H2LH")
"""A ZIP archive's end-of-central-directory record."""
_MOST_HEADER: Final = 10_000
"""Bytes of an array's header, NumPy's own limit."""


def read_arrays(
    path: Path, noun: str, remedy: str, most: int, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`, or those of them that are in `names`. Call it within `reading.reading`.

    `most` bounds the bytes of the file and, apart from that, the bytes of all arrays together. Raises an `EffigyError`
    for an archive that is larger or that holds arrays of Python objects, and any exception for a damaged one.
    """
    with open_regular(path, noun, most, remedy) as file:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len({member.filename for member in members}) < len(members):
                raise Damaged("it holds an array twice")
            wanted = [member for member in members if names is None or member.filename.removesuffix(".npy") in names]
            room = most
            for member in wanted:
                # The header's own length is a claim too, which is believed up to the member's length.
                room -= member.file_size
                if room >= 0:
                    room -= max(0, _claimed_bytes(archive, member, path, noun, remedy) - member.file_size)
                if room < 0:
                    raise too_large(path, noun, f"its arrays claim more than {most / 1e6:,.0f} MB", "that much", remedy)
            return {member.filename.removesuffix(".npy"): _read(archive, member) for member in wanted}


def _check_directory(file: BinaryIO) -> None:
    """Refuse an archive whose directory is larger than that of any file of arrays."""
    size = file.seek(0, 2)
    # The record is followed by a comment of at most 64 kB.
    file.seek(max(0, size - _END.size - 2**16))
    tail = file.read()
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) - found < _END.size:
        raise Damaged("it is cut short or no archive")
    _, _, _, _, members, directory, _, _ = _END.unpack_from(tail, found)
    # Before the record of an archive of more than 4 GB stands another one, which zipfile would believe.
    if tail[max(0, found - 20) : found].startswith(b"PK\6\7") or members > MOST_MEMBERS or directory > _MOST_DIRECTORY:
        raise Damaged("its directory is larger than that of any file of arrays")
    file.seek(0)


def _claimed_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, noun: str, remedy: str) -> int:
    """Bytes of the array that a member's header claims."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = _HEADER_READERS.get(version)
        if read_header is None:
            raise Damaged(f"{shown(member.filename)} is of an unknown format")
        shape, _, dtype = read_header(stream, max_header_size=_MOST_HEADER)
        header = stream.tell()
    if dtype.hasobject:
        raise EffigyError(
            sentence_of_kind(path, noun)
            or f"{path} was not opened: it holds arrays of Python objects, which could run a program when read. "
            f"Save it with plain arrays (sparse matrices as dense ones), or {remedy}."
        )
    if dtype.names is not None or dtype.subdtype is not None:
        raise Damaged(f"{shown(member.filename)} is no array of plain numbers")
    if any(length < 0 for length in shape):
        raise Damaged(f"{shown(member.filename)} has a negative length")
    # A length without bytes (N, 0) costs nothing here, but the loops of those who use the array.
    count = math.prod(max(length, 1) for length in shape)
    claimed = max(count, count * dtype.itemsize)
    if math.prod(shape) * dtype.itemsize + header > member.file_size:
        raise Damaged(f"{shown(member.filename)} is cut short")
    return claimed


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False, max_header_size=_MOST_HEADER)


_HEADER_READERS: Final[dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
