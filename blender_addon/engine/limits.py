"""What a scene asks for and an avatar's picture does not have, as sentences for the panels and for a render."""

from __future__ import annotations

import bpy


def not_rendered(scene: bpy.types.Scene) -> list[str]:
    said = []
    if scene.render.use_motion_blur:
        said.append(
            "Avatars are rendered without motion blur: each frame is sharp, as at the middle of its exposure. "
            "Blur it in the compositor if you need it."
        )
    camera = scene.camera
    if camera is not None and camera.type == "CAMERA" and camera.data.dof.use_dof:
        said.append(
            "Avatars are rendered without depth of field: they are sharp at any distance. Blur them in the "
            "compositor by the Depth pass if you need it."
        )
    return said
