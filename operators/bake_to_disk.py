"""Writes a range of frames of an avatar to a USD file, from which Blender renders it without Effigy."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from ..blender_addon import active, tasks
from ..blender_addon.errors import EffigyError
from ..blender_addon.file_names import file_name
from ..blender_addon.native import disk
from ..blender_addon.native.usd import SUFFIX
from ..blender_addon.native_clouds import NEEDS, is_supported
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_bake_to_disk(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.bake_to_disk"
    bl_label = "Bake to Disk"
    bl_description = (
        "Write the avatar's native splats of a frame range to a USD file, and play them from there: a render farm then "
        "needs neither Effigy nor the avatar"
    )

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default=f"*{SUFFIX}", options={"HIDDEN"})
    # Blender then asks before a file is replaced.
    check_existing: BoolProperty(default=True, options={"HIDDEN"})
    first: IntProperty(name="First", options={"SKIP_SAVE"}, description="The first frame to bake")
    last: IntProperty(name="Last", options={"SKIP_SAVE"}, description="The last frame to bake")
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not is_supported():
            cls.poll_message_set(NEEDS)
            return False
        return active.poll(cls, context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        name = file_name(active.need_rig(context).armature.name, SUFFIX)
        self._take_range(context.scene)
        if not self.filepath:
            self.filepath = str(Path(bpy.data.filepath).with_name(name)) if bpy.data.filepath else name
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.use_property_split = True
        self.layout.prop(self, "first")
        self.layout.prop(self, "last")

    def run(self, context: bpy.types.Context) -> None:
        if not self.filepath:
            raise EffigyError(f"Choose a name for the file to write ({SUFFIX}).")
        path = Path(bpy.path.ensure_ext(bpy.path.abspath(self.filepath), SUFFIX)).absolute()
        self._take_range(context.scene)
        task = disk.bake(context, active.need_rig(context), path, self.first, self.last)
        tasks.wait_if_asked(self, task)

    def _take_range(self, scene: bpy.types.Scene) -> None:
        """The scene's own, where none was given."""
        if not self.properties.is_property_set("first"):
            self.first = scene.frame_start
        if not self.properties.is_property_set("last"):
            self.last = scene.frame_end


classes = (EFFIGY_OT_bake_to_disk,)
