"""The built zip can be installed, registers everything, and leaves nothing behind when it is disabled."""

from __future__ import annotations

import bpy

PACKAGE = "bl_ext.user_default.effigy"


def test_the_installed_extension_gives_objects_their_settings(effigy):
    settings = bpy.data.objects.new("head", None).effigy
    assert settings.preset == "draft" and settings.avatar == ""


def test_disabling_and_enabling_twice_leaves_nothing_and_brings_everything_back(effigy):
    def effigy_classes():
        return sorted(
            cls.__name__
            for base in (bpy.types.Operator, bpy.types.Panel, bpy.types.PropertyGroup)
            for cls in base.__subclasses__()
            if cls.__module__.startswith(PACKAGE) and cls.is_registered
        )

    before = effigy_classes()
    assert before
    for _ in range(2):
        bpy.ops.preferences.addon_disable(module=PACKAGE)
        assert not hasattr(bpy.types.Object, "effigy")
        assert effigy_classes() == []
        bpy.ops.preferences.addon_enable(module=PACKAGE)
        assert effigy_classes() == before
