"""What Blender has the extension do without a click after a .blend was opened: it draws panels, asks which buttons are
enabled, and draws 3D Views. Needs bpy, with the extension enabled.
"""

from __future__ import annotations

import importlib
import inspect
from types import SimpleNamespace
from typing import Any, Final

import bpy
import numpy as np

PACKAGE: Final = "bl_ext.user_default.effigy"


class AnyLayout:
    """Stands for a UILayout and keeps the texts. A text that Blender would refuse raises what Blender raises."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __getattr__(self, name: str) -> Any:
        return self._call

    def panel(self, *_: object, **__: object) -> tuple[AnyLayout, AnyLayout]:
        """A sub-panel: its heading and its body, which is open."""
        return AnyLayout(self.texts), AnyLayout(self.texts)

    def _call(self, *_: object, text: str | None = "", **__: object) -> AnyLayout:
        (text or "").encode("utf-8")
        self.texts.append(text or "")
        return AnyLayout(self.texts)


def run() -> list[str]:
    """Everything once; returns the texts of the panels."""
    ask_operators()
    texts = draw_panels()
    draw_view()
    return texts


def draw_panels() -> list[str]:
    texts: list[str] = []
    for panel in bpy.types.Panel.__subclasses__():
        if not panel.__module__.startswith(PACKAGE) or not panel.is_registered:
            continue
        if hasattr(panel, "poll") and not panel.poll(bpy.context):
            continue
        # A Panel cannot be instantiated in Python, and its `draw` needs nothing but a layout.
        members = {
            name: value
            for base in reversed(panel.__mro__)
            for name, value in vars(base).items()
            if inspect.isfunction(value) or name == "region"
        }
        drawn = type("StandIn", (), members)()
        drawn.layout = AnyLayout(texts)
        drawn.draw(bpy.context)
    return texts


def ask_operators() -> None:
    for name in dir(bpy.ops.effigy):
        if not name.startswith("_"):
            getattr(bpy.ops.effigy, name).poll()


def draw_view() -> None:
    """What a 3D View does when it begins to be drawn, and right after."""
    live = importlib.import_module(f"{PACKAGE}.blender_addon.viewport.live")
    visibility = importlib.import_module(f"{PACKAGE}.blender_addon.viewport.mesh_visibility")
    viewpoint = importlib.import_module(f"{PACKAGE}.blender_addon.viewport.viewpoint").Viewpoint
    spaces = (area.spaces.active for screen in bpy.data.screens for area in screen.areas if area.type == "VIEW_3D")
    context = SimpleNamespace(
        scene=bpy.context.scene,
        space_data=next(spaces),
        view_layer=SimpleNamespace(
            depsgraph=bpy.context.evaluated_depsgraph_get(), objects=bpy.context.view_layer.objects
        ),
    )
    live.update_view(context, 1, viewpoint.from_view_matrix(np.eye(4), False))
    visibility.update_all()
