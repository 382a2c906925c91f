"""What all panels of the Effigy tab share."""

from __future__ import annotations

import bpy

from .. import active


class EffigyPanel:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Effigy"


class RigPanel(EffigyPanel):
    """One that is there only for a rig."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context)
