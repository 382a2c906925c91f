"""Baked splats: the splats of a range of frames, in memory or on disk, so that playback does not need the worker.

Each frame is stored with the key of the pose from which it was baked (`splats_request.pose_key`). Where the current
pose has another key, because the animation was changed, `baked_splats` returns None and the splats come from the
worker. After such a change a finished bake lacks frames, but it never shows the splats of another pose. The head's own
motion is not part of the key, because the splats are moved with the head. The viewpoint is not part of the key either:
baked colours are those of the viewpoint for which the bake was made (`baking.ColorViewpoint`).

Means are stored in single precision, everything else in half precision: 34 bytes per Gaussian. The relative error of
half precision is 1/2000, which for a colour of 1 is an eighth of a level of 8-bit colour.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from bpy.app.handlers import persistent

from .. import trusted_paths
from ..errors import EffigyError
from ..paths import absolute
from ..redraw import redraw_views
from ..rig.rig_properties import Rig, find_rigs
from .baked_frames import BYTES_PER_SPLAT, BakedFrames, FramesInMemory, FramesOnDisk
from .splats import Splats

_HALF_COLUMNS: Final = {
    "quaternions": slice(0, 4),
    "scales": slice(4, 7),
    "opacities": slice(7, 8),
    "colors": slice(8, 11),
}


@dataclass
class Bake:
    """The F baked frames `first` to `first + F - 1` of one avatar with G Gaussians."""

    source: tuple[Any, ...]
    """Identifies the avatar that was baked (`source_of`)."""
    first: int
    keys: list[bytes | None]
    """The pose's key for each of the F frames; None for a frame that is not baked yet."""
    motions: np.ndarray
    """(F, 4, 4) `Splats.motion`."""
    frames: BakedFrames
    """Means, and in half precision quaternions, scales, opacities and colours."""
    changed: set[int] = field(default_factory=set)
    """Frames whose pose turned out to differ from the baked one."""
    last: tuple[int, Splats] | None = None
    """The last frame that was returned, and its splats, which are reused when the frame is drawn again."""

    @property
    def count(self) -> int:
        """The number of frames baked so far."""
        return sum(key is not None for key in self.keys)

    @property
    def bytes(self) -> int:
        """The size in bytes of the frames baked so far. Frames that are allocated but not yet baked do not count."""
        return self.count * self.frames.gaussians * BYTES_PER_SPLAT

    @property
    def allocated(self) -> int:
        """The size in bytes of all its frames, those that are not baked yet as well."""
        return self.frames.count * self.frames.gaussians * BYTES_PER_SPLAT

    def store(self, frame: int, key: bytes, splats: Splats) -> None:
        """Stores the splats of a frame whose pose has this key. `frame` is the scene's frame number. Raises an
        `EffigyError` if there is no room.
        """
        index, count = frame - self.first, len(splats.means)
        halves = np.concatenate([getattr(splats, name).reshape(count, -1) for name in _HALF_COLUMNS], 1)
        # The frame counts as not baked while it is being written.
        self.keys[index] = None
        self.frames.store(index, splats.means, halves.astype(np.float16))
        self.motions[index], self.keys[index] = splats.motion, key
        self.changed.discard(frame)
        if self.last and self.last[0] == frame:
            self.last = None

    def load(self, frame: int, key: bytes) -> Splats | None:
        """The splats of a frame, always the same object while the frame stays the same. None if the frame is not baked,
        its pose has changed or its file was damaged.
        """
        index = frame - self.first
        if not 0 <= index < len(self.keys) or self.keys[index] is None:
            return None
        if self.keys[index] != key:
            self.changed.add(frame)
            return None
        self.changed.discard(frame)
        if self.last is None or self.last[0] != frame:
            try:
                means, halves = self.frames.load(index)
            except EffigyError:
                self.keys[index] = None
                return None
            others = halves.astype(np.float32)
            parts = {name: others[:, columns] for name, columns in _HALF_COLUMNS.items()}
            parts["opacities"] = parts["opacities"][:, 0]
            self.last = frame, Splats(means=means, motion=self.motions[index], **parts)
        return self.last[1]


@dataclass
class BakeStore:
    """All bakes of the open file. They are dropped when another file is loaded or the extension is disabled."""

    bakes: dict[int, Bake] = field(default_factory=dict)
    """By `Rig.uid`."""
    in_progress: set[int] = field(default_factory=set)
    """`Rig.uid` of the rigs that are being baked. Until the bake is finished, the 3D View shows the baked
    frame that it drew last where a frame is not baked yet, because otherwise it would request the same frames from the
    worker a second time."""

    def clear(self) -> None:
        for bake in self.bakes.values():
            bake.frames.free()
        self.bakes.clear()
        self.in_progress.clear()


