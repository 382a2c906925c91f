"""Blender's properties that several ways of performing have alike: Live, *Transfer Performance* and *Lip Sync*."""

from __future__ import annotations

from typing import Any, Final

from bpy.props import FloatProperty

OF_EXPRESSIONS: Final = "Strength of the expressions, relative to the neutral face. Blinks and gaze are not scaled"


def intensity_property(description: str = OF_EXPRESSIONS) -> Any:
    """The factor on a performance's expressions."""
    return FloatProperty(
        name="Intensity", default=1.0, min=0.0, soft_max=2.0, max=3.0, subtype="FACTOR", description=description
    )


def smoothing_property(description: str, soft_max: float) -> Any:
    """The seconds over which a performance is smoothed."""
    return FloatProperty(
        name="Smoothing", default=0.0, min=0.0, soft_max=soft_max, max=2.0, precision=3, description=description
    )


def head_motion_property() -> Any:
    """The factor on the head's motion."""
    return FloatProperty(
        name="Head Motion",
        default=1.0,
        min=0.0,
        soft_max=1.0,
        max=2.0,
        subtype="FACTOR",
        description="How much of the head's motion is taken over. 0: the head stays still",
    )
