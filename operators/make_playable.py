"""Bakes an avatar of networks into a new file that Blender plays by itself, and puts it on the rig."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, StringProperty

from ..blender_addon import active, avatars, playable, tasks
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_make_playable(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.make_playable"
    bl_label = "Make Playable without Backend"
    bl_description = (
        "Bake the networks of this avatar into a new avatar that Blender plays by itself, at once in every pose, and "
        "put it on this rig. The file with the networks stays as it is"
    )

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default=f"*{avatars.SUFFIX}", options={"HIDDEN"})
    # Blender then asks before a file is replaced.
    check_existing: BoolProperty(default=True, options={"HIDDEN"})
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and avatars.has_avatar(active.need_rig(context).armature)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        try:
            self.filepath = str(playable.suggested(active.need_rig(context)))
        except EffigyError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        out = Path(bpy.path.abspath(self.filepath)).absolute() if self.filepath else playable.suggested(rig)
        task = playable.start(rig, out)
        tasks.wait_if_asked(self, task)


classes = (EFFIGY_OT_make_playable,)
