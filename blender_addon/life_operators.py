"""What the operators of eyes and life share: the rig, and the frames in which a face blinks, looks or breathes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy
from bpy.props import IntProperty

from . import active
from .errors import EffigyError
from .reporting import ReportingOperator
from .rig import life
from .rig.action import set_aside_note
from .rig.camera import rate_of
from .rig.rig_properties import Rig


def change_target(rig: Rig, change: Callable[[], object]) -> None:
    """Adds or removes the gaze target by `change`. Small movements of the eyes, which are keys of the bones or of what
    the eyes aim at, are made anew with their numbers.
    """
    strip = life.life_of(rig).get(life.SACCADES)
    settings = {} if strip is None else life.settings_of(strip)
    if strip is not None:
        life.remove_life(rig, life.SACCADES)
    change()
    if strip is not None:
        try:
            bpy.ops.effigy.add_saccades(**settings)
        except TypeError:
            # The settings of a stranger's .blend may be none of the operator's.
            bpy.ops.effigy.add_saccades()


class LifeOperator(ReportingOperator):
    """Mixed into an operator that makes a strip of one `kind` on the active rig, by `add`."""

    bl_options = {"REGISTER", "UNDO"}
    kind = ""

    first: IntProperty(name="First Frame", default=0, description="0, if the last one is 0 as well: the scene's range")
    last: IntProperty(name="Last Frame", default=0, description="0: the scene's range")
    seed: IntProperty(name="Seed", default=1, min=0, description="Another number gives other moments")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and active.need_rig(context).is_editable

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        own = [name for name in type(self).__annotations__ if name not in LifeOperator.__annotations__]
        for name in (*own, *LifeOperator.__annotations__):
            layout.prop(self, name)

    def run(self, context: bpy.types.Context) -> None:
        rig, scene = active.need_rig(context), context.scene
        is_own = bool(self.first or self.last)
        frames = (self.first, self.last) if is_own else (scene.frame_start, scene.frame_end)
        if frames[0] >= frames[1]:
            raise EffigyError(f"The range ends at frame {frames[1]}, before it begins at {frames[0]}.")
        aside = self.add(rig, frames, rate_of(scene), context.evaluated_depsgraph_get())
        names = {*type(self).__annotations__, *LifeOperator.__annotations__}
        life.keep_settings(rig, self.kind, {name: getattr(self, name) for name in names})
        note = set_aside_note([aside] if aside else [], "below it")
        self.report({"INFO"}, f"{self.kind}: in a strip above the performance. {note}".rstrip())

    def add(self, rig: Rig, frames: tuple[int, int], rate: float, depsgraph: Any) -> str:
        """Makes the strip; what it returns is that of `rig.life.add_blinks`."""
        raise NotImplementedError
