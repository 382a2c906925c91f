"""The panel Sliders: the active rig's expressions and bones by region of the face, and the buttons for all of them."""

from __future__ import annotations

import re
from typing import Final

import bpy

from .. import active
from ..errors import EffigyError
from ..face_board.build import has_board
from ..pose_library import is_registered
from ..rig.face_angles import LOOK
from ..rig.face_angles import PARTS as JOINTS
from ..rig.rig_properties import Rig
from ..rig.sliders import REGION_LABELS, REGION_PARTS, REGIONS, by_region
from ..wrapped_text import region_width, wrapped
from .base import RigPanel

LABELS: Final = {**REGION_LABELS, "other": "Neck and Others"}
NO_EXPRESSIONS: Final = "This head model has no expressions: only the eyes, the jaw and the neck move."
NARROW: Final = 200.0
"""Pixels at interface scale 1 below which `Mouth Lower Down Right` and its value are cut off."""
PARTS: Final = {
    "gaze": ("Both Eyes and Their Lids", ("gaze_sideways", "gaze_up")),
    "neck": ("Neck", ("neck_nod", "neck_turn", "neck_tilt")),
    "jaw": ("Jaw Bone", ("jaw_open", "jaw_sideways")),
    "eye_L": ("Left Eye", ("left_eye_sideways", "left_eye_up")),
    "eye_R": ("Right Eye", ("right_eye_sideways", "right_eye_up")),
}
"""By part of the face: its heading, and its angles (`rig.face_angles`)."""


class EFFIGY_PT_sliders(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_sliders"
    bl_label = "Sliders"
    bl_order = 5

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        rig = active.need_rig(context)
        if not rig.is_editable:
            wrapped(
                layout,
                "This rig is linked from another file: make a library override of it, then pose that.",
                region_width(context),
                "LINKED",
            )
            return
        if not rig.slider_names:
            wrapped(layout, NO_EXPRESSIONS, region_width(context), "INFO")
        else:
            layout.operator_menu_enum("effigy.apply_preset", "preset", text="Starter Expression", icon="PRESET")
        row = layout.row(align=True)
        row.operator("effigy.key_all", text="Key All", icon="KEY_HLT")
        row.operator("effigy.reset_expression", text="Reset", icon="LOOP_BACK")
        row.operator("effigy.mirror_expression", text="Mirror", icon="MOD_MIRROR")
        if rig.slider_names and not has_board(rig):
            layout.operator("effigy.add_face_controls", icon="ARMATURE_DATA")


class EFFIGY_PT_controls(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_controls"
    bl_parent_id = "EFFIGY_PT_sliders"
    bl_label = "Face Controls"
    bl_order = 0
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context) and has_board(active.need_rig(context))

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column(align=True)
        column.operator("effigy.controls_from_sliders", icon="IMPORT")
        column.operator("effigy.sliders_from_controls", icon="EXPORT")
        column = self.layout.column(align=True)
        column.operator("effigy.make_pose_library", icon="ASSET_MANAGER")
        column.operator("effigy.add_pose", icon="ADD")
        if is_registered():
            column.operator("effigy.remove_pose_library", icon="TRASH")
        self.layout.operator("effigy.remove_face_controls", icon="X")


class _RegionPanel(RigPanel):
    """The sliders of one region, below the panel Sliders."""

    bl_parent_id = "EFFIGY_PT_sliders"
    region = ""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not active.has_rig(context):
            return False
        rig = active.need_rig(context)
        return rig.is_editable and (cls.region in REGION_PARTS or cls.region in by_region(rig.slider_names))

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        rig = active.need_rig(context)
        names = by_region(rig.slider_names).get(self.region, ())
        if self.region == "eyes":
            _draw_part(layout, context, rig, "gaze")
            heading, layout = layout.panel("effigy_eyes", default_closed=True)
            heading.label(text="Each Eye and Lid")
            if layout is None:
                return
            names = [name for name in names if name.startswith(LOOK)]
        column = layout.column(align=True)
        blocks, narrow = rig.key_blocks, region_width(context) < NARROW
        for name in names:
            if name in blocks:
                column.prop(blocks[name], "value", text=label_of(name, narrow), slider=True, translate=False)
            else:
                column.label(text=f"{label_of(name)}: its shape key is gone", icon="ERROR", translate=False)
        for part in REGION_PARTS.get(self.region, ()):
            _draw_part(layout, context, rig, part)


def _draw_part(layout: bpy.types.UILayout, context: bpy.types.Context, rig: Rig, part: str) -> None:
    """The angles of a part of the face, with the button that keys its bones."""
    title, angles = PARTS[part]
    try:
        for joint in JOINTS[part]:
            rig.bone_name(joint)
    except EffigyError as error:
        wrapped(layout, str(error), region_width(context), "ERROR")
        return
    column = layout.column(align=True)
    row = column.row()
    row.label(text=title)
    row.operator("effigy.key_part", text="", icon="KEY_HLT", emboss=False).part = part
    for name in angles:
        column.prop(rig.armature.effigy_face, name, slider=True)


def label_of(name: str, narrow: bool = False) -> str:
    """`mouthSmileLeft` -> `Mouth Smile Left`. The region stays in the label, as it is in the name of the shape key,
    except in a `narrow` sidebar, which would cut off the side.
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name).split()
    if narrow and len(words) > 2:
        words = words[1:]
    return " ".join(word[:1].upper() + word[1:] for word in words)


def _panel_of(region: str, number: int) -> type:
    """The class of a region's panel; `number` counts the panels from the top."""
    return type(
        f"EFFIGY_PT_sliders_{region}",
        (_RegionPanel, bpy.types.Panel),
        {
            "bl_idname": f"EFFIGY_PT_sliders_{region}",
            "bl_label": LABELS[region],
            "region": region,
            "bl_order": number,
            "bl_options": set() if region == "mouth" else {"DEFAULT_CLOSED"},
            "__module__": __name__,
            "__doc__": f"The sliders of the region “{region}”.",
        },
    )


classes = (
    EFFIGY_PT_sliders,
    EFFIGY_PT_controls,
    *(_panel_of(region, number) for number, region in enumerate(REGIONS, 1)),
)
