"""Show avatars in the picture of Cycles or EEVEE, before and behind the scene's objects."""

from __future__ import annotations

import bpy

from ..blender_addon.avatars import has_avatar
from ..blender_addon.engine.avatar_pass import make_pass
from ..blender_addon.engine.depth_composite import set_up
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig.rig_properties import find_rigs


class EFFIGY_OT_set_up_composite(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.set_up_composite"
    bl_label = "Composite over the Scene"
    bl_description = (
        "Render the avatars as a pass of their own and put it into this scene's compositor by depth, so "
        "that F12 shows them before and behind the scene's objects"
    )
    bl_options = {"REGISTER", "UNDO"}

    def run(self, context: bpy.types.Context) -> None:
        scene, layer = context.scene, context.view_layer
        avatars = make_pass(scene, layer)
        set_up(scene, layer, avatars)
        for rig in find_rigs(scene.objects):
            if has_avatar(rig.armature):
                # The mesh goes on throwing its shadow and being reflected; the camera sees the avatar instead.
                rig.mesh.visible_camera = False
        self.report({"INFO"}, f"F12 renders “{scene.name}” with its avatars; the pass is the scene “{avatars.name}”.")
        if scene.view_settings.view_transform != "Standard":
            self.report(
                {"WARNING"},
                f"The view transform {scene.view_settings.view_transform} grades the avatars with "
                "the scene: their footage's own colours come back only under Standard.",
            )


classes = (EFFIGY_OT_set_up_composite,)
