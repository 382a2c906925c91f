"""Effigy's side of Blender. Everything that registers is named in `registration`.

Nothing of Blender is imported here, so that the cores without bpy (`worker`, `installation`) are used and tested in
plain Python."""


def register() -> None:
    from .registration import register_all

    register_all()


def unregister() -> None:
    from .registration import unregister_all

    unregister_all()
