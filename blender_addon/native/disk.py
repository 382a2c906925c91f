"""Bake to Disk: a range of frames of an avatar as a USD file, and an object that plays it.

The object is the avatar's native splats with the modifier Mesh Sequence Cache, which belongs to Blender: a render farm
needs the .blend and the file, neither Effigy nor the avatar nor a backend. Where the file is missing the splats of the
last frame that was shown remain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from .. import tasks
from ..errors import EffigyError
from ..native_clouds import cloud_of
from ..paths import stored
from ..rig.rig_properties import Rig
from ..rig.steps import Steps
from ..tasks import Task
from ..viewport.baking import restored_frame
from . import cloud as point_cloud
from .frame import NativeSplats, request_of, splats_of
from .usd import PRIM, UsdWriter


def bake(context: bpy.types.Context, rig: Rig, path: Path, first: int, last: int) -> Task:
    """Starts writing the frames `first` to `last`, both included, to `path`. Raises an `EffigyError` for an empty range
    or a rig of another file.
    """
    if last < first:
        raise EffigyError(f"The last frame ({last}) is before the first ({first}).")
    point_cloud.check_own(rig)
    if not path.parent.is_dir():
        raise EffigyError(f"There is no folder {path.parent}: make it, or choose another one.")
    scene, layer = context.scene, context.view_layer
    return tasks.start_local(
        f"Bake {path.name}",
        lambda: _bake(scene, layer, rig, path, first, last),
        "It was stopped, and nothing was written.",
    )


def _bake(
    scene: bpy.types.Scene, layer: bpy.types.ViewLayer, rig: Rig, path: Path, first: int, last: int
) -> Steps[str]:
    count, render = last - first + 1, scene.render
    splats: NativeSplats | None = None
    empty: list[int] = []
    with restored_frame(scene), UsdWriter(path, (first, last), render.fps / render.fps_base) as file:
        for number, frame in enumerate(range(first, last + 1)):
            scene.frame_set(frame)
            request = request_of(rig, cloud_of(rig, scene.objects), layer.depsgraph, asked=True, in_world=True)
            if request is None:
                empty.append(frame)
            else:
                splats = splats_of(request)
                file.add(frame, splats)
            if splats is not None:
                for hidden in empty:
                    file.add(hidden, splats.transparent())
                empty.clear()
            yield (number + 1) / count
        if splats is None:
            raise EffigyError(f"“{rig.armature.name}” is scaled to nothing in all frames from {first} to {last}.")
    point_cloud.make_baked(rig, splats, _cache_file(path), PRIM)
    return f"{count} frames, {path.stat().st_size / 1e6:.0f} MB: {path}."


def _cache_file(path: Path) -> Any:
    """Blender's datablock for a file, made if there is none."""
    for found in bpy.data.cache_files:
        if found.library is None and Path(bpy.path.abspath(found.filepath)) == path:
            with bpy.context.temp_override(edit_cachefile=found):
                bpy.ops.cachefile.reload()
            return found
    known = set(bpy.data.cache_files)
    bpy.ops.cachefile.open(filepath=str(path), relative_path=False)
    (made,) = set(bpy.data.cache_files) - known
    made.filepath = stored(path)
    return made
