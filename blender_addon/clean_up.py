"""What the operators that clean up a performance share: the take, the range of frames and the parts of the face."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import bpy
import numpy as np
from bpy.props import EnumProperty, IntProperty, StringProperty

from . import active
from .errors import EffigyError
from .reporting import ReportingOperator
from .rig.cleaning import Choice
from .rig.rig_properties import Rig
from .rig.sliders import REGION_LABELS
from .rig.takes import PARTS, takes_of

PREVIEW: Final = "PREVIEW"
WHOLE: Final = "WHOLE"
RANGE: Final = "RANGE"
_LABELS: Final = {**REGION_LABELS, "head": "Head and Neck"}


def names_of_takes(operator: Any, context: bpy.types.Context, typed: str) -> Iterator[str]:
    yield from takes_of(active.need_rig(context))


def parts_property(chosen: Iterable[str]) -> Any:
    """The choice of parts of the face; at first these."""
    return EnumProperty(
        name="Parts",
        items=[(part, _LABELS[part], "", 1 << number) for number, part in enumerate(PARTS)],
        default=set(chosen),
        options={"ENUM_FLAG", "SKIP_SAVE"},
        description="Parts of the face that are changed",
    )


class CleanUpOperator(ReportingOperator):
    """Mixed into an operator on a take of the active rig: its options, and `choice`."""

    bl_options = {"REGISTER", "UNDO"}
    has_parts = True
    """Whether the artist chooses parts of the face."""

    take: StringProperty(
        name="Take",
        search=names_of_takes,
        options={"SKIP_SAVE"},
        description="The tracked performance where it is empty, or the strips of Sliders from Controls above it",
    )
    frames: EnumProperty(
        name="Frames",
        items=(
            (PREVIEW, "Preview Range", "Those of the timeline's preview range (P); all frames where none is set", 0),
            (WHOLE, "Whole Take", "All frames", 1),
            (RANGE, "Range", "From the first to the last frame given here", 2),
        ),
        options={"SKIP_SAVE"},
    )
    first: IntProperty(name="First", default=1, options={"SKIP_SAVE"}, description="First frame of the range")
    last: IntProperty(name="Last", default=250, options={"SKIP_SAVE"}, description="Last frame of the range")
    parts: parts_property(PARTS)
    only: StringProperty(
        name="Only",
        options={"SKIP_SAVE"},
        description="Change only sliders and joints whose names contain this, such as “Smile”. All where it is empty",
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and active.need_rig(context).is_editable

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        for name in type(self).__annotations__:
            if name not in CleanUpOperator.__annotations__:
                layout.prop(self, name)
        layout.prop(self, "take")
        layout.prop(self, "frames")
        if self.frames == RANGE:
            layout.prop(self, "first")
            layout.prop(self, "last")
        if self.has_parts:
            layout.column(align=True).prop(self, "parts")
            layout.prop(self, "only")

    def choice(self, context: bpy.types.Context) -> tuple[Rig, Choice]:
        """The active rig, and what of it is changed."""
        scene, first, last = context.scene, -np.inf, np.inf
        if self.frames == RANGE:
            first, last = float(self.first), float(self.last)
        elif self.frames == PREVIEW and scene.use_preview_range:
            first, last = float(scene.frame_preview_start), float(scene.frame_preview_end)
        if first > last:
            raise EffigyError(f"The range ends at frame {last:g}, before it begins at {first:g}.")
        parts = self.parts if self.has_parts else PARTS
        return active.need_rig(context), Choice(self.take.strip(), first, last, parts, self.only.strip())

    def check_range(self, choice: Choice) -> None:
        """Refuses a choice of the whole take."""
        if np.isinf(choice.first):
            raise EffigyError("Choose in which frames: set the preview range in the timeline (P), or type a range.")
