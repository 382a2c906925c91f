"""No label or button in the Effigy tab is cut off at the width that Blender gives the sidebar.

Blender shares a row's width among its parts, and cuts their texts when these need more. The widths here are of
Blender's interface font at its usual size; the pixels around a text were measured in screenshots.
"""

from __future__ import annotations

from types import SimpleNamespace

import blf
import bpy
import pytest
from panel_texts import Layout, draw_into, panels

SIDEBAR = 236.0
"""Pixels of a line of a panel in the sidebar of Blender 5, at its default width."""
SPLIT = 0.4
"""Share of a line that a property's name gets beside its value."""
FONT_SIZE = 11
BOX, ICON, BUTTON, LABEL, VALUE = 16.0, 20.0, 12.0, 6.0, 44.0
"""Pixels around what is in a box; of an icon; around the text of a button and of a label; of a slider's number."""


def text_width(text: str) -> float:
    blf.size(0, FONT_SIZE)
    return blf.dimensions(0, text)[0]


class Measured(Layout):
    """A layout that knows how wide its parts have to be, and which of them do not fit."""

    def __init__(self, width: float, cut: list[str], parent: Measured | None = None, across: bool = False) -> None:
        super().__init__(parent.texts if parent else None)
        self.width, self.cut, self.across = width, cut, across
        self.parts: list[tuple[str, float] | Measured] = []
        self.split_names = parent is not None and parent.split_names

    @property
    def use_property_split(self) -> bool:
        return self.split_names

    @use_property_split.setter
    def use_property_split(self, value: bool) -> None:
        self.split_names = value

    def _child(self, across: bool, less: float = 0.0, **_: object) -> Measured:
        child = Measured(self.width - less, self.cut, self, across)
        self.parts.append(child)
        return child

    def row(self, **options) -> Measured:
        return self._child(True, **{key: value for key, value in options.items() if key not in ("heading", "align")})

    def column(self, **_) -> Measured:
        return self._child(False)

    def box(self) -> Measured:
        return self._child(False, BOX)

    def split(self, **_) -> Measured:
        return self._child(True)

    def panel(self, idname, *, default_closed=False):
        body = self._child(False)
        return body, body

    def label(self, *, text="", icon="NONE", translate=True) -> None:
        super().label(text=text, icon=icon, translate=translate)
        self._add(text, LABEL + (ICON if icon != "NONE" else 0))

    def operator(self, name, *, text=None, icon="NONE", emboss=True) -> SimpleNamespace:
        shown = super().operator(name, text=text or "", icon=icon, emboss=emboss)
        self._add(self.texts[-1] if text is None else text, BUTTON + (ICON if icon != "NONE" else 0))
        return shown

    def operator_menu_enum(self, name, prop, *, text="", icon="NONE") -> None:
        super().operator_menu_enum(name, prop, text=text, icon=icon)
        self._add(text, BUTTON + 2 * ICON)

    def progress(self, *, factor=0.0, text="", type="BAR") -> None:
        super().progress(factor=factor, text=text, type=type)
        self._add(text, BUTTON)

    def prop(self, data, name, *, text=None, expand=False, **options) -> None:
        super().prop(data, name, text=text, expand=expand, **options)
        shown = self.texts[-1]
        kind = data.bl_rna.properties[name].type if name in data.bl_rna.properties else "FLOAT"
        items = [item.name for item in data.bl_rna.properties[name].enum_items] if kind == "ENUM" else []
        if expand:
            for item in items:
                self._add(item, BUTTON)
        elif self.split_names and not self.across:
            if kind == "BOOLEAN":
                self._fit(shown, text_width(shown) + ICON + LABEL, (1 - SPLIT) * self.width)
            else:
                self._fit(shown, text_width(shown) + LABEL, SPLIT * self.width)
            for item in items:
                self._fit(item, text_width(item) + BUTTON + ICON, (1 - SPLIT) * self.width)
        else:
            self._add(shown, BUTTON + (ICON if kind == "BOOLEAN" else VALUE))

    def _add(self, text: str, around: float) -> None:
        self.parts.append((text, text_width(text) + around if text else ICON))

    def _fit(self, text: str, needed: float, width: float) -> None:
        if needed > width + 1:
            self.cut.append(f"{text}: {needed:.0f} of {width:.0f} pixels")

    @property
    def needed(self) -> float:
        widths = [part.needed if isinstance(part, Measured) else part[1] for part in self.parts]
        return (sum if self.across else max)(widths) if widths else 0.0

    def check(self) -> None:
        for part in self.parts:
            if isinstance(part, Measured):
                part.check()
            elif not self.across:
                self._fit(part[0], part[1], self.width)
        if self.across:
            shown = " | ".join(part[0] for part in self.parts if not isinstance(part, Measured))
            self._fit(shown, self.needed, self.width)


def cut_in(width: float) -> list[str]:
    """What does not fit of the panels that are shown now, of all their folded parts too."""
    cut: list[str] = []
    for panel in panels():
        layout = Measured(width, cut)
        draw_into(layout, panel.__name__)
        layout.check()
    return sorted(set(cut))


@pytest.fixture
def rig(demo_capture, module):
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    module("blender_addon.tasks").clear_finished()
    return module("blender_addon.active").need_rig(bpy.context)


def test_every_text_of_the_tab_is_whole(rig, demo_avatar, monkeypatch, module):
    monkeypatch.setattr(module("blender_addon.wrapped_text"), "region_width", lambda context: SIDEBAR)
    assert cut_in(SIDEBAR) == []
    bpy.ops.effigy.add_avatar(filepath=str(demo_avatar))
    bpy.ops.effigy.add_gaze_target()
    bpy.ops.effigy.add_blinks(seed=5, first=1, last=100)
    bpy.ops.effigy.add_face_controls()
    bpy.ops.effigy.mark_unsure_frames()
    module("blender_addon.tasks").clear_finished()
    assert cut_in(SIDEBAR) == []
    assert cut_in(0.6 * SIDEBAR), "a text that does not fit is noticed"
