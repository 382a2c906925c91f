"""What an artist does on a machine without backend. A .blend with a packed avatar is looked at, played and rendered,
and another avatar's file is put on its rig; in a new file an avatar gets a rig of its own, is keyed and rendered. It
runs in a Blender of its own, whose settings folder holds nothing but the extension.

    python tests/blender/without_backend.py EXTENSION.zip SHOT.blend PICTURE.png OTHER.effigy    → JSON of findings
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

PACKAGE = "bl_ext.user_default.effigy"
FRAMES = 24
KEYED = 3


def main(package: str, blend: str, picture: str, other: str) -> None:
    assert "EFFIGY_BACKEND_PYTHON" not in os.environ and not os.listdir(os.environ["BLENDER_USER_RESOURCES"])
    import bpy
    import numpy as np

    bpy.ops.extensions.package_install_files(filepath=package, repo="user_default", enable_on_install=True)

    def module(name: str):
        return importlib.import_module(f"{PACKAGE}.blender_addon.{name}")

    bpy.ops.wm.open_mainfile(filepath=blend)
    bpy.ops.effigy.look_for_files()
    seen_from = module("viewport.viewpoint").Viewpoint(np.array((0.0, -1.0, 0.0)), np.array((0.0, 1.0, 0.0)), False)

    def redraw():
        """What a 3D View does when it begins to draw."""
        depsgraph = bpy.context.evaluated_depsgraph_get()
        areas = (area for screen in bpy.data.screens for area in screen.areas)
        space = next(area.spaces.active for area in areas if area.type == "VIEW_3D")
        layer = SimpleNamespace(depsgraph=depsgraph, objects=bpy.context.view_layer.objects)
        context = SimpleNamespace(scene=bpy.context.scene, space_data=space, view_layer=layer)
        ((_, avatar),) = module("viewport.live").update_view(context, 1, seen_from)
        return avatar

    fresh, milliseconds, means = 0, [], []
    for frame in range(1, FRAMES + 1):
        bpy.context.scene.frame_set(frame)
        began = time.perf_counter()
        avatar = redraw()
        milliseconds.append(1e3 * (time.perf_counter() - began))
        fresh += avatar.fresh
        means.append(avatar.splats.means)
    bpy.context.scene.render.filepath = picture
    bpy.ops.render.render(write_still=True)
    found = {
        "backend": module("backend_setup").state().ready,
        "source": avatar.source.name,
        "fresh_share": fresh / FRAMES,
        "pose_ms": sorted(milliseconds)[FRAMES // 2],
        "motion": float(np.ptp(np.array(means), axis=0).max()),
    }
    armature = next(obj for obj in bpy.context.scene.objects if obj.type == "ARMATURE")
    bpy.context.view_layer.objects.active = armature
    bpy.ops.effigy.add_avatar(filepath=other)
    found["added"] = armature.effigy.avatar
    found["added_source"] = redraw().source.name
    found["new_rig"] = in_a_new_file(Path(other), Path(picture), redraw)
    print("FOUND " + json.dumps(found))
    bpy.ops.preferences.addon_disable(module=PACKAGE)


def in_a_new_file(avatar: Path, picture: Path, redraw) -> dict:
    """Puts the avatar on a rig of its own. Writes its picture in the pose and from the camera of `engine_truth` to
    `new_rig.png` beside `picture`, and `KEYED` frames in which the jaw opens to `keyed_####.png`.
    """
    import bpy
    from engine_scenes import render_png, stage

    bpy.ops.wm.read_homefile(use_empty=True)
    rig, scene = stage(avatar), bpy.context.scene
    shown = redraw()
    render_png(picture.with_name("new_rig.png"))
    for frame, value in ((1, 0.0), (KEYED, 0.8)):
        rig.key_blocks["jawOpen"].value = value
        rig.key_blocks["jawOpen"].keyframe_insert("value", frame=frame)
    scene.frame_start, scene.frame_end = 1, KEYED
    scene.render.filepath = str(picture.with_name("keyed_"))
    bpy.ops.render.render(animation=True)
    return {"source": shown.source.name, "fresh": shown.fresh}


if __name__ == "__main__":
    main(*(str(Path(argument).resolve()) for argument in sys.argv[1:]))
