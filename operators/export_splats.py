"""Exports the avatars as 3D Gaussian Splatting files, for the current frame or for the scene's frame range."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import bpy
import numpy as np
from bpy.props import BoolProperty, EnumProperty, StringProperty

from ..blender_addon import tasks
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.splat_files import format_of
from ..blender_addon.viewport import baking

FORMATS: Final = {"PLY": ".ply", "SPZ": ".spz", "GLB": ".glb"}
AXES: Final = {
    # From the worker's axes (Y up, Z out of the face) to those of the file.
    "Y_DOWN": np.diag((1.0, -1.0, -1.0)),
    "Y_UP": np.eye(3),
    "Z_UP": np.array(((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))),
}


class EFFIGY_OT_export_splats(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.export_splats"
    bl_label = "Export Splats"
    bl_description = (
        "Export the scene's avatars in their current pose as 3D Gaussian Splatting files (.ply, .spz, .glb)"
    )

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default=";".join(f"*{suffix}" for suffix in FORMATS.values()), options={"HIDDEN"})
    # Blender then asks before a file is replaced.
    check_existing: BoolProperty(default=True, options={"HIDDEN"})
    format: EnumProperty(
        name="Format",
        default="PLY",
        description="Which programs can read the file",
        items=(
            ("PLY", "PLY", "Exact and large, read by all 3D Gaussian Splatting programs"),
            ("SPZ", "SPZ", "A tenth of the size, for phones, web viewers and Blender 5.3; colours are rounded"),
            ("GLB", "glTF", "glTF with Gaussian splatting (.glb), for game engines and web viewers"),
        ),
    )
    animation: BoolProperty(
        name="Whole Range",
        description="Write a numbered file for each frame of the scene's range, instead of one for the current frame",
    )
    axes: EnumProperty(
        name="Axes",
        default="Y_DOWN",
        description="Which axis points up in a .ply file. In the other formats it is always Y",
        items=(
            ("Y_DOWN", "Y Down", "For 3D Gaussian Splatting programs and viewers (Z forward)"),
            ("Y_UP", "Y Up", "For game engines and glTF (Z backward)"),
            ("Z_UP", "Z Up", "For Blender"),
        ),
    )
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if not self.filepath:
            suffix = FORMATS[self.format]
            self.filepath = str(Path(bpy.data.filepath).with_suffix(suffix)) if bpy.data.filepath else f"avatar{suffix}"
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def check(self, context: bpy.types.Context) -> bool:
        """Blender calls it in the file browser when an option has changed."""
        wanted = _with_suffix(self.filepath, FORMATS[self.format])
        changed, self.filepath = wanted != self.filepath, wanted
        return changed

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.use_property_split = True
        self.layout.prop(self, "format")
        self.layout.prop(self, "animation")
        if self.format == "PLY":
            self.layout.prop(self, "axes")

    def run(self, context: bpy.types.Context) -> None:
        if not self.filepath:
            raise EffigyError(f"Choose a name for the file to write ({', '.join(FORMATS.values())}).")
        chosen = bpy.path.abspath(self.filepath)
        # In scripts the name says the format, unless it is given.
        suffix = FORMATS[self.format] if self.properties.is_property_set("format") else None
        path = Path(_with_suffix(chosen, suffix or format_of(chosen) or FORMATS[self.format])).absolute()
        scene = context.scene
        frames = (scene.frame_start, scene.frame_end) if self.animation else None
        axes = AXES[self.axes] if path.suffix == ".ply" else AXES["Y_UP"]
        task = baking.export(context, path, axes, frames)
        tasks.wait_if_asked(self, task)


def _with_suffix(name: str, suffix: str) -> str:
    """The name with this suffix in place of another format's."""
    other = format_of(name)
    return f"{name[: -len(other)] if other else name}{suffix}"


def draw_menu(self: bpy.types.Menu, context: bpy.types.Context) -> None:
    self.layout.operator(EFFIGY_OT_export_splats.bl_idname, text="Avatars as Gaussian Splats (.ply/.spz/.glb, Effigy)")


classes = (EFFIGY_OT_export_splats,)


def register() -> None:
    bpy.types.TOPBAR_MT_file_export.append(draw_menu)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_export.remove(draw_menu)
