"""Whether a .blend was written to its end, and its version before if it was not.

Where the disk is full, Blender (5.0.1 with *Compress File*, its default) says that it has saved, and has replaced the
file by its beginning. A file with rigs is therefore looked at after saving. If its end is missing, the version before,
of which a hard link was kept meanwhile, gets its name back, and the artist is told.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import bpy
from bpy.app.handlers import persistent

from .file_names import beside
from .reporting import report_soon
from .rig.rig_properties import is_part

END: Final = b"ENDB"
"""The code of the last block. After it comes the rest of the block's header, at most 28 bytes."""
ZSTD: Final = b"\x28\xb5\x2f\xfd"
SEEKABLE: Final = 0x8F92EAB1
"""The last four bytes of a compressed file: that of the seek table (facebook/zstd, "Zstandard Seekable Format")."""


def is_whole(path: Path) -> bool:
    """Whether a .blend has its end. Raises an `OSError` if it cannot be read."""
    with path.open("rb") as file:
        compressed = file.read(4) == ZSTD
        size = file.seek(0, os.SEEK_END)
        if compressed:
            return _has_all_frames(file, size)
        file.seek(max(0, size - 32))
        return END in file.read()


def _has_all_frames(file: BinaryIO, size: int) -> bool:
    """Whether the sizes in the seek table of a compressed file add up to the file's."""
    if size < 17:
        return False
    file.seek(size - 9)
    count, described, magic = struct.unpack("<IBI", file.read(9))
    entry = 12 if described & 0x80 else 8
    table = count * entry
    if magic != SEEKABLE or table + 17 > size:
        return False
    file.seek(size - 9 - table)
    entries = file.read(table)
    return sum(struct.unpack_from("<I", entries, at)[0] for at in range(0, table, entry)) + table + 17 == size


def _kept_of(path: Path) -> Path:
    return beside(path, f".{os.getpid()}.before", ".")


@persistent
def _keep(filepath: str, *_: object) -> None:
    """Handler: before a file is saved."""
    if filepath and any(is_part(obj, "armature") for obj in bpy.data.objects):
        path = Path(filepath)
        # Not every file system has hard links, and a new file has no version before.
        with suppress(OSError):
            os.link(path, _kept_of(path))


@persistent
def _check(filepath: str, *_: object) -> None:
    """Handler: after a file was saved, also if that failed."""
    if not filepath:
        return
    path = Path(filepath)
    kept = _kept_of(path)
    try:
        ours = any(is_part(obj, "armature") for obj in bpy.data.objects)
        if not ours or not path.is_file() or is_whole(path):
            return
        if kept.is_file():
            kept.replace(path)
            before = "The version before it is unchanged"
        else:
            path.unlink()
            before = "There is no version before it"
        report_soon(
            f"{path.name} could not be saved: only its beginning was written, because the disk is full. {before}. Free "
            "some space and save again before you close Blender."
        )
    except OSError as error:
        report_soon(f"{path.name} could not be read after saving ({error.strerror or error}): save it elsewhere too.")
    finally:
        with suppress(OSError):
            kept.unlink(missing_ok=True)


handlers: Final = (("save_pre", _keep), ("save_post", _check), ("save_post_fail", _check))
