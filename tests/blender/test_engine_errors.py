"""An error in a render is reported as one sentence and ends the animation, and Blender can render again."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time

import bpy
import pytest
from engine_scenes import render_png, session, set_format, stage


def refused(match: str, tmp_path) -> None:
    """Checks that a still and an animation are refused with this sentence, and that neither writes an image."""
    set_format("PNG")
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end, scene.render.filepath = 1, 4, str(tmp_path / "refused")
    with pytest.raises(RuntimeError, match=match) as raised:
        bpy.ops.render.render()
    assert "Traceback" not in str(raised.value)
    with pytest.raises(RuntimeError, match=match) as raised:
        bpy.ops.render.render(animation=True)
    errors = [line for line in str(raised.value).splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, "each frame of the animation was tried"
    assert not list(tmp_path.glob("refused*.png"))


def test_no_camera(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    bpy.data.objects.remove(bpy.context.scene.camera)
    # Without a camera Blender itself may be the first to report it.
    refused("(?i)no camera", tmp_path)


def test_no_avatar_and_a_rig_without_one(engine_avatars, tmp_path):
    stage(None)
    refused("There is no avatar to render", tmp_path)
    made = stage(engine_avatars / "ann.effigy")
    made.armature.effigy.avatar = ""
    refused("has no avatar yet: train one", tmp_path)


def test_an_avatar_whose_file_is_gone(engine_avatars, tmp_path):
    made = stage(engine_avatars / "ann.effigy")
    shutil.copy(engine_avatars / "ann.effigy", tmp_path / "moved.effigy")
    made.armature.effigy.avatar = str(tmp_path / "gone.effigy")
    refused("is not at .*gone.effigy: press Relink", tmp_path)
    (tmp_path / "gone.effigy").write_bytes(b"not an avatar")
    refused("gone.effigy is not an avatar, or it is damaged", tmp_path)
    bpy.ops.effigy.relink_avatar(filepath=str(tmp_path / "moved.effigy"))
    assert (render_png(tmp_path / "again.png")[..., 3] > 0.99).any()


def test_a_panoramic_camera_and_stereoscopy(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    bpy.context.scene.camera.data.type = "PANO"
    refused("panoramic", tmp_path)
    bpy.context.scene.camera.data.type = "PERSP"
    bpy.context.scene.render.use_multiview = True
    refused("one view at a time", tmp_path)


def test_no_backend(engine_avatars, tmp_path, monkeypatch):
    stage(engine_avatars / "ann.effigy")
    monkeypatch.delenv("EFFIGY_BACKEND_PYTHON")
    refused("not installed yet", tmp_path)


def test_a_worker_that_dies_while_rendering(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    client = session().client()
    client.call("hello")

    def kill(times: int) -> None:
        killed, until = set(), time.monotonic() + 60
        while len(killed) < times and not ended.is_set() and time.monotonic() < until:
            pid = client.pid
            if pid is not None and pid not in killed and client.busy:
                os.kill(pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.001)

    bpy.context.scene.render.resolution_percentage = 400
    # The next worker draws what one has not; where that one dies as well, and the next, the artist is told.
    for times in (1, 9):
        ended = threading.Event()
        thread = threading.Thread(target=kill, args=(times,))
        thread.start()
        try:
            if times == 1:
                bpy.ops.render.render()
            else:
                with pytest.raises(RuntimeError, match="worker"):
                    bpy.ops.render.render()
        finally:
            ended.set()
            thread.join()
    bpy.context.scene.render.resolution_percentage = 100
    assert (render_png(tmp_path / "again.png")[..., 3] > 0.99).any()


def test_a_cancelled_render_returns_at_once(module):
    cancellable_call, release = module("blender_addon.engine.cancellable_call"), threading.Event()

    class Slow:
        def call(self, method, params, timeout):
            release.wait(timeout=20)
            return method

    checks = iter((False, False, True))
    started = time.monotonic()
    assert cancellable_call.call_unless_cancelled(Slow(), "avatar.render", {}, lambda: next(checks)) is None
    assert time.monotonic() - started < 2
    release.set()
    assert cancellable_call.call_unless_cancelled(Slow(), "avatar.render", {}, lambda: False) == "avatar.render"


def test_a_backend_whose_python_lacks_its_packages(engine_avatars, tmp_path, monkeypatch):
    stage(engine_avatars / "ann.effigy")
    monkeypatch.setenv("EFFIGY_BACKEND_PYTHON", sys.executable)
    refused("Python lacks the package .* press Install Backend", tmp_path)


def test_settings_without_effect_on_avatars_are_reported(engine_avatars, tmp_path, module):
    stage(engine_avatars / "ann.effigy")
    scene, unsupported = bpy.context.scene, module("blender_addon.engine.unsupported")
    assert unsupported.unsupported_settings(scene) == []
    scene.render.use_motion_blur = scene.camera.data.dof.use_dof = True
    assert unsupported.unsupported_settings(scene) == []
    scene.render.use_freestyle, scene.camera.data.type = True, "ORTHO"
    focus, lines = unsupported.unsupported_settings(scene)
    assert "without depth of field" in focus and "Freestyle" in lines
    reports = []
    engine = type("Engine", (), {"report": lambda _, kind, message: reports.append((kind, message))})
    module("blender_addon.engine.render_engine").report_warnings(engine(), scene, [])
    assert reports == [({"WARNING"}, focus), ({"WARNING"}, lines)]
    assert (render_png(tmp_path / "sharp.png")[..., 3] > 0.99).any()
