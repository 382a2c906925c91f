"""Sentences in panels, which Blender does not break into lines by itself."""

from __future__ import annotations

import textwrap
from typing import Final

import bpy
from bpy.app.translations import pgettext_iface

PIXELS_PER_LETTER: Final = 6.2
"""Of Blender's interface font at scale 1, on the average of a sentence."""


def wrapped(layout: bpy.types.UILayout, sentence: str, width: float, icon: str = "NONE") -> None:
    """Labels with a sentence broken to `width` (pixels at interface scale 1); `icon` before the first line."""
    letters = max(16, int((width - (20 if icon != "NONE" else 0)) / PIXELS_PER_LETTER))
    column = layout.column(align=True)
    column.scale_y = 0.8
    for number, line in enumerate(textwrap.wrap(pgettext_iface(sentence), letters, break_on_hyphens=False)):
        column.label(text=line, icon=icon if number == 0 else "BLANK1" if icon != "NONE" else "NONE", translate=False)


def region_width(context: bpy.types.Context) -> float:
    """Pixels at interface scale 1 that a line of the drawn region has."""
    scale = context.preferences.system.ui_scale or 1.0
    return (context.region.width / scale if context.region else 300) - 50
