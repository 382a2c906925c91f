"""The avatars of a render, with their poses: those of all rigs whose mesh is visible to the render.

The mesh decides about visibility because it represents the avatar on the screen, while an armature is often hidden.
Instances of a collection are rendered like the rig itself.

A frame in which no avatar is to be seen is an empty image: it enters later, is in another view layer, or is scaled to
nothing. An error is raised only where an image would be wrong: the scene has no avatar at all, or one is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ..avatars import avatar_path, has_avatar, missing
from ..errors import EffigyError
from ..grade import NEUTRAL, Grade
from ..grading import grade_of
from ..player.evaluate import Player
from ..player.players import player_of
from ..rig.conventions import transform_to_head
from ..rig.pose import RigPose, read_pose
from ..rig.rig_properties import Rig, find_rig, is_part
from ..rig.troubles import sentence_of
from .avatar_pass import scene_of


@dataclass(frozen=True)
class Subject:
    """One avatar in the image."""

    avatar: Path
    pose: RigPose
    holdout: bool = False
    """It cuts a hole into the image."""
    player: Player | None = None
    """What evaluates the avatar in Blender; None if its file has no baked model."""
    mesh: bpy.types.Object | None = None
    """The rig's own, not evaluated."""
    grade: Grade = NEUTRAL

    def message(self) -> dict[str, Any]:
        """An entry of the worker protocol's `subjects`."""
        return {"avatar": self.avatar, "pose": self.pose.message()} | ({"holdout": True} if self.holdout else {})


@dataclass(frozen=True)
class RenderSubjects:
    """All avatars in the image; none in an image that shows none now."""

    subjects: tuple[Subject, ...]
    warnings: tuple[str, ...]
    """What the avatars cannot follow, and which are left out, as sentences, each once."""


def collect_subjects(depsgraph: bpy.types.Depsgraph) -> RenderSubjects:
    """All avatars of a render's evaluated scene that are visible in it. Raises an `EffigyError` if the scene has none,
    or if the file of a visible one is missing.
    """
    subjects, warnings, without_avatar = [], [], []
    visible = set()
    # An avatar is a surface: a view layer that filters those out shows none.
    rigs = _visible_rigs(depsgraph) if depsgraph.view_layer.use_solid else ()
    for rig, instance_motion, holdout in rigs:
        if not has_avatar(rig.armature):
            without_avatar.append(
                f"“{rig.armature.name}” has no avatar yet: train one, or add an existing .effigy file."
            )
            continue
        visible.add(rig.armature)
        if holdout and scene_of(depsgraph.scene) is not None:
            warnings.append(
                f"“{rig.mesh.name}” is a holdout: its avatar hides other avatars, but the composite cuts no hole into "
                "the scene behind it."
            )
        pose = read_pose(rig, depsgraph)
        if instance_motion is not None:
            pose = replace(pose, root=transform_to_head(np.array(instance_motion, np.float64)) @ pose.root)
        # Also where it is too small to be drawn, a missing file is said now and not in the frame in which it grows.
        path = avatar_path(rig.armature)
        if pose.has_size:
            player, grade = player_of(rig, path, depsgraph), grade_of(rig, depsgraph)
            subjects.append(Subject(path, pose, holdout, player, rig.mesh, grade))
        if warning := sentence_of(rig, depsgraph):
            warnings.append(warning)
    scene = depsgraph.scene
    if not visible and not _has_any_avatar(scene):
        raise EffigyError(
            without_avatar[0]
            if without_avatar
            else "There is no avatar to render in this scene: import a video and train one, or add an existing avatar."
        )
    warnings += [
        f"The avatar of “{armature.name}” is missing. It is not visible in this frame; the render will stop where it "
        "is: press Relink and choose its file."
        for armature in missing(scene)
        if armature not in visible
    ]
    return RenderSubjects(tuple(subjects), tuple(dict.fromkeys((*without_avatar, *warnings))))


def _has_any_avatar(scene: bpy.types.Scene) -> bool:
    """Whether a scene has an avatar, visible or not: itself, in its background scenes, or in a collection that it shows
    as an instance.
    """
    waiting, seen, scenes = [], set(), set()
    behind: bpy.types.Scene | None = scene
    while behind is not None and behind not in scenes:
        scenes.add(behind)
        waiting.append(behind.collection)
        behind = behind.background_set
    while waiting:
        collection = waiting.pop()
        if collection in seen:
            continue
        seen.add(collection)
        for obj in collection.all_objects:
            if is_part(obj, "armature") and has_avatar(obj):
                return True
            if obj.instance_collection is not None:
                waiting.append(obj.instance_collection)
    return False


def _visible_rigs(depsgraph: bpy.types.Depsgraph) -> Iterator[tuple[Rig, Matrix | None, bool]]:
    """Each visible rig; for an instance, also the motion from the rig itself to the instance, otherwise None; and
    whether it is a holdout.

    What a collection contributes only indirectly, by shadows and reflections, is not visible. For an instance it is the
    instancing object that decides about both, as in Cycles.
    """
    layer, found = depsgraph.view_layer, []
    for instance in depsgraph.object_instances:
        # The entries of this iterator are only valid during their own iteration, so the matrix is copied.
        if is_part(instance.object, "mesh"):
            moved = instance.matrix_world.copy() if instance.is_instance else None
            shown_by = instance.parent if instance.is_instance else instance.object
            if not shown_by.original.indirect_only_get(view_layer=layer):
                holdout = shown_by.original.holdout_get(view_layer=layer)
                found.append((instance.object.original, moved, holdout))
    for mesh, moved, holdout in found:
        rig = find_rig(mesh)
        if rig is None:
            continue
        if moved is None:
            yield rig, None, holdout
        else:
            yield rig, moved @ mesh.evaluated_get(depsgraph).matrix_world.inverted_safe(), holdout
