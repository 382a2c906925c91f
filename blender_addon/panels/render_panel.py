"""The panel Render: choosing the engine and the view transform, shadow and light for a scene, and rendering; and below
it the panel Native Splats, where Blender draws Gaussians itself.
"""

from __future__ import annotations

import bpy

from .. import active, head_light
from ..avatars import has_avatar
from ..engine.panels import draw_blur, draw_composite, draw_unsupported
from ..file_names import readable
from ..native_clouds import cloud_of, is_supported
from ..wrapped_text import region_width, wrapped
from .base import RigPanel


class EFFIGY_PT_render(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_render"
    bl_label = "Render"
    bl_order = 6

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        scene = context.scene
        layout.prop(scene.render, "engine", text="Engine")
        if scene.view_settings.view_transform != "Standard":
            box = layout.box()
            wrapped(
                box,
                "Avatars have the colours of their footage only with the view transform Standard.",
                region_width(context),
                "COLOR",
            )
            box.operator("effigy.use_standard_view")
        layout.prop(scene.effigy, "enhanced")
        draw_blur(layout, context)
        draw_unsupported(layout, context)
        draw_composite(layout, context)
        layout.operator("effigy.add_shadow_catcher", icon="MESH_PLANE")
        row = layout.row(align=True)
        row.operator("effigy.add_head_light", icon="LIGHT_SUN")
        if head_light.head_light_of(active.need_rig(context)):
            row.operator("effigy.remove_head_light", text="", icon="X")
        row = layout.row(align=True)
        row.operator("render.render", text="Frame", icon="RENDER_STILL")
        row.operator("render.render", text="Animation", icon="RENDER_ANIMATION").animation = True


class EFFIGY_PT_native(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_native"
    bl_label = "Native Splats"
    bl_parent_id = "EFFIGY_PT_render"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context) and has_avatar(active.need_rig(context).armature)

    def draw(self, context: bpy.types.Context) -> None:
        layout, rig = self.layout, active.need_rig(context)
        cloud = cloud_of(rig, context.scene.objects)
        if cloud is None:
            layout.operator("effigy.native_splats", icon="POINTCLOUD_DATA")
            return
        if cloud.effigy_native.baked:
            files = [m.cache_file.filepath for m in cloud.modifiers if m.type == "MESH_SEQUENCE_CACHE" and m.cache_file]
            wrapped(layout, f"Played from {readable(', '.join(files))[:200]}.", region_width(context), "FILE_CACHE")
            layout.operator("effigy.native_splats", text="Follow the Rig Again", icon="POINTCLOUD_DATA")
        else:
            layout.prop(cloud.effigy_native, "light", slider=True)
        layout.prop(cloud, "hide_viewport", text="3D Views Drawn by Effigy")
        layout.operator("effigy.bake_to_disk", icon="FILE_CACHE")
        layout.operator("effigy.native_splats", text="Remove", icon="X").remove = True


classes = (EFFIGY_PT_render, *((EFFIGY_PT_native,) if is_supported() else ()))
