"""Imports footage: captures and tracks it in the background, then builds the rig, its camera and its performance."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, CollectionProperty, EnumProperty, IntProperty, StringProperty

from ..blender_addon import image_run, importing, scene_set_up, tasks
from ..blender_addon.errors import EffigyError
from ..blender_addon.file_choice import choose_file
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_import_video(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.import_video"
    bl_label = "Import Video"
    bl_description = (
        "Turn a video, numbered images or a photograph of a person into a head rig with keyframes of the performance, "
        "and a camera that shows the footage behind it"
    )

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    directory: StringProperty(subtype="DIR_PATH", options={"HIDDEN", "SKIP_SAVE"})
    files: CollectionProperty(type=bpy.types.OperatorFileListElement, options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(
        default=";".join(f"*{extension}" for extension in importing.EXTENSIONS), options={"HIDDEN"}
    )
    first: IntProperty(
        name="First Frame",
        default=1,
        min=1,
        description="First frame of the video to import, or number of the first image",
    )
    last: IntProperty(
        name="Last Frame",
        default=0,
        min=0,
        description="Last frame of the video to import, or number of the last image. 0: the end",
    )
    sequence: BoolProperty(
        name="Image Sequence",
        default=True,
        options={"SKIP_SAVE"},
        description="Take a numbered image and those beside it as one film, at the frame rate of the scene. Off: take "
        "the image alone, as a photograph",
    )
    turn: EnumProperty(
        name="Turn",
        items=(
            ("0", "Not Turned", "The images are upright"),
            ("90", "90° Clockwise", "The top of the head is at the left"),
            ("180", "180°", "The person stands on the head"),
            ("270", "270° Clockwise", "The top of the head is at the right"),
        ),
        options={"SKIP_SAVE"},
        description="Turn footage that lies on its side, or was filmed upside down",
    )
    size: IntProperty(
        name="Resolution",
        default=512,
        min=128,
        max=2048,
        step=64,
        subtype="PIXEL",
        description="Width and height of the square images of the head that are cut out of the video. An avatar cannot "
        "be trained at a higher resolution",
    )
    landmarks_only: BoolProperty(
        name="Landmarks Only",
        description="Track by landmarks of the face alone, without aligning the frames to the person's skin: three "
        "times as fast, but less accurate and less stable",
    )
    capture: StringProperty(
        name="Capture",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
        description="The folder to write. Empty: beside the .blend file, or beside the video if the .blend is unsaved",
    )
    set_up: scene_set_up.choice()
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.set_up = scene_set_up.is_untouched(context.scene)
        if self.filepath:
            # The file was dropped into the window.
            return context.window_manager.invoke_props_dialog(self)
        return choose_file(self, context)

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column(align=True)
        column.prop(self, "first")
        column.prop(self, "last")
        if Path(self.filepath).suffix.lower() in image_run.SUFFIXES:
            layout.prop(self, "sequence")
        layout.prop(self, "turn")
        layout.prop(self, "size")
        layout.prop(self, "landmarks_only")
        layout.prop(self, "capture")
        layout.prop(self, "set_up")

    def run(self, context: bpy.types.Context) -> None:
        if not self.filepath:
            raise EffigyError("Choose a video to import.")
        video = Path(bpy.path.abspath(self.filepath)).absolute()
        first, last = self._chosen_images(video) or (self.first, self.last)
        capture = Path(bpy.path.abspath(self.capture)).absolute() if self.capture else None
        task = importing.import_video(
            context.scene,
            video,
            first=first,
            last=last,
            size=self.size,
            capture=capture,
            landmarks_only=self.landmarks_only,
            set_up=self.set_up if self.properties.is_property_set("set_up") else None,
            sequence=self.sequence,
            turn=int(self.turn),
        )
        if self.wait or bpy.app.background:
            tasks.wait_for_success(task)
        self.report({"INFO"}, task.message or "Importing in the background. The Effigy tab shows the progress.")

    def _chosen_images(self, video: Path) -> tuple[int, int] | None:
        """The first and last number of several images that were selected together; None for a single file."""
        names = [each.name for each in self.files if each.name]
        if len(names) < 2:
            return None
        pattern = image_run.pattern_of(video) if self.sequence else None
        found = [image_run.number_in(name, pattern) for name in names] if pattern else []
        numbers = [number for number in found if number is not None]
        if len(numbers) < len(names):
            raise EffigyError("Choose one video, one photograph, or images of one sequence.")
        return min(numbers), max(numbers)


class EFFIGY_FH_video(bpy.types.FileHandler):
    bl_idname = "EFFIGY_FH_video"
    bl_label = "Video of a person"
    bl_import_operator = "effigy.import_video"
    bl_file_extensions = ";".join(importing.VIDEO_EXTENSIONS)

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        return context.area is not None and context.area.type == "VIEW_3D"


def draw_menu(self: bpy.types.Menu, context: bpy.types.Context) -> None:
    self.layout.operator(EFFIGY_OT_import_video.bl_idname, text="Video to Head Rig (Effigy)")


classes = (EFFIGY_OT_import_video, EFFIGY_FH_video)


def register() -> None:
    bpy.types.TOPBAR_MT_file_import.append(draw_menu)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(draw_menu)
