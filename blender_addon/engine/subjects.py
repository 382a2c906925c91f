"""The avatars of a render, with their poses: those of all rigs whose mesh is visible to the render.

The mesh decides about visibility because it represents the avatar on the screen, while an armature is often hidden.
Instances of a collection are rendered like the rig itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ..avatars import avatar_path, has_avatar
from ..errors import EffigyError
from ..rig.conventions import transform_to_head
from ..rig.pose import RigPose, read_pose, transform_warning
from ..rig.rig_properties import Rig, find_rig, is_part


@dataclass(frozen=True)
class Subject:
    """One avatar in the image."""

    avatar: Path
    pose: RigPose

    def message(self) -> dict[str, Any]:
        """An entry of the worker protocol's `subjects`."""
        return {"avatar": self.avatar, "pose": self.pose.message()}


@dataclass(frozen=True)
class RenderSubjects:
    """All avatars in the image."""

    subjects: tuple[Subject, ...]
    warnings: tuple[str, ...]
    """What the avatars cannot follow, as sentences, each once."""


def collect_subjects(depsgraph: bpy.types.Depsgraph) -> RenderSubjects:
    """All avatars of a render's evaluated scene. Raises an `EffigyError` if there are none, or if a file is missing."""
    subjects, warnings, without_avatar = [], [], []
    for rig, instance_motion in _visible_rigs(depsgraph):
        if not has_avatar(rig.armature):
            without_avatar.append(rig.armature.name)
            continue
        pose = read_pose(rig, depsgraph)
        if instance_motion is not None:
            pose = replace(pose, root=transform_to_head(np.array(instance_motion, np.float64)) @ pose.root)
        subjects.append(Subject(avatar_path(rig.armature), pose))
        if (warning := transform_warning(rig, depsgraph)) and warning not in warnings:
            warnings.append(warning)
    if subjects:
        return RenderSubjects(tuple(subjects), tuple(warnings))
    if without_avatar:
        raise EffigyError(f"“{without_avatar[0]}” has no avatar yet: train one, or add an existing .effigy file.")
    raise EffigyError(
        "There is no avatar to render in this view layer: import a video and train one, or add an "
        "existing avatar; if there is one, its mesh is hidden from renders."
    )


def _visible_rigs(depsgraph: bpy.types.Depsgraph) -> Iterator[tuple[Rig, Matrix | None]]:
    """Each visible rig; for an instance, also the motion from the rig itself to the instance, otherwise None."""
    found = []
    for instance in depsgraph.object_instances:
        # The entries of this iterator are only valid during their own iteration, so the matrix is copied.
        if is_part(instance.object, "mesh"):
            moved = instance.matrix_world.copy() if instance.is_instance else None
            found.append((instance.object.original, moved))
    for mesh, moved in found:
        rig = find_rig(mesh)
        if rig is None:
            continue
        if moved is None:
            yield rig, None
        else:
            yield rig, moved @ mesh.evaluated_get(depsgraph).matrix_world.inverted_safe()
