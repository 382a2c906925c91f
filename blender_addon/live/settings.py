"""The settings of Live, which belong to this computer: to Blender's session and not to a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import bpy
from bpy.props import BoolProperty, EnumProperty, IntProperty, PointerProperty

from ..performance_properties import head_motion_property, intensity_property
from . import live_link, vmc

WEBCAM, LIVE_LINK, VMC = "WEBCAM", "LIVE_LINK", "VMC"


@dataclass
class _Choices:
    network: bool = False


_choices: Final = _Choices()
"""What no .blend may decide: Blender stores a window manager's properties in files."""


# Blender evaluates a property's annotation where a lambda would not find this module's names.
def _network(_: EffigyLive) -> bool:
    return _choices.network


def _set_network(_: EffigyLive, value: bool) -> None:
    _choices.network = value


class EffigyLive(bpy.types.PropertyGroup):
    source: EnumProperty(
        name="Source",
        default=LIVE_LINK,
        description="What measures the performer's face",
        items=(
            (WEBCAM, "Webcam", "A camera of this computer, watched by the backend", 0),
            (LIVE_LINK, "Live Link Face", "The app for iPhones, over the network. Needs no backend", 1),
            (VMC, "OSC / VMC", "A program that sends ARKit's channels by VMC or plain OSC. Needs no backend", 2),
        ),
    )
    camera: IntProperty(
        name="Camera", default=0, min=0, max=99, description="The camera's number; 0 is the system's first one"
    )
    live_link_port: IntProperty(
        name="Port",
        default=live_link.PORT,
        min=1024,
        max=65535,
        description="UDP port on which the app's packets are expected; the same as in the app's target",
    )
    vmc_port: IntProperty(
        name="Port",
        default=vmc.PORT,
        min=1024,
        max=65535,
        description="UDP port on which packets are expected; the same as in the program that sends",
    )
    network: BoolProperty(
        name="From the Network",
        get=_network,
        set=_set_network,
        description="Accept packets from phones and other computers too, not only from this computer. Needs Blender's "
        "Online Access",
    )
    mirror: BoolProperty(
        name="Mirror", default=False, description="Move the head as a mirror would: left and right are exchanged"
    )
    intensity: intensity_property()
    motion: head_motion_property()


classes = (EffigyLive,)


def register() -> None:
    bpy.types.WindowManager.effigy_live = PointerProperty(type=EffigyLive)


def unregister() -> None:
    if hasattr(bpy.types.WindowManager, "effigy_live"):
        del bpy.types.WindowManager.effigy_live
