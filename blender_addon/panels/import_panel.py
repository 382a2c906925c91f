"""The panel Import: the buttons that add a video, a capture or an avatar, and the active rig's avatar."""

from __future__ import annotations

from typing import Final

import bpy

from .. import active, avatars, backend_setup, preferences, rig_files
from ..errors import EffigyError
from ..file_names import readable
from ..wrapped_text import region_width, wrapped
from .base import EffigyPanel
from .trouble_box import draw_trouble

SHOWN: Final = 3
"""Files that are named before the artist is asked to look for them."""
LONGEST: Final = 120
"""Characters of a file's path there."""


class EFFIGY_PT_import(EffigyPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_import"
    bl_label = "Import"
    bl_order = 0

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        ready, message = backend_setup.state()
        if not ready:
            box = layout.box()
            wrapped(box, message, region_width(context), "INFO")
            box.operator(
                "preferences.addon_show", text="Open Preferences", icon="PREFERENCES"
            ).module = preferences.PACKAGE
        column = layout.column(align=True)
        column.enabled = ready
        column.scale_y = 1.3
        column.operator("effigy.import_video", icon="FILE_MOVIE")
        row = layout.row(align=True)
        capture, avatar = row.row(align=True), row.row(align=True)
        # Without the backend an avatar can be played on a rig, but no rig can be built.
        capture.enabled, avatar.enabled = ready, ready or active.has_rig(context)
        capture.operator("effigy.import_capture", icon="FILE_FOLDER")
        avatar.operator("effigy.add_avatar", icon="USER")
        if (problem := active.problem(context)) is not None:
            wrapped(layout, problem, region_width(context), "ERROR")
        elif (sentence := active.instance_of_rig(context)) is not None:
            wrapped(layout, sentence, region_width(context), "INFO")
        elif active.has_rig(context):
            self.draw_avatar(context)
        draw_trouble(layout, context)

    def draw_avatar(self, context: bpy.types.Context) -> None:
        """The active rig, the file of its avatar, and what can be done with it."""
        armature = active.need_rig(context).armature
        box = self.layout.box()
        box.label(text=armature.name, icon="OUTLINER_OB_ARMATURE", translate=False)
        settings = armature.effigy
        if waiting := rig_files.unknown(armature):
            shown = [text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for text in waiting[:SHOWN]]
            shown += [f"and {len(waiting) - SHOWN} more"] if len(waiting) > SHOWN else []
            wrapped(
                box,
                f"This .blend names files that were not used on this computer before: {'; '.join(shown)}.",
                region_width(context),
                "QUESTION",
            )
            box.operator("effigy.look_for_files", icon="VIEWZOOM")
        if settings.packed:
            row = box.row()
            row.label(text=f"{settings.packed.name} (packed)", icon="PACKAGE", translate=False)
            row.operator("effigy.unpack_avatar", text="", icon="EXPORT")
        elif not settings.avatar:
            box.label(text="No avatar yet: train one below", icon="BLANK1")
        elif avatars.is_known(armature):
            try:
                path = avatars.avatar_path(armature)
            except EffigyError as error:
                box.alert = True
                wrapped(box, str(error), region_width(context), "ERROR")
                box.operator("effigy.relink_avatar", icon="FILE_REFRESH")
            else:
                row = box.row()
                row.label(text=readable(path.name), icon="USER", translate=False)
                row.operator("effigy.pack_avatar", text="", icon="PACKAGE")
        if not bpy.data.filepath and avatars.has_avatar(armature):
            wrapped(
                box,
                "Save the .blend file, so that its paths stay valid when you move the project.",
                region_width(context),
                "INFO",
            )


classes = (EFFIGY_PT_import,)
