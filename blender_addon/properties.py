"""What Effigy keeps in a .blend file: what each rig knows of its capture and its avatar, and how it is trained.

They lie on the armature of a rig, so that several people live in one file, and they survive undo, copying, appending
and saving as everything on an object does. Paths are relative to the .blend (`//`) where it has been saved. """

from __future__ import annotations

from typing import Final

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

PRESETS = (("draft", "Draft", "A first look: about ten minutes on a plain CPU"),
           ("standard", "Standard", "For work: hours on a CPU, well under one on a GPU"),
           ("full", "Full", "As long as it still gets better: for a GPU"))
DEVICES = (("auto", "Automatic", "The GPU where there is one that can be used, else the CPU"),
           ("cpu", "CPU", "The processor"), ("cuda", "GPU", "The NVIDIA GPU"))


# 4.5 and later warn of `//` in a path that does not say that it may be relative; earlier ones do not know the word.
RELATIVE: Final = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()


class EffigyObject(bpy.types.PropertyGroup):
    """On the armature of a rig."""

    capture: StringProperty(
        name="Capture", subtype="DIR_PATH", options=RELATIVE,
        description="The folder with the frames that this rig was tracked on")
    avatar: StringProperty(
        name="Avatar", subtype="FILE_PATH", options=RELATIVE,
        description="The .effigy file that is shown on this rig")
    packed: PointerProperty(
        name="Packed Avatar", type=bpy.types.Text, description="The avatar's file, kept inside this .blend")
    training: StringProperty(
        options={"HIDDEN"}, description="The parameters of this rig's last training, as JSON: what Resume goes on with")
    preset: EnumProperty(name="Preset", items=PRESETS, default="draft", description="How carefully the avatar is "
                                                                                    "trained")
    size: IntProperty(
        name="Resolution", default=0, min=0, max=2048, step=64, subtype="PIXEL",
        description="Side of the training pictures; 0: as the preset has it")
    device: EnumProperty(name="Device", items=DEVICES, default="auto", description="What trains")
    minutes: FloatProperty(
        name="Minutes", default=0.0, min=0.0, soft_max=600.0, step=100, precision=1,
        description="Let the clock end the training; 0: as many steps as the preset has")


classes = (EffigyObject,)


def register() -> None:
    bpy.types.Object.effigy = PointerProperty(type=EffigyObject)


def unregister() -> None:
    if hasattr(bpy.types.Object, "effigy"):
        del bpy.types.Object.effigy
