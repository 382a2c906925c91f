"""Who is in the picture: every rig whose mesh is visible to the render and that has an avatar, as the frame poses it.

The mesh decides, as it is what stands for the avatar on the screen; an armature is often hidden. Instances of a
collection count like the rig itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ..avatars import avatar_path, has_avatar
from ..errors import EffigyError
from ..rig.conventions import transform_to_head
from ..rig.pose import read_pose, transform_warning
from ..rig.rig_properties import Rig, find_rig, is_part


@dataclass
class Cast:
    subjects: list[dict[str, Any]] = field(default_factory=list)
    """The protocol's `subjects`."""
    warnings: list[str] = field(default_factory=list)


def cast_of(depsgraph: bpy.types.Depsgraph) -> Cast:
    """All avatars of a render's evaluated scene; an `EffigyError` where there are none, or where one's file is gone."""
    cast, without = Cast(), []
    for rig, placed in _visible(depsgraph):
        if not has_avatar(rig.armature):
            without.append(rig.armature.name)
            continue
        pose = read_pose(rig, depsgraph).message()
        if placed is not None:
            pose["root"] = transform_to_head(np.array(placed, np.float64)) @ pose["root"]
        cast.subjects.append({"avatar": avatar_path(rig.armature), "pose": pose})
        if (warning := transform_warning(rig, depsgraph)) and warning not in cast.warnings:
            cast.warnings.append(warning)
    if cast.subjects:
        return cast
    if without:
        raise EffigyError(f"“{without[0]}” has no avatar yet: train one, or add an existing .effigy file.")
    raise EffigyError(
        "There is no avatar to render in this view layer: import a video and train one, or add an "
        "existing avatar; if there is one, its mesh is hidden from renders."
    )


def _visible(depsgraph: bpy.types.Depsgraph) -> Iterator[tuple[Rig, Matrix | None]]:
    """Each visible rig, and for an instance of it the motion from the rig's own place to the instance's."""
    found = []
    for instance in depsgraph.object_instances:
        # The iterator's entries do not outlive their turn: what is needed is copied out of them.
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