store: Final = BakeStore()


def create(rig: Rig, first: int, count: int, gaussians: int, budget: int, on_disk: bool) -> Bake:
    """Allocates a bake of `count` frames from `first`, which replaces the avatar's earlier one.

    Raises an `EffigyError` if the new bake and those of other avatars, finished or not, would together take more than
    `budget` bytes, in memory and on disk alike, or if there is not enough memory or disk space.
    """
    clear(rig)
    clear_deleted()
    needed = count * gaussians * BYTES_PER_SPLAT
    used = sum(bake.allocated for bake in store.bakes.values())
    if needed + used > budget:
        fits = max(0, (budget - used) // (gaussians * BYTES_PER_SPLAT))
        raise EffigyError(
            f"Baking {count} frames of “{rig.armature.name}” takes {_size_text(needed)}"
            + (f" in addition to the {_size_text(used)} of other bakes" if used else "")
            + f", and the limit is {_size_text(budget)}: {fits} frames fit. Raise the limit or bake fewer frames."
        )
    # Blender deletes this folder when it quits. Its location is set under Preferences ▸ File Paths.
    home = Path(bpy.app.tempdir)
    try:
        if on_disk and shutil.disk_usage(home).free < 1.05 * needed:
            raise EffigyError(
                f"The disk that holds {home} has no room for {_size_text(needed)}: free some space, or bake to memory."
            )
        frames = FramesOnDisk(count, gaussians, home) if on_disk else FramesInMemory(count, gaussians)
    except (OSError, MemoryError) as error:
        raise EffigyError(f"There is not enough room for a bake of {_size_text(needed)}: bake fewer frames.") from error
    bake = Bake(source_of(rig.armature), first, [None] * count, np.zeros((count, 4, 4)), frames)
    store.bakes[rig.uid] = bake
    return bake


def bake_of(rig: Rig) -> Bake | None:
    """The bake of a rig; None if there is none. Its avatar may have been replaced since (`Bake.source`)."""
    return store.bakes.get(rig.uid)


def clear(rig: Rig) -> None:
    """Deletes the bake of a rig's avatar, if there is one."""
    bake = store.bakes.pop(rig.uid, None)
    if bake:
        bake.frames.free()
        redraw_views()


def clear_deleted() -> None:
    """Deletes the bakes of rigs that are no longer in the file. This happens when another bake begins or the artist
    clears the bakes, not when the rig is deleted, because an undo may bring that back.
    """
    existing = {rig.uid for rig in find_rigs(bpy.data.objects)}
    for uid in set(store.bakes) - existing - store.in_progress:
        store.bakes.pop(uid).frames.free()


def source_of(armature: bpy.types.Object) -> tuple[Any, ...]:
    """Identifies the avatar of an armature. It differs for another avatar and after another training."""
    settings = armature.effigy
    if settings.packed:
        return ("packed", settings.packed.session_uid)
    try:
        path = absolute(settings.avatar, armature)
        if not trusted_paths.trusts(path):
            return (str(path),)
        status = path.stat()
    except (OSError, ValueError, EffigyError):
        return (settings.avatar,)
    # The full path: saving the .blend for the first time or elsewhere changes the stored one.
    return str(path), status.st_mtime_ns, status.st_size


@contextmanager
def same_avatar(rig: Rig) -> Iterator[None]:
    """While the avatar of a rig is packed or unpacked, which does not change it: its bake stays valid."""
    bake = store.bakes.get(rig.uid)
    valid = bake is not None and bake.source == source_of(rig.armature)
    yield
    if valid:
        bake.source = source_of(rig.armature)


def baked_splats(rig: Rig, frame: int, key: bytes) -> Splats | None:
    """The baked splats of a frame whose pose has this key; None if there are none, or if the avatar has been trained
    again or replaced since. While the avatar is being baked, the splats that were returned last are returned for a
    frame that is not baked yet, although they have another pose. This runs at every redraw, so it must be fast and must
    not change anything in Blender.
    """
    uid = rig.uid
    bake = store.bakes.get(uid)
    if bake is None or bake.source != source_of(rig.armature):
        return None
    found = bake.load(frame, key)
    if found is None and uid in store.in_progress and bake.last:
        return bake.last[1]
    return found


def _size_text(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


@persistent
def _before_load(*_: object) -> None:
    """Handler: drops all bakes before another file is loaded."""
    store.clear()


handlers: Final = (("load_pre", _before_load),)


def unregister() -> None:
    store.clear()
