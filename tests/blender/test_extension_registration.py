"""The built zip can be installed, registers everything, and leaves nothing behind when it is disabled."""

from __future__ import annotations

from types import SimpleNamespace

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


def test_it_is_enabled_and_disabled_without_access_to_blenders_data(effigy, module, monkeypatch):
    """Blender replaces `bpy.data` and `bpy.context` while it enables an extension, but not in the module for Python
    that runs the tests.
    """
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    registration = module("blender_addon.registration")
    restricted = SimpleNamespace(), SimpleNamespace(preferences=bpy.context.preferences)
    with monkeypatch.context() as patched:
        patched.setattr(bpy, "data", restricted[0])
        patched.setattr(bpy, "context", restricted[1])
        registration.register_all()
        registration.unregister_all()
    bpy.ops.preferences.addon_enable(module=PACKAGE)
    assert hasattr(bpy.types.Object, "effigy")
