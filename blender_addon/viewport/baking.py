"""Bakes and exports splats frame by frame. The task runs in short steps, so that Blender's window keeps responding
while the worker computes. An export needs no worker where all avatars have a baked model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np

from .. import file_names, splat_files, tasks
from ..avatars import avatar_path, has_avatar
from ..errors import EffigyError
from ..player.players import player_of
from ..redraw import redraw_views
from ..rig.pose import RigPose, read_pose
from ..rig.rig_properties import Rig, find_rigs
from ..rig.rotations import matrix_to_quaternion, quaternion_multiply
from ..rig.steps import Steps
from ..tasks import Task
from ..writing import write_file
from . import cache
from .splats import Splats
from .splats_request import METHOD, SplatsRequest, pose_key
from .viewpoint import Viewpoint

MEGABYTE = 1e6


@dataclass(frozen=True)
class ColorViewpoint:
    """The viewpoint for the colours of baked or exported splats: that of a 3D View when the task was started, or that
    of the scene's camera in each frame.
    """

    fixed: Viewpoint | None
    """None: the scene's camera."""

    @classmethod
    def from_context(cls, context: bpy.types.Context) -> ColorViewpoint:
        """The viewpoint of the 3D View in which an operator was called. It is the scene's camera if the 3D View looks
        through the camera, or if the operator was not called from a 3D View.
        """
        view = context.region_data if context.area and context.area.type == "VIEW_3D" else None
        if view is None or view.view_perspective == "CAMERA":
            return cls(None)
        return cls(Viewpoint.from_view_matrix(np.array(view.view_matrix), view.view_perspective == "ORTHO"))

    def in_frame(self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> Viewpoint:
        """The viewpoint in the scene's current frame. Raises an `EffigyError` if the scene's camera is needed and there
        is none.
        """
        if self.fixed is not None:
            return self.fixed
        if scene.camera is None:
            raise EffigyError(
                "There is no camera in this scene, and the avatars' colours depend on the viewpoint: add a camera, or "
                "rotate the 3D View out of the camera view and start from there."
            )
        camera = scene.camera.evaluated_get(depsgraph)
        view_matrix = np.linalg.inv(np.array(camera.matrix_world))
        return Viewpoint.from_view_matrix(view_matrix, scene.camera.data.type == "ORTHO")


def rigs_with_avatars(layer: bpy.types.ViewLayer) -> list[Rig]:
    """The rigs with avatars in a view layer, those as well that are hidden in the current frame. Raises an
    `EffigyError` if there are none.
    """
    rigs = [rig for rig in find_rigs(layer.objects) if has_avatar(rig.armature)]
    if not rigs:
        raise EffigyError("There is no avatar in this view layer: train one or add one, and show its collection.")
    return rigs


def _is_shown(rig: Rig, layer: bpy.types.ViewLayer) -> bool:
    """Whether the view layer shows an avatar in the current frame."""
    return rig.mesh.visible_get(view_layer=layer)


def bake(context: bpy.types.Context, rigs: list[Rig], first: int, last: int) -> Task:
    """Starts baking the frames `first` to `last`, both included, of these rigs. Raises an `EffigyError` if the range is
    empty or another bake is in progress.
    """
    scene, layer, viewpoint = context.scene, context.view_layer, ColorViewpoint.from_context(context)
    _check_range(first, last)
    if cache.store.in_progress:
        raise EffigyError("A bake is already in progress: wait for it, or stop it with the cross in Jobs.")
    return tasks.start_local(
        f"Bake frames {first} to {last}",
        lambda: _bake(scene, layer, rigs, first, last, viewpoint),
        "It was stopped. What is baked stays until another file is opened.",
    )


def export(context: bpy.types.Context, path: Path, axes: np.ndarray, frames: tuple[int, int] | None) -> Task:
    """Starts writing the splats of all visible avatars in the format in which `path` ends (`splat_files`): the current
    frame to `path`, or a range of frames to numbered files. Each file holds all avatars that are visible in its
    frame; where none is, it is empty. `axes` (3, 3) converts the world's axes to the file's. Raises an `EffigyError`
    if there is no avatar, if none is visible in the current frame and only that is exported, or if the range is empty.
    """
    scene, layer, viewpoint = context.scene, context.view_layer, ColorViewpoint.from_context(context)
    rigs = rigs_with_avatars(layer)
    if frames is not None:
        _check_range(*frames)
    elif not any(_is_shown(rig, layer) for rig in rigs):
        raise EffigyError("No avatar is visible in this frame: show a mesh, or choose a frame in which one is.")
    return tasks.start_local(
        f"Export {path.name}",
        lambda: _export(scene, layer, rigs, path, axes, frames, viewpoint),
        "It was stopped. The files that were written stay.",
    )


def numbered(path: Path, frame: int) -> Path:
    """`head.spz` -> `head_0012.spz`, as Blender numbers frames."""
    return file_names.numbered(path, f"_{frame:04d}")


def _bake(
    scene: bpy.types.Scene,
    layer: bpy.types.ViewLayer,
    rigs: list[Rig],
    first: int,
    last: int,
    color_viewpoint: ColorViewpoint,
) -> Steps[str]:
    """The steps of the bake; returns a summary for the artist. The bakes of `cache` are created after the first answer,
    which gives an avatar's number of Gaussians.
    """
    count, bakes = last - first + 1, {}
    # A missing file is said before the work begins, but not that of a rig which may stay hidden.
    paths = {rig: avatar_path(rig.armature) for rig in rigs if _is_shown(rig, layer)}
    settings = scene.effigy
    with restored_frame(scene), _in_progress(rigs):
        for number, frame in enumerate(range(first, last + 1)):
            scene.frame_set(frame)
            for rig in rigs:
                # Checked for each avatar: while the previous answer was pending, the artist may have changed the frame.
                if scene.frame_current != frame:
                    scene.frame_set(frame)
                depsgraph = layer.depsgraph
                if not _is_shown(rig, layer):
                    continue
                pose = read_pose(rig, depsgraph)
                if not pose.has_size:
                    continue
                if rig not in paths:
                    paths[rig] = avatar_path(rig.armature)
                request = SplatsRequest(paths[rig], pose, color_viewpoint.in_frame(scene, depsgraph))
                answer = yield from tasks.fetch(METHOD, request.message())
                splats = Splats.from_answer(answer, pose.head_motion)
                if rig not in bakes:
                    bakes[rig] = cache.create(
                        rig,
                        first,
                        count,
                        len(splats.means),
                        int(settings.bake_limit * MEGABYTE),
                        settings.bake_to == "DISK",
                    )
                bakes[rig].store(frame, pose_key(pose), splats)
            redraw_views()
            yield (number + 1) / count
    size = sum(bake.bytes for bake in bakes.values())
    if not bakes:
        return f"No avatar is visible in frames {first} to {last}: there is nothing to bake."
    return f"{count} frames baked, {size / MEGABYTE:.0f} MB."


def _export(
    scene: bpy.types.Scene,
    layer: bpy.types.ViewLayer,
    rigs: list[Rig],
    path: Path,
    axes: np.ndarray,
    frames: tuple[int, int] | None,
    color_viewpoint: ColorViewpoint,
) -> Steps[str]:
    """The steps of the export; returns a summary for the artist. The worker writes the files of frames in which an
    avatar has no baked model.
    """
    exported = range(frames[0], frames[1] + 1) if frames else (scene.frame_current,)
    gaussians = 0
    with restored_frame(scene):
        for number, frame in enumerate(exported):
            # The current frame is exported without `frame_set`, which would discard a pose without keyframes.
            if frames:
                scene.frame_set(frame)
            depsgraph = layer.depsgraph
            poses = [(rig, read_pose(rig, depsgraph)) for rig in rigs if _is_shown(rig, layer)]
            posed = [(rig, avatar_path(rig.armature), pose) for rig, pose in poses if pose.has_size]
            view = color_viewpoint.in_frame(scene, depsgraph).message()
            target = numbered(path, frame) if frames else path
            played = _played(posed, view, depsgraph)
            if played is not None:
                content, count = splat_files.encoded(target.suffix, _in_one(played, axes))
                write_file(target, content, "Blender: exporting splats")
            else:
                subjects = [{"avatar": file, "pose": pose.message()} for _, file, pose in posed]
                params = {**view, "subjects": subjects, "axes": axes, "path": target}
                count = (yield from tasks.fetch("avatar.export", params))["gaussians"]
            gaussians = max(gaussians, count)
            yield (number + 1) / len(exported)
    files = f"{len(exported)} files, the first is {numbered(path, exported[0])}" if frames else str(path)
    return f"{'Up to ' if frames else ''}{gaussians:,} Gaussians per frame: {files}."


def _played(
    posed: list[tuple[Rig, Path, RigPose]], view: dict[str, np.ndarray], depsgraph: bpy.types.Depsgraph
) -> list[dict[str, np.ndarray]] | None:
    """What the players of these avatars answer (`Player.splats`); None where one has no player."""
    answers = []
    for rig, path, pose in posed:
        player = player_of(rig, path, depsgraph)
        if player is None:
            return None
        answers.append(player.splats(pose.message(), view))
    return answers


def _in_one(answers: list[dict[str, np.ndarray]], axes: np.ndarray) -> splat_files.Gaussians:
    """The splats of several avatars together, turned by `axes` (3, 3)."""
    sizes = {"means": (3,), "quaternions": (4,), "scales": (3,), "opacities": (), "colors": (3,)}
    joined = {
        # A frame without an avatar is an empty file, so that the files of an animation keep their numbers.
        name: np.concatenate([answer[name] for answer in answers]) if answers else np.zeros((0, *size), np.float32)
        for name, size in sizes.items()
    }
    joined["means"] = joined["means"] @ axes.T
    joined["quaternions"] = quaternion_multiply(matrix_to_quaternion(axes), joined["quaternions"])
    return splat_files.Gaussians(**joined)


def _check_range(first: int, last: int) -> None:
    if last < first:
        raise EffigyError(f"The last frame ({last}) is before the first ({first}).")


@contextmanager
def restored_frame(scene: bpy.types.Scene) -> Iterator[None]:
    """Sets the scene back to its current frame when the context ends."""
    frame = scene.frame_current
    try:
        yield
    finally:
        # The scene may have been deleted in the meantime.
        with suppress(ReferenceError):
            if scene.frame_current != frame:
                scene.frame_set(frame)


@contextmanager
def _in_progress(rigs: list[Rig]) -> Iterator[None]:
    """Lists the rigs in `cache.store.in_progress` while the context lasts."""
    uids = [rig.uid for rig in rigs]
    cache.store.in_progress.update(uids)
    try:
        yield
    finally:
        cache.store.in_progress.difference_update(uids)
        redraw_views()
