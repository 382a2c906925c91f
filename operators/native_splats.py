"""Makes a point cloud of an avatar that Cycles and EEVEE draw themselves, or removes it."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active
from ..blender_addon.engine.avatar_pass import find_pass
from ..blender_addon.errors import EffigyError
from ..blender_addon.native import cloud, update
from ..blender_addon.native.frame import request_of, splats_of
from ..blender_addon.native_clouds import NEEDS, is_supported
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_native_splats(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.native_splats"
    bl_label = "Native Splats"
    bl_description = (
        "Make the avatar a point cloud that Cycles and EEVEE draw themselves, with shadows, reflections, depth of "
        "field and motion blur. The mesh is hidden from renders"
    )
    bl_options = {"REGISTER", "UNDO"}

    remove: BoolProperty(
        name="Remove", options={"SKIP_SAVE"}, description="Remove the point cloud and show the mesh in renders again"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not is_supported():
            cls.poll_message_set(NEEDS)
            return False
        return active.poll(cls, context)

    @classmethod
    def description(cls, context: bpy.types.Context, properties: bpy.types.OperatorProperties) -> str:
        return "Remove the point cloud and show the mesh in renders again" if properties.remove else cls.bl_description

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        cloud.check_own(rig)
        if self.remove:
            cloud.remove(rig)
            return
        depsgraph = context.evaluated_depsgraph_get()
        request = request_of(rig, None, depsgraph, asked=True)
        if request is None:
            raise EffigyError(
                f"“{rig.armature.name}” is scaled to nothing in this frame: choose a frame that shows it."
            )
        cloud.make(rig, splats_of(request))
        update.refresh(context.evaluated_depsgraph_get(), asked=True)
        if find_pass(context.scene) is not None:
            self.report(
                {"WARNING"},
                "The compositor adds the avatars to this scene as well, so that they are in its images twice: mute its "
                "node Avatars by Depth.",
            )
        if context.scene.view_settings.view_transform != "Standard":
            self.report({"WARNING"}, "Avatars have the colours of their footage only with the view transform Standard.")


classes = (EFFIGY_OT_native_splats,)
