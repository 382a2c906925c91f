"""Frame by frame through an animation, with each avatar's pose asked of the worker: for a bake and for an export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from .. import tasks
from ..avatars import avatar_path, has_avatar
from ..errors import EffigyError
from ..redraw import redraw_views
from ..rig.pose import read_pose
from ..rig.rig_properties import Rig, find_rigs
from ..rig.steps import Steps
from ..tasks import Task
from . import cache
from .live import Eye, key_of, request_of
from .splats import Splats

MEGABYTE = 1e6


@dataclass(frozen=True)
class Standpoint:
    """From where colours are to be seen: a 3D View as it is, or the scene's camera, frame by frame."""

    eye: Eye | None
    """None: the camera."""

    @classmethod
    def of(cls, context: bpy.types.Context) -> Standpoint:
        """That of the 3D View in which an operator was called."""
        view = context.region_data if context.area and context.area.type == "VIEW_3D" else None
        if view is None or view.view_perspective == "CAMERA":
            return cls(None)
        return cls(Eye.of(np.array(view.view_matrix), view.view_perspective == "ORTHO"))

    def at(self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> Eye:
        if self.eye is not None:
            return self.eye
        if scene.camera is None:
            raise EffigyError(
                "There is no camera in this scene from which the avatars' colours are seen: add one, or turn "
                "the 3D View and start from there."
            )
        camera = scene.camera.evaluated_get(depsgraph)
        return Eye.of(np.linalg.inv(np.array(camera.matrix_world)), scene.camera.data.type == "ORTHO")


def shown_rigs(scene: bpy.types.Scene, layer: bpy.types.ViewLayer) -> list[Rig]:
    """The rigs with avatars whose mesh the view layer shows."""
    rigs = [
        rig for rig in find_rigs(scene.objects) if has_avatar(rig.armature) and rig.mesh.visible_get(view_layer=layer)
    ]
    if not rigs:
        raise EffigyError("There is no avatar to be seen in this scene: train one or add one, and show its mesh.")
    return rigs


def bake(context: bpy.types.Context, rigs: list[Rig], first: int, last: int) -> Task:
    """Start baking the frames `first` to `last` of these rigs."""
    scene, layer, standpoint = context.scene, context.view_layer, Standpoint.of(context)
    _check_range(first, last)
    if cache.in_progress:
        raise EffigyError("A bake is going on already: wait for it, or stop it with the cross in Jobs.")
    return tasks.start_local(
        f"Bake frames {first} to {last}", lambda: _bake(scene, layer, rigs, first, last, standpoint)
    )


def export(context: bpy.types.Context, path: Path, axes: np.ndarray, frames: tuple[int, int] | None) -> Task:
    """Start writing all avatars as `.ply`: of this frame to `path`, or of a range, with the frame's number."""
    scene, layer, standpoint = context.scene, context.view_layer, Standpoint.of(context)
    rigs = shown_rigs(scene, layer)
    if frames is not None:
        _check_range(*frames)
    return tasks.start_local(f"Export {path.stem}", lambda: _export(scene, layer, rigs, path, axes, frames, standpoint))


def numbered(path: Path, frame: int) -> Path:
    """`head.ply` -> `head_0012.ply`, as Blender numbers frames."""
    return path.with_name(f"{path.stem}_{frame:04d}{path.suffix}")


def _bake(
    scene: bpy.types.Scene, layer: bpy.types.ViewLayer, rigs: list[Rig], first: int, last: int, standpoint: Standpoint
) -> Steps[str]:
    count, made = last - first + 1, {}
    paths = [avatar_path(rig.armature) for rig in rigs]
    settings = scene.effigy
    with _back_to_its_frame(scene), _in_progress(rigs):
        for number, frame in enumerate(range(first, last + 1)):
            scene.frame_set(frame)
            for rig, path in zip(rigs, paths):
                # Again for each avatar: an answer was waited for, and the artist may have gone to another frame.
                if scene.frame_current != frame:
                    scene.frame_set(frame)
                depsgraph = layer.depsgraph
                pose = read_pose(rig, depsgraph)
                asked = request_of(path, pose, standpoint.at(scene, depsgraph))
                answer = yield from tasks.fetch("avatar.splats", asked)
                splats = Splats.from_answer(answer, pose.head_motion)
                if rig not in made:
                    made[rig] = cache.make(
                        rig,
                        first,
                        count,
                        len(splats.means),
                        int(settings.bake_limit * MEGABYTE),
                        settings.bake_to == "DISK",
                    )
                made[rig].put(frame, key_of(pose), splats)
            redraw_views()
            yield (number + 1) / count
    size = sum(bake.bytes for bake in made.values())
    return f"{count} frames baked, {size / MEGABYTE:.0f} MB."


def _export(
    scene: bpy.types.Scene,
    layer: bpy.types.ViewLayer,
    rigs: list[Rig],
    path: Path,
    axes: np.ndarray,
    frames: tuple[int, int] | None,
    standpoint: Standpoint,
) -> Steps[str]:
    wanted = range(frames[0], frames[1] + 1) if frames else (scene.frame_current,)
    paths, gaussians = [avatar_path(rig.armature) for rig in rigs], 0
    with _back_to_its_frame(scene):
        for number, frame in enumerate(wanted):
            # This frame is taken as it stands, with what is posed and not keyed.
            if frames:
                scene.frame_set(frame)
            depsgraph = layer.depsgraph
            poses = [read_pose(rig, depsgraph) for rig in rigs]
            view = request_of(paths[0], poses[0], standpoint.at(scene, depsgraph))
            params: dict[str, Any] = {name: view[name] for name in ("view", "direction") if name in view}
            subjects = [{"avatar": avatar, "pose": pose.message()} for avatar, pose in zip(paths, poses)]
            target = numbered(path, frame) if frames else path
            params |= {"subjects": subjects, "axes": axes, "path": target}
            answer = yield from tasks.fetch("avatar.export", params)
            gaussians = answer["gaussians"]
            yield (number + 1) / len(wanted)
    where = f"{len(wanted)} files, from {numbered(path, wanted[0])} on" if frames else str(path)
    return f"{gaussians:,} Gaussians a frame: {where}."


def _check_range(first: int, last: int) -> None:
    if last < first:
        raise EffigyError(f"The last frame ({last}) lies before the first ({first}).")


@contextmanager
def _back_to_its_frame(scene: bpy.types.Scene) -> Iterator[None]:
    frame = scene.frame_current
    try:
        yield
    finally:
        # The scene may have gone meanwhile.
        with suppress(ReferenceError):
            if scene.frame_current != frame:
                scene.frame_set(frame)


@contextmanager
def _in_progress(rigs: list[Rig]) -> Iterator[None]:
    uids = [rig.armature.session_uid for rig in rigs]
    cache.in_progress.update(uids)
    try:
        yield
    finally:
        cache.in_progress.difference_update(uids)
        redraw_views()
