"""The face as sliders, by region from above, of the rig that is active; and what is done with all of them."""

from __future__ import annotations

import re
from typing import Final

import bpy

from .. import active
from ..errors import EffigyError
from ..rig.sliders import REGION_JOINTS, REGIONS, by_region
from .base import RigPanel
from .text import region_width, wrapped

LABELS: Final = {
    "brows": "Brows",
    "eyes": "Gaze",
    "lids": "Lids",
    "cheeks": "Cheeks and Nose",
    "mouth": "Mouth",
    "jaw": "Jaw",
    "other": "Neck and Others",
}
TURNS: Final = {
    "neck": ("Neck", ("Nod", "Turn", "Tilt")),
    "jaw": ("Jaw Bone", ("Open", "Roll", "Sideways")),
    "eye_L": ("Left Eye", ("Down", "Roll", "Sideways")),
    "eye_R": ("Right Eye", ("Down", "Roll", "Sideways")),
}
"""Bone -> its name, and what its turns about its own x, y and z axes do."""
NEVER_ROLLED: Final = ("jaw", "eye_L", "eye_R")


class EFFIGY_PT_sliders(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_sliders"
    bl_label = "Sliders"
    bl_order = 3

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        rig = active.need_rig(context)
        if not rig.is_editable:
            wrapped(
                layout,
                "This rig is linked from another file: make a library override of it to pose it.",
                region_width(context),
                "LINKED",
            )
            return
        layout.operator_menu_enum("effigy.apply_preset", "preset", text="Starter Expression", icon="PRESET")
        row = layout.row(align=True)
        row.operator("effigy.key_all", text="Key All", icon="KEY_HLT")
        row.operator("effigy.reset_expression", text="Reset", icon="LOOP_BACK")
        row.operator("effigy.mirror_expression", text="Mirror", icon="MOD_MIRROR")


class _RegionPanel(RigPanel):
    bl_parent_id = "EFFIGY_PT_sliders"
    region = ""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not active.has_rig(context):
            return False
        rig = active.need_rig(context)
        return rig.is_editable and (cls.region in REGION_JOINTS or cls.region in by_region(rig.slider_names))

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        rig = active.need_rig(context)
        column = layout.column(align=True)
        blocks = rig.key_blocks
        for name in by_region(rig.slider_names).get(self.region, ()):
            if name in blocks:
                column.prop(blocks[name], "value", text=spoken(name), slider=True, translate=False)
            else:
                column.label(text=f"{spoken(name)}: its shape key is gone", icon="ERROR", translate=False)
        for joint in REGION_JOINTS.get(self.region, ()):
            title, turns = TURNS[joint]
            try:
                bone = rig.pose_bone(joint)
            except EffigyError as error:
                wrapped(layout, str(error), region_width(context), "ERROR")
                continue
            column = layout.column(align=True)
            column.label(text=title)
            for index, turn in enumerate(turns, start=1):
                if turn != "Roll" or joint not in NEVER_ROLLED:
                    # A component of the quaternion is the sine of half the turn: near enough to a slider for a face.
                    column.prop(bone, "rotation_quaternion", index=index, text=turn)


def spoken(name: str) -> str:
    """`mouthSmileLeft` -> `Mouth Smile Left`; the region's own word stays, since keys carry it."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name).split()
    return " ".join(word[:1].upper() + word[1:] for word in words)


def _panel_of(region: str, number: int) -> type:
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


classes = (EFFIGY_PT_sliders, *(_panel_of(region, number) for number, region in enumerate(REGIONS)))
