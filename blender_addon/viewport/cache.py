"""Baked splats: those of a range of frames, kept in memory or on disk, so that playback asks no worker.

Each frame is kept together with the key of the pose that it was baked of (`live.key_of`). A frame whose key differs by
now, because the animation was changed, answers nothing, and the worker does: so a bake is never wrong, only incomplete.
The head's own motion is not in the key, since splats are carried along with it.

Means are kept in single precision, the rest in half: 34 bytes a Gaussian. Half precision is off by one in two thousand,
which in a colour is an eighth of what eight bits tell.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from bpy.app.handlers import persistent

from ..errors import EffigyError
from ..paths import absolute
from ..redraw import redraw_views
from ..rig.rig_properties import Rig
from . import live
from .splats import Splats

BYTES_A_SPLAT: Final = 3 * 4 + 11 * 2
_HALF: Final = {"quaternions": slice(0, 4), "scales": slice(4, 7), "opacities": slice(7, 8), "colors": slice(8, 11)}


@dataclass
class Bake:
    """One avatar's frames `first` to `first + len(keys) - 1`."""

    source: tuple[Any, ...]
    """What the avatar was (`source_of`)."""
    first: int
    keys: list[bytes | None]
    """Of each frame's pose; None where it is not baked."""
    motions: np.ndarray
    """(F, 4, 4) `Splats.motion`."""
    means: np.ndarray
    """(F, G, 3) float32."""
    others: np.ndarray
    """(F, G, 11) float16: quaternions, scales, opacities, colours."""
    folder: Path | None
    """Where the two lie, or None: in memory."""
    changed: set[int] = field(default_factory=set)
    """Frames that were met with another pose than the one that was baked."""
    last: tuple[int, Splats] | None = None
    """What was answered last: a frame that is drawn again is not made again."""

    @property
    def count(self) -> int:
        return sum(key is not None for key in self.keys)

    @property
    def bytes(self) -> int:
        return self.count * self.means.shape[1] * BYTES_A_SPLAT

    def put(self, frame: int, key: bytes, splats: Splats) -> None:
        index = frame - self.first
        self.motions[index], self.means[index] = splats.motion, splats.means
        for name, columns in _HALF.items():
            self.others[index, :, columns] = getattr(splats, name).reshape(len(splats.means), -1)
        self.keys[index] = key
        self.changed.discard(frame)
        if self.last and self.last[0] == frame:
            self.last = None

    def get(self, frame: int, key: bytes) -> Splats | None:
        index = frame - self.first
        if not 0 <= index < len(self.keys) or self.keys[index] is None:
            return None
        if self.keys[index] != key:
            self.changed.add(frame)
            return None
        self.changed.discard(frame)
        if self.last is None or self.last[0] != frame:
            others = self.others[index].astype(np.float32)
            parts = {name: others[:, columns] for name, columns in _HALF.items()}
            parts["opacities"] = parts["opacities"][:, 0]
            self.last = frame, Splats(means=np.array(self.means[index]), motion=self.motions[index], **parts)
        return self.last[1]


_bakes: dict[int, Bake] = {}
"""By the armature's `session_uid`."""
in_progress: set[int] = set()
"""Of which avatars a bake goes on: meanwhile the 3D View keeps to what is baked, since it would ask the worker for the
same frames once more."""


def make(rig: Rig, first: int, count: int, gaussians: int, budget: int, on_disk: bool) -> Bake:
    """Room for a bake, in place of the avatar's earlier one; an `EffigyError` where it is more than `budget` bytes, all
    bakes together, or than the disk has."""
    clear(rig.armature)
    needed = count * gaussians * BYTES_A_SPLAT
    used = sum(bake.bytes for bake in _bakes.values())
    if needed + used > budget:
        fits = max(0, (budget - used) // (gaussians * BYTES_A_SPLAT))
        raise EffigyError(
            f"Baking {count} frames of “{rig.armature.name}” takes {_spoken(needed)}"
            + (f" beside the {_spoken(used)} of other bakes" if used else "")
            + f", and the limit is {_spoken(budget)}: {fits} frames fit. Raise it or bake fewer."
        )
    folder = None
    if on_disk:
        # Blender removes it when it ends, and an artist chooses its disk under Preferences ▸ File Paths.
        home = Path(bpy.app.tempdir)
        if shutil.disk_usage(home).free < 1.05 * needed:
            raise EffigyError(
                f"The disk that holds {home} has no room for {_spoken(needed)}: free some, or bake to memory."
            )
        folder = Path(tempfile.mkdtemp(prefix="bake-", dir=home))
    shapes = ((count, gaussians, 3), np.float32), ((count, gaussians, 11), np.float16)
    try:
        if folder is None:
            means, others = (np.zeros(shape, dtype) for shape, dtype in shapes)
        else:
            means, others = (
                np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
                for name, (shape, dtype) in zip(("means", "others"), shapes)
            )
    except (OSError, MemoryError) as error:
        _remove(folder)
        raise EffigyError(f"There is no room for a bake of {_spoken(needed)}: bake fewer frames.") from error
    bake = Bake(source_of(rig.armature), first, [None] * count, np.zeros((count, 4, 4)), means, others, folder)
    _bakes[rig.armature.session_uid] = bake
    return bake


def bake_of(armature: bpy.types.Object) -> Bake | None:
    return _bakes.get(armature.session_uid)


def clear(armature: bpy.types.Object) -> None:
    bake = _bakes.pop(armature.session_uid, None)
    if bake:
        _remove(bake.folder)
        redraw_views()


def source_of(armature: bpy.types.Object) -> tuple[Any, ...]:
    """Which avatar an armature has: another, or one trained again, has other splats."""
    settings = armature.effigy
    if settings.packed:
        return ("packed", settings.packed.session_uid)
    try:
        found = absolute(settings.avatar, armature).stat()
    except OSError:
        return (settings.avatar,)
    return settings.avatar, found.st_mtime_ns, found.st_size


def baked(rig: Rig, frame: int, key: bytes) -> Splats | None:
    """For `live.baked`."""
    uid = rig.armature.session_uid
    bake = _bakes.get(uid)
    if bake is None or bake.source != source_of(rig.armature):
        return None
    found = bake.get(frame, key)
    if found is None and uid in in_progress and bake.last:
        return bake.last[1]
    return found


def _spoken(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _remove(folder: Path | None) -> None:
    if folder is not None:
        # On Windows a file that is still mapped stays until Blender's temporary folder goes.
        shutil.rmtree(folder, ignore_errors=True)


@persistent
def _forget(*_: object) -> None:
    for bake in _bakes.values():
        _remove(bake.folder)
    _bakes.clear()
    in_progress.clear()


def register() -> None:
    live.baked = baked
    bpy.app.handlers.load_pre.append(_forget)


def unregister() -> None:
    live.baked = None
    if _forget in bpy.app.handlers.load_pre:
        bpy.app.handlers.load_pre.remove(_forget)
    _forget()
