"""What Effigy keeps in a .blend file: the settings of the scene's jobs, and what each rig knows of its avatar.

Paths are kept relative to the .blend (`//`) where Blender can, so that a project folder can be moved as a whole.
"""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty


class EffigyScene(bpy.types.PropertyGroup):
    preset: EnumProperty(
        name="Preset", default="draft", description="How carefully the avatar is trained",
        items=(("draft", "Draft", "A first look, in minutes"),
               ("standard", "Standard", "For work"),
               ("full", "Full", "As in the paper: hours on a GPU")))
    size: IntProperty(
        name="Resolution", default=0, min=0, max=2048, subtype="PIXEL",
        description="Side of the training pictures; 0: the preset's")
    device: EnumProperty(
        name="Device", default="auto", description="What trains",
        items=(("auto", "Automatic", "The GPU where there is one"), ("cpu", "CPU", "The processor"),
               ("cuda", "CUDA", "The NVIDIA GPU")))
    minutes: FloatProperty(
        name="Minutes", default=0.0, min=0.0, soft_max=600.0, precision=1,
        description="Let the clock end the training; 0: the preset's number of steps")


class EffigyObject(bpy.types.PropertyGroup):
    """On the armature of a rig."""

    capture: StringProperty(
        name="Capture", subtype="DIR_PATH", description="The folder with the cropped frames that this rig was tracked on")
    avatar: StringProperty(
        name="Avatar", subtype="FILE_PATH", description="The .effigy file that is shown on this rig")
    packed: PointerProperty(
        name="Packed Avatar", type=bpy.types.Text, description="The avatar's file, kept inside this .blend")


classes = (EffigyScene, EffigyObject)


def register() -> None:
    bpy.types.Scene.effigy = PointerProperty(type=EffigyScene)
    bpy.types.Object.effigy = PointerProperty(type=EffigyObject)


def unregister() -> None:
    for owner in (bpy.types.Scene, bpy.types.Object):
        if hasattr(owner, "effigy"):
            del owner.effigy
