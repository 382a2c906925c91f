"""Whether a scene may take its frame rate, range, resolution and camera from imported footage.

A scene that an artist has prepared keeps everything. One that is as Blender makes it takes the footage's settings.
"""

from __future__ import annotations

from typing import Any, Final

import bpy
import numpy as np
from bpy.props import BoolProperty

PROPERTY: Final = "effigy_staged"
"""Custom property on a scene that was set up from footage: its settings then, by `_settings`. In files of earlier
versions it is only true."""
_FACTORY: Final = (1920, 1080, 100, 1.0, 1.0, 24, 1.0, 1, 250)
_FACTORY_OBJECTS: Final = frozenset({"Cube", "Light", "Camera"})


def choice() -> Any:
    """The property of an import that asks for it."""
    return BoolProperty(
        name="Set Up Scene",
        options={"SKIP_SAVE"},
        description="Give the scene the film's frame rate, frame range, resolution and camera, and hide Blender's "
        "default cube. Without it the scene stays as it is, and the performance plays at its own speed from the "
        "scene's first frame on",
    )


def is_untouched(scene: bpy.types.Scene) -> bool:
    """Whether the artist has changed nothing in a scene that imported footage would change: neither its settings, nor
    has it objects other than those of Blender's default scene, keys, markers or strips of the sequencer.
    """
    staged = scene.get(PROPERTY)
    if _settings(scene) not in (_FACTORY, tuple(staged) if hasattr(staged, "__len__") else None):
        return False
    editor = scene.sequence_editor
    strips = getattr(editor, "strips_all", None) or getattr(editor, "sequences_all", ()) if editor else ()
    return (
        not scene.timeline_markers
        and not len(strips)
        and scene.animation_data is None
        and all(obj.name in _FACTORY_OBJECTS and obj.animation_data is None for obj in scene.objects)
    )


def hide_default_cube(scene: bpy.types.Scene) -> bool:
    """Hides the cube of Blender's default scene, in which the footage's camera would stand; returns whether there was
    one. A cube that was changed in any way is the artist's.
    """
    cube = scene.objects.get("Cube")
    if cube is None or cube.type != "MESH" or len(cube.data.vertices) != 8 or cube.hide_render:
        return False
    world = np.array(cube.matrix_world)
    corners = np.array(cube.bound_box) @ world[:3, :3].T + world[:3, 3]
    if (
        not np.allclose(np.abs(corners), 1, atol=1e-4)
        or len(cube.modifiers)
        or len(cube.constraints)
        or cube.animation_data is not None
    ):
        return False
    cube.hide_viewport = cube.hide_render = True
    return True


def remember(scene: bpy.types.Scene) -> None:
    """Notes that the scene has its settings from footage, so that they are not mistaken for the artist's."""
    scene[PROPERTY] = _settings(scene)


def _settings(scene: bpy.types.Scene) -> tuple[float, ...]:
    render = scene.render
    return (
        render.resolution_x,
        render.resolution_y,
        render.resolution_percentage,
        render.pixel_aspect_x,
        render.pixel_aspect_y,
        render.fps,
        render.fps_base,
        scene.frame_start,
        scene.frame_end,
    )
