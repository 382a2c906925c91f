"""A video becomes a rig with its camera and performance, by the operator an artist uses and the real worker."""

from __future__ import annotations

import bpy
import pytest


@pytest.fixture(scope="module")
def capture(effigy, tmp_path_factory, demo_clip):
    """The bundled clip's frames 10 to 21, captured and tracked once."""
    folder = tmp_path_factory.mktemp("project") / "demo.capture"
    bpy.ops.effigy.import_video(filepath=str(demo_clip), first=10, last=21, size=256, capture=str(folder))
    return folder


def test_import(capture, module):
    print(list(bpy.data.objects), capture)
    bpy.ops.effigy.import_capture(directory=str(capture))
    print(list(bpy.data.objects), [t.said for t in module("blender_addon.tasks").all_tasks()])
