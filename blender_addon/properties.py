"""The settings that Effigy stores in a .blend file: each rig's capture, avatar and training, and some for the scene.

The settings of a rig are on its armature object, so one file can hold several people, and they are kept through undo,
copying, appending and saving like any other property. Paths are relative to the .blend file (`//`) once it has been
saved.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from . import avatars, trusted_paths
from .carried_paths import own_paths_changed
from .errors import EffigyError
from .grade import GAINS, MOST_BLACK, MOST_STOPS
from .paths import absolute
from .redraw import redraw_views
from .training_choices import DEVICES, PRESETS

INITIAL_MINUTES: Final = 30.0
"""Training time, minutes, when the artist first chooses to set it."""
# Blender 4.5 and later warn of `//` in a path property without this option. Earlier versions do not know the option.
RELATIVE: Final = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()
OWN_IN_OVERRIDE: Final = {"LIBRARY_OVERRIDABLE"}
"""Blender stores a change in a library override only with this option; without it the change is lost on opening."""


def _has_own_size(settings: EffigyObject) -> bool:
    return settings.size > 0


def _set_own_size(settings: EffigyObject, own: bool) -> None:
    settings.size = PRESETS.get(settings.preset, PRESETS["draft"]).size if own else 0


def _has_own_minutes(settings: EffigyObject) -> bool:
    return settings.minutes > 0


def _set_own_minutes(settings: EffigyObject, own: bool) -> None:
    settings.minutes = INITIAL_MINUTES if own else 0.0


# Blender calls these when the artist or a script sets a property, and not when a .blend is opened or linked.
def _set_capture(settings: EffigyObject, context: bpy.types.Context) -> None:
    own_paths_changed(settings.id_data, "capture")
    if settings.capture:
        with suppress(EffigyError):
            trusted_paths.trust(absolute(settings.capture, settings.id_data))


def _set_avatar(settings: EffigyObject, context: bpy.types.Context) -> None:
    own_paths_changed(settings.id_data, "avatar")
    if settings.avatar:
        with suppress(EffigyError):
            trusted_paths.trust(absolute(settings.avatar, settings.id_data))


def _set_training(settings: EffigyObject, context: bpy.types.Context) -> None:
    own_paths_changed(settings.id_data, "training")


def _regrade(settings: EffigyObject, context: bpy.types.Context) -> None:
    # Blender evaluates an object again after a script has set a value of its own only if it is told.
    settings.id_data.update_tag()
    redraw_views()


def _trust_packed(settings: EffigyObject, context: bpy.types.Context) -> None:
    if settings.packed:
        with suppress(EffigyError):
            avatars.remember_packed(settings.packed)


class EffigyObject(bpy.types.PropertyGroup):
    """The settings on the armature object of a rig."""

    capture: StringProperty(
        override=OWN_IN_OVERRIDE,
        name="Capture",
        subtype="DIR_PATH",
        options=RELATIVE,
        update=_set_capture,
        description="The folder with the video frames that this rig was tracked on",
    )
    avatar: StringProperty(
        override=OWN_IN_OVERRIDE,
        name="Avatar",
        subtype="FILE_PATH",
        options=RELATIVE,
        update=_set_avatar,
        description="The .effigy file of the avatar on this rig",
    )
    packed: PointerProperty(
        override=OWN_IN_OVERRIDE,
        name="Packed Avatar",
        type=bpy.types.Text,
        update=_trust_packed,
        description="The avatar's file, kept inside this .blend",
    )
    show_bust: BoolProperty(
        override=OWN_IN_OVERRIDE,
        name="Shoulders",
        default=True,
        # Playback is baked with the same Gaussians in all frames.
        options=set(),
        description="Show the collar and shoulders of an avatar whose footage had them. They follow the bone “torso”",
    )
    exposure: FloatProperty(
        override=OWN_IN_OVERRIDE,
        name="Exposure",
        default=0.0,
        soft_min=-MOST_STOPS,
        soft_max=MOST_STOPS,
        min=-10.0,
        max=10.0,
        step=10,
        precision=2,
        update=_regrade,
        description="Stops by which the avatar is lighter than its video",
    )
    red: FloatProperty(
        override=OWN_IN_OVERRIDE,
        name="Red",
        default=1.0,
        soft_min=GAINS[0],
        soft_max=GAINS[1],
        min=0.01,
        max=100.0,
        step=1,
        precision=3,
        update=_regrade,
        description="White balance: gain on the avatar's red light",
    )
    blue: FloatProperty(
        override=OWN_IN_OVERRIDE,
        name="Blue",
        default=1.0,
        soft_min=GAINS[0],
        soft_max=GAINS[1],
        min=0.01,
        max=100.0,
        step=1,
        precision=3,
        update=_regrade,
        description="White balance: gain on the avatar's blue light",
    )
    black: FloatProperty(
        override=OWN_IN_OVERRIDE,
        name="Black Level",
        default=0.0,
        soft_min=-MOST_BLACK,
        soft_max=MOST_BLACK,
        min=-0.9,
        max=0.9,
        step=1,
        precision=3,
        update=_regrade,
        description="What the avatar's black becomes, while white stays: above 0 for a plate with haze, below 0 for "
        "more contrast",
    )
    training: StringProperty(
        override=OWN_IN_OVERRIDE,
        options={"HIDDEN"},
        update=_set_training,
        description="The settings of this rig's last training, as JSON, for Resume Training",
    )
    origin: StringProperty(
        override=OWN_IN_OVERRIDE,
        options={"HIDDEN"},
        description="The .blend file to which the paths of this rig are relative",
    )
    preset: EnumProperty(
        override=OWN_IN_OVERRIDE,
        name="Preset",
        items=[(name, preset.label, preset.description, preset.number) for name, preset in PRESETS.items()],
        default="draft",
        description="How long the avatar is trained, and at which resolution",
    )
    size: IntProperty(
        override=OWN_IN_OVERRIDE,
        name="Resolution",
        default=0,
        min=0,
        soft_min=64,
        max=2048,
        step=64,
        subtype="PIXEL",
        description="Width and height of the images that the avatar is trained on. 0: as in the preset",
    )
    own_size: BoolProperty(
        override=OWN_IN_OVERRIDE,
        name="Custom Resolution",
        get=_has_own_size,
        set=_set_own_size,
        description="Choose the resolution instead of using the preset's",
    )
    device: EnumProperty(
        override=OWN_IN_OVERRIDE,
        name="Device",
        items=[(name, label, description) for name, (label, description) in DEVICES.items()],
        default="auto",
        description="Which processor the training uses",
    )
    minutes: FloatProperty(
        override=OWN_IN_OVERRIDE,
        name="Time",
        default=0.0,
        min=0.0,
        soft_min=1.0,
        soft_max=600.0,
        step=100,
        precision=1,
        description="Minutes after which the training ends. 0: train for the preset's number of steps",
    )
    own_minutes: BoolProperty(
        override=OWN_IN_OVERRIDE,
        name="Custom Time",
        get=_has_own_minutes,
        set=_set_own_minutes,
        description="Stop training after a chosen time instead of the preset's number of steps",
    )


class EffigyScene(bpy.types.PropertyGroup):
    """The settings on a scene."""

    enhanced: BoolProperty(
        name="Enhanced",
        default=True,
        description="Add fine detail to rendered images, for avatars that were trained with an enhancer: those of "
        "earlier versions, and the paper's own method",
    )
    blur_images: IntProperty(
        name="Blur Images",
        default=64,
        min=1,
        soft_max=256,
        max=4096,
        description="The most images of which a frame with motion blur or depth of field is the mean. As many are "
        "rendered as the blur needs; more of them make large blurs smoother",
    )
    bake_to: EnumProperty(
        name="Bake To",
        default="MEMORY",
        description="Where baked playback is stored until Blender is closed",
        items=(("MEMORY", "Memory", "Fastest"), ("DISK", "Disk", "Blender's temporary folder, for long ranges")),
    )
    bake_limit: IntProperty(
        name="Limit",
        default=2000,
        min=10,
        soft_max=32000,
        step=100,
        description="Megabytes that the baked playback of all avatars together may use",
    )


classes = (EffigyObject, EffigyScene)


def register() -> None:
    bpy.types.Object.effigy = PointerProperty(type=EffigyObject, override=OWN_IN_OVERRIDE)
    bpy.types.Scene.effigy = PointerProperty(type=EffigyScene)


def unregister() -> None:
    for owner in (bpy.types.Object, bpy.types.Scene):
        if hasattr(owner, "effigy"):
            del owner.effigy
