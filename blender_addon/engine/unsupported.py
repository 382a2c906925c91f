"""Scene settings that have no effect on rendered avatars, as sentences for the panels and for a render's report."""

from __future__ import annotations

import bpy


def unsupported_settings(scene: bpy.types.Scene) -> list[str]:
    messages = []
    if scene.render.use_motion_blur:
        messages.append(
            "Avatars are rendered without motion blur: each frame is sharp, as at the middle of the exposure. "
            "Blur it in the compositor if you need it."
        )
    camera = scene.camera
    if camera is not None and camera.type == "CAMERA" and camera.data.dof.use_dof:
        messages.append(
            "Avatars are rendered without depth of field: they are sharp at any distance. Blur them in the "
            "compositor by the Depth pass if you need it."
        )
    return messages
