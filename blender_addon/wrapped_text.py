"""Wraps sentences in panels into lines, which Blender does not do itself."""

from __future__ import annotations

import textwrap
from typing import Final

import bpy
from bpy.app.translations import pgettext_iface

PIXELS_PER_LETTER: Final = 6.2
"""Mean width of a letter of Blender's interface font in a sentence, at interface scale 1."""


def wrapped(layout: bpy.types.UILayout, sentence: str, width: float, icon: str = "NONE") -> None:
    """Adds labels with a sentence wrapped to `width` (pixels at interface scale 1), and `icon` before the first
    line.
    """
    letters = max(16, int((width - (20 if icon != "NONE" else 0)) / PIXELS_PER_LETTER))
    column = layout.column(align=True)
    column.scale_y = 0.8
    for number, line in enumerate(textwrap.wrap(pgettext_iface(sentence), letters, break_on_hyphens=False)):
        column.label(text=line, icon=icon if number == 0 else "BLANK1" if icon != "NONE" else "NONE", translate=False)


def region_width(context: bpy.types.Context) -> float:
    """Width of a line in the region that is being drawn, in pixels at interface scale 1."""
    scale = context.preferences.system.ui_scale or 1.0
    return (context.region.width / scale if context.region else 300) - 50
