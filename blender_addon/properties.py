"""What Effigy keeps in a .blend file: what each rig knows of its capture and its avatar, and how it is trained.

They lie on the armature of a rig, so that several people live in one file, and they survive undo, copying, appending
and saving as everything on an object does. Paths are relative to the .blend (`//`) where it has been saved."""

from __future__ import annotations

from typing import Final

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

PRESETS = (
    ("draft", "Draft", "A first look: about ten minutes on a plain CPU"),
    ("standard", "Standard", "For work: hours on a CPU, well under one on a GPU"),
    ("full", "Full", "As long as it still gets better: for a GPU"),
)
PRESET_SIZES: Final = {"draft": 256, "standard": 512, "full": 512}
PRESET_STEPS: Final = {"draft": 2600, "standard": 10000, "full": 40000}
"""What the backend's presets mean, for the panel to show."""
OWN_MINUTES: Final = 30.0
"""What an artist who wants a clock begins with."""
DEVICES = (
    ("auto", "Automatic", "The GPU where there is one that can be used, else the CPU"),
    ("cpu", "CPU", "The processor"),
    ("cuda", "GPU", "The NVIDIA GPU"),
)


# 4.5 and later warn of `//` in a path that does not say that it may be relative; earlier ones do not know the word.
RELATIVE: Final = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()


def _has_own_size(settings: EffigyObject) -> bool:
    return settings.size > 0


def _set_own_size(settings: EffigyObject, own: bool) -> None:
    settings.size = PRESET_SIZES[settings.preset] if own else 0


def _has_own_minutes(settings: EffigyObject) -> bool:
    return settings.minutes > 0


def _set_own_minutes(settings: EffigyObject, own: bool) -> None:
    settings.minutes = OWN_MINUTES if own else 0.0


class EffigyObject(bpy.types.PropertyGroup):
    """On the armature of a rig."""

    capture: StringProperty(
        name="Capture",
        subtype="DIR_PATH",
        options=RELATIVE,
        description="The folder with the frames that this rig was tracked on",
    )
    avatar: StringProperty(
        name="Avatar", subtype="FILE_PATH", options=RELATIVE, description="The .effigy file that is shown on this rig"
    )
    packed: PointerProperty(
        name="Packed Avatar", type=bpy.types.Text, description="The avatar's file, kept inside this .blend"
    )
    training: StringProperty(
        options={"HIDDEN"}, description="The parameters of this rig's last training, as JSON: what Resume goes on with"
    )
    preset: EnumProperty(
        name="Preset", items=PRESETS, default="draft", description="How carefully the avatar is trained"
    )
    size: IntProperty(
        name="Resolution",
        default=0,
        min=0,
        soft_min=64,
        max=2048,
        step=64,
        subtype="PIXEL",
        description="Side of the training pictures; 0: as the preset has it",
    )
    own_size: BoolProperty(
        name="Own Resolution",
        get=_has_own_size,
        set=_set_own_size,
        description="Train on pictures of another size than the preset's",
    )
    device: EnumProperty(name="Device", items=DEVICES, default="auto", description="What trains")
    minutes: FloatProperty(
        name="Minutes",
        default=0.0,
        min=0.0,
        soft_min=1.0,
        soft_max=600.0,
        step=100,
        precision=1,
        description="Let the clock end the training; 0: as many steps as the preset has",
    )
    own_minutes: BoolProperty(
        name="Own Time",
        get=_has_own_minutes,
        set=_set_own_minutes,
        description="Let the clock end the training instead of the preset's number of steps",
    )


class EffigyScene(bpy.types.PropertyGroup):
    """On a scene."""

    enhanced: BoolProperty(
        name="Enhanced",
        default=True,
        description="Let the avatar's enhancer add fine detail to rendered pictures, where it was trained with one",
    )
    bake_to: EnumProperty(
        name="Bake To",
        default="MEMORY",
        description="Where baked playback is kept until Blender is closed",
        items=(("MEMORY", "Memory", "Quickest"), ("DISK", "Disk", "Blender's temporary folder, for long ranges")),
    )
    bake_limit: IntProperty(
        name="Limit",
        default=2000,
        min=10,
        soft_max=32000,
        step=100,
        description="Megabytes that baked playback may take, all avatars together",
    )


classes = (EffigyObject, EffigyScene)


def register() -> None:
    bpy.types.Object.effigy = PointerProperty(type=EffigyObject)
    bpy.types.Scene.effigy = PointerProperty(type=EffigyScene)


def unregister() -> None:
    for owner in (bpy.types.Object, bpy.types.Scene):
        if hasattr(owner, "effigy"):
            del owner.effigy
