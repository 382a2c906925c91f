"""The engine's settings: Blender's panels for size, output and colour, and panels for the settings of this engine only.

In scenes of other engines, a panel offers to composite the avatars; it is shown if the scene has any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import bpy

from ..avatars import has_avatar
from ..rig.rig_properties import is_part
from ..wrapped_text import region_width, wrapped
from .engine_name import ENGINE
from .shown import Shown, shown_in
from .shown import sentence as sentence_about
from .unsupported import unsupported_settings

SHARED_PANELS: Final = ("EEVEE_WORLD_PT_surface",)
"""Panels of other engines that also apply to this one: the world's colour."""
EXCLUDED_PANELS: Final = (
    "freestyle",
    "RENDER_PT_simplify",
    "RENDER_PT_gpencil",
    "RENDER_PT_grease_pencil",
    "stereoscopy",
    "output_views",
    "DATA_PT_preview",
    "DATA_PT_light",
    "DATA_PT_spot",
    "texture_mapping",
)
"""Substrings of the names of panels that Blender gives to every engine, but whose settings have no effect here."""


class _EnginePanel:
    bl_space_type = "PROPERTIES"
    bl_region_type = "WINDOW"
    bl_context = "render"
    COMPAT_ENGINES = {ENGINE}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.engine in cls.COMPAT_ENGINES


class EFFIGY_PT_engine_color(_EnginePanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_engine_color"
    bl_label = "Footage Colours"

    def draw(self, context: bpy.types.Context) -> None:
        view = context.scene.view_settings
        if view.view_transform == "Standard":
            wrapped(self.layout, "Avatars have the colours of their footage.", region_width(context), "CHECKMARK")
            return
        wrapped(
            self.layout,
            "Avatars have the colours of their footage only under the Standard view transform; "
            f"{view.view_transform} makes them paler.",
            region_width(context),
            "COLOR",
        )
        self.layout.operator("effigy.use_standard_view")


class EFFIGY_PT_engine_film(_EnginePanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_engine_film"
    bl_label = "Film and Avatars"

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.use_property_split = True
        self.layout.prop(context.scene.render, "film_transparent", text="Transparent")
        if not context.scene.render.film_transparent:
            wrapped(self.layout, "The world's colour is behind the avatars.", region_width(context))
        self.layout.prop(context.scene.effigy, "enhanced")
        draw_blur(self.layout, context)
        draw_unsupported(self.layout, context)


class EFFIGY_PT_engine_motion_blur(_EnginePanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_engine_motion_blur"
    bl_label = "Motion Blur"
    bl_options = {"DEFAULT_CLOSED"}

    def draw_header(self, context: bpy.types.Context) -> None:
        self.layout.prop(context.scene.render, "use_motion_blur", text="")

    def draw(self, context: bpy.types.Context) -> None:
        render, layout = context.scene.render, self.layout
        layout.use_property_split = True
        layout.active = render.use_motion_blur
        layout.prop(render, "motion_blur_position", text="Position")
        layout.prop(render, "motion_blur_shutter")
        layout.template_curve_mapping(render, "motion_blur_shutter_curve")


class EFFIGY_PT_engine_passes(_EnginePanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_engine_passes"
    bl_label = "Passes"
    bl_context = "view_layer"

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.use_property_split = True
        layout, layer = self.layout, context.view_layer
        layout.prop(layer, "use_pass_z", text="Depth")
        column = layout.column(heading="Indices", align=True)
        column.prop(layer, "use_pass_object_index")
        column.prop(layer, "use_pass_material_index")
        column = layout.column(heading="Cryptomatte", align=True)
        for kind in ("object", "material", "asset"):
            column.prop(layer, f"use_pass_cryptomatte_{kind}", text=kind.capitalize())
        layout.prop(layer, "pass_cryptomatte_depth", text="Levels")


class EFFIGY_PT_engine_composite(_EnginePanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_engine_composite"
    bl_label = "Effigy Avatars"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.engine != ENGINE and any(
            is_part(obj, "armature") and has_avatar(obj) for obj in context.scene.objects
        )

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.prop(context.scene.effigy, "enhanced")
        draw_blur(self.layout, context)
        draw_unsupported(self.layout, context)
        draw_composite(self.layout, context)


def draw_composite(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """In a scene of another engine: whether its image shows the avatars, and the button that makes it so."""
    shown = shown_in(context.scene)
    if shown in (Shown.NO_AVATARS, Shown.BY_ENGINE, Shown.NATIVE):
        return
    done = shown is Shown.COMPOSITED
    wrapped(layout, sentence_about(context.scene), region_width(context), "CHECKMARK" if done else "ERROR")
    again = shown is not Shown.NOT
    layout.operator(
        "effigy.set_up_composite",
        text="Set Up Again" if again else "Composite over the Scene",
        icon="NONE" if done else "NODE_COMPOSITING",
    )


def draw_blur(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """How many images a blurred one is made of, where the scene has motion blur or depth of field."""
    scene = context.scene
    camera = scene.camera
    has_depth = camera is not None and camera.type == "CAMERA" and camera.data.dof.use_dof
    if scene.render.use_motion_blur or has_depth:
        layout.prop(scene.effigy, "blur_images")


def draw_unsupported(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    if shown_in(context.scene) is Shown.NATIVE:
        return
    for sentence in unsupported_settings(context.scene):
        wrapped(layout, sentence, region_width(context), "INFO")


def _shared_panels() -> Iterator[type]:
    """Blender's own panels that also apply to this engine."""
    for panel in bpy.types.Panel.__subclasses__():
        engines = getattr(panel, "COMPAT_ENGINES", None)
        if engines is None or panel.__module__ == __name__:
            continue
        name = panel.__name__
        if name in SHARED_PANELS or ("BLENDER_RENDER" in engines and not any(word in name for word in EXCLUDED_PANELS)):
            yield panel


def register() -> None:
    for panel in _shared_panels():
        panel.COMPAT_ENGINES.add(ENGINE)


def unregister() -> None:
    for panel in bpy.types.Panel.__subclasses__():
        if panel.__module__ != __name__:
            getattr(panel, "COMPAT_ENGINES", set()).discard(ENGINE)


classes = (
    EFFIGY_PT_engine_color,
    EFFIGY_PT_engine_film,
    EFFIGY_PT_engine_motion_blur,
    EFFIGY_PT_engine_passes,
    EFFIGY_PT_engine_composite,
)
