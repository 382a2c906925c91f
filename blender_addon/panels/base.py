"""Base classes of the panels in the Effigy tab."""

from __future__ import annotations

import bpy

from .. import active


class EffigyPanel:
    """A panel in the Effigy tab of the 3D View's sidebar."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Effigy"


class RigPanel(EffigyPanel):
    """A panel that is shown only if there is an active rig."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context)
