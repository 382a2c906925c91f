"""The Blender side of Effigy: settings, panels, rig, viewport, render engine and the worker's client.

`registration` lists everything that is registered. This module does not import bpy, so that the parts that do not need
it (`worker`, `installation`) can be imported and tested in plain Python.
"""


def register() -> None:
    from .registration import register_all

    register_all()


def unregister() -> None:
    from .registration import unregister_all

    unregister_all()
