"""Adds the avatars to images rendered by Cycles or EEVEE, in front of and behind the scene's objects."""

from __future__ import annotations

import bpy

from ..blender_addon.avatars import has_avatar
from ..blender_addon.engine.avatar_pass import make_pass
from ..blender_addon.engine.depth_composite import is_composited, set_up, written_folders
from ..blender_addon.file_names import readable
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig.rig_properties import find_rigs


class EFFIGY_OT_set_up_composite(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.set_up_composite"
    bl_label = "Composite over the Scene"
    bl_description = (
        "Render the avatars separately and combine them with this scene by depth in the compositor, so that "
        "F12 shows them in front of and behind the scene's objects"
    )
    bl_options = {"REGISTER", "UNDO"}

    def run(self, context: bpy.types.Context) -> None:
        scene, layer = context.scene, context.view_layer
        was_composited = is_composited(scene)
        avatars = make_pass(scene, layer)
        set_up(scene, layer, avatars)
        for rig in find_rigs(scene.objects):
            if has_avatar(rig.armature):
                # The mesh still casts its shadow and is reflected, but the camera sees the avatar instead of it.
                rig.mesh.visible_camera = False
        self.report(
            {"INFO"}, f"F12 renders “{scene.name}” with its avatars. They are rendered in the scene “{avatars.name}”."
        )
        if not was_composited and (folders := written_folders(scene)):
            # The nodes may be a stranger's, and had no effect before.
            self.report(
                {"WARNING"},
                f"The compositor of “{scene.name}” is on now, and its File Output nodes write to "
                f"{readable(', '.join(folders))[:300]} when you render: delete or mute them if you do not want that.",
            )
        if scene.view_settings.view_transform != "Standard":
            self.report(
                {"WARNING"},
                f"The view transform {scene.view_settings.view_transform} also changes the avatars' colours. They "
                "match the footage only with the view transform Standard.",
            )


classes = (EFFIGY_OT_set_up_composite,)
