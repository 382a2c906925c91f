"""Draws the extension's panels into a layout that records their texts, since Blender draws none without a window."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import bpy

PACKAGE = "bl_ext.user_default.effigy"


class Layout:
    """Replaces a UILayout: records texts and buttons, and refuses arguments that Blender's own layout would refuse."""

    def __init__(self, texts: list[str] | None = None) -> None:
        self.texts = [] if texts is None else texts
        self.enabled = True

    def _nested(self, *_, **__) -> Layout:
        return Layout(self.texts)

    row = column = box = split = _nested

    def label(self, *, text="", icon="NONE", translate=True) -> None:
        assert icon in bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items.keys()
        self.texts.append(text)

    def prop(self, data, name, *, index=-1, text=None, slider=False, translate=True, expand=False) -> None:
        assert name in data.bl_rna.properties or name.strip('["]') in data.keys(), name
        self.texts.append(text if text is not None else data.bl_rna.properties[name].name)

    def operator(self, name, *, text="", icon="NONE", emboss=True) -> SimpleNamespace:
        group, verb = name.split(".")
        kind = getattr(getattr(bpy.ops, group), verb).get_rna_type()
        assert icon in bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items.keys()
        self.texts.append(text or kind.name)
        return SimpleNamespace()

    def operator_menu_enum(self, name, prop, *, text="", icon="NONE") -> None:
        assert prop in getattr(bpy.ops.effigy, name.split(".")[1]).get_rna_type().properties
        self.texts.append(text)

    def panel(self, idname, *, default_closed=False) -> tuple[Layout, Layout]:
        return self, self

    def progress(self, *, factor=0.0, text="", type="BAR") -> None:
        assert 0 <= factor <= 1
        self.texts.append(text)

    def template_icon(self, icon_value, scale=1.0) -> None:
        assert icon_value > 0
        self.texts.append("preview")

    def separator(self, **_) -> None:
        pass

    @property
    def words(self) -> str:
        return " ".join(self.texts)


def panels() -> list[type]:
    return [
        cls
        for cls in bpy.types.Panel.__subclasses__()
        if cls.__module__.startswith(f"{PACKAGE}.blender_addon.panels") and cls.is_registered
    ]


def drawn(name: str = "") -> str:
    """All texts of the panels that are shown now, or of those whose name begins with `name`, joined."""
    return " ".join(texts_of(name))


def texts_of(name: str) -> list[str]:
    """The same as a list."""
    layout = Layout()
    draw_into(layout, name)
    return layout.texts


def draw_into(layout: Layout, name: str = "") -> None:
    """Draw the panels that are shown now, or those of them whose name begins with `name`."""
    for panel in panels():
        if panel.__name__.startswith(name or "EFFIGY") and (not hasattr(panel, "poll") or panel.poll(bpy.context)):
            # A Panel cannot be instantiated in Python, and its `draw` needs nothing but a layout.
            stand_in = type(
                "StandIn",
                (),
                {
                    key: value
                    for base in reversed(panel.__mro__)
                    for key, value in vars(base).items()
                    if inspect.isfunction(value) or key == "region"
                },
            )()
            stand_in.layout = layout
            stand_in.draw(bpy.context)
