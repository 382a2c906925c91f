"""Faults on an artist's machine: each gives a sentence, leaves nothing incomplete, and Blender goes on.

Faults of a single part are tested in the other files of this folder, together with the rest of that part's behaviour.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import bpy
import pytest

PACKAGE = "bl_ext.user_default.effigy"
CROPPING = "Cropping the frames to the head"
"""The worker's name of the stage (`backend.service.stages`)."""
POSIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="made of a shell script or of signals")

FULL_DISK = """
import errno, pathlib
whole = pathlib.Path.write_bytes

def write_bytes(self, data):
    if self.suffix == ".png":
        raise OSError(errno.ENOSPC, "No space left on device")
    return whole(self, data)

pathlib.Path.write_bytes = write_bytes
"""
"""Code for the backend's Python that simulates a disk without space for images."""

FILLED_DISK = """
import errno, os, pathlib
import safetensors.torch
whole = safetensors.torch.save_file

def save_file(tensors, filename, metadata=None):
    whole(tensors, filename, metadata)
    if pathlib.Path(__file__).with_name("now").exists():
        os.truncate(filename, 1000)
        raise OSError(errno.ENOSPC, "No space left on device")

safetensors.torch.save_file = save_file
"""
"""Code that simulates a disk without space for a checkpoint from the moment when there is a file `now`."""

CLOSED_MEANWHILE = """
import sys, time
import bpy
bpy.ops.preferences.addon_enable(module="{package}")
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
from {package}.blender_addon import active, training
from {package}.blender_addon.worker import session
rig = active.need_rig(bpy.context)
task = training.train(rig)
bpy.ops.wm.save_mainfile()
until = time.monotonic() + 120
while not (task.job.stage == "Warming up" and task.job.done) and not task.finished and time.monotonic() < until:
    session.client().pump()
    time.sleep(0.02)
print("trained", task.job.stage, task.job.done, task.message, flush=True)
"""
"""A Blender that starts to train and is closed."""


@pytest.fixture
def rig(demo_capture, tmp_path, module):
    """A rig on its own copy of the capture, with settings for a quick training."""
    shutil.copytree(demo_capture, tmp_path / "anna.capture")
    bpy.ops.effigy.import_capture(directory=str(tmp_path / "anna.capture"))
    rig = module("blender_addon.active").need_rig(bpy.context)
    settings = rig.armature.effigy
    settings.size, settings.device, settings.minutes = 96, "cpu", 3.0
    return rig


@pytest.fixture
def backend_with(tmp_path, monkeypatch):
    """Makes the worker's Python run some code first; returns the folder with that code."""

    def put(code: str) -> Path:
        (tmp_path / "first").mkdir()
        (tmp_path / "first" / "sitecustomize.py").write_text(code)
        python = tmp_path / "first" / "python"
        python.write_text(
            f'#!/bin/sh\nPYTHONPATH="{python.parent}" exec "{os.environ["EFFIGY_BACKEND_PYTHON"]}" "$@"\n'
        )
        python.chmod(0o755)
        monkeypatch.setenv("EFFIGY_BACKEND_PYTHON", str(python))
        return python.parent

    return put


@pytest.fixture
def crash_safe(module):
    """Cancels the tasks that a test leaves running."""
    yield
    for task in module("blender_addon.tasks").running():
        task.cancel()
        module("blender_addon.tasks").wait(task, 60)


@POSIX_ONLY
def test_a_full_disk_is_reported_and_leaves_nothing_incomplete(demo_clip, tmp_path, backend_with):
    backend_with(FULL_DISK)
    capture = tmp_path / "project" / "x.capture"
    capture.parent.mkdir()
    with pytest.raises(RuntimeError, match="disk that holds .*x.capture is full: free some space"):
        bpy.ops.effigy.import_video(filepath=str(demo_clip), last=3, size=128, capture=str(capture))
    assert not list((tmp_path / "project").iterdir()) and len(bpy.data.objects) == 0


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_reported(demo_clip, tmp_path):
    (tmp_path / "project").mkdir(mode=0o555)
    with pytest.raises(RuntimeError, match="read-only"):
        bpy.ops.effigy.import_video(filepath=str(demo_clip), last=3, capture=str(tmp_path / "project" / "x.capture"))


@pytest.mark.parametrize("stage", ["starting", "cropping", "tracking", "building"])
def test_an_import_stopped_at_any_stage_ends_and_another_works(stage, demo_clip, tmp_path, module, crash_safe):
    tasks, importing = module("blender_addon.tasks"), module("blender_addon.importing")
    task = importing.import_video(
        bpy.context.scene, demo_clip, last=6, size=128, landmarks_only=True, capture=tmp_path / "x.capture"
    )
    reached = {
        "starting": lambda: True,
        "cropping": lambda: task.job.stage == CROPPING,
        "tracking": lambda: task.job.stage != CROPPING and (tmp_path / "x.capture" / "capture.json").is_file(),
        "building": lambda: task.state == "building",
    }[stage]
    pump_until(lambda: reached() or task.finished, module)
    assert not task.finished, f"{stage} was not reached: {task.message}"
    bpy.ops.effigy.cancel_job(index=tasks.all_tasks().index(task))
    assert tasks.wait(task, 60).state == "cancelled" and task.message
    assert len(bpy.data.objects) == 0 and not bpy.data.actions
    assert not [path for path in tmp_path.iterdir() if path.name != "x.capture"]
    again = importing.import_video(
        bpy.context.scene, demo_clip, last=3, size=128, landmarks_only=True, capture=tmp_path / "y.capture"
    )
    assert tasks.wait(again, 120).state == "done", again.message


@pytest.mark.parametrize("stage", ["", "Warming up"])
def test_a_training_stopped_at_any_stage_ends_and_the_rig_can_be_trained_again(stage, rig, module, crash_safe):
    tasks, training = module("blender_addon.tasks"), module("blender_addon.training")
    task = training.train(rig)
    pump_until(lambda: not stage or (task.job.stage == stage and task.job.done) or task.finished, module)
    assert not task.finished, task.message
    bpy.ops.effigy.cancel_job(index=tasks.all_tasks().index(task))
    assert tasks.wait(task, 60).state == "cancelled" and task.message
    assert rig.armature.effigy.avatar == "" and training.task_of(rig) is None
    assert training.can_resume(rig) == bool(stage)


@POSIX_ONLY
def test_a_worker_killed_while_it_trains_is_reported_and_its_training_is_resumed(rig, module, crash_safe):
    tasks, training, session = (module(f"blender_addon.{name}") for name in ("tasks", "training", "worker.session"))
    task = training.train(rig)
    pump_until(lambda: task.job.stage == "Warming up" and task.job.done, module)
    os.kill(session.client().pid, signal.SIGKILL)
    assert tasks.wait(task, 10).state == "failed" and "killed" in task.message
    pump_until(lambda: training.can_resume(rig), module, 30)
    resumed = training.resume(rig)
    pump_until(lambda: resumed.job.done or resumed.finished, module)
    assert not resumed.finished, resumed.message


@POSIX_ONLY
def test_a_disk_that_fills_up_while_it_trains_keeps_the_last_checkpoint(rig, backend_with, module, crash_safe):
    tasks, training = module("blender_addon.tasks"), module("blender_addon.training")
    full = backend_with(FILLED_DISK) / "now"

    def trained_until_stopped(start):
        task = start(rig)
        pump_until(lambda: (task.job.stage == "Warming up" and task.job.done) or task.finished, module)
        task.cancel()
        return tasks.wait(task, 60)

    assert trained_until_stopped(training.train).state == "cancelled"
    checkpoint = training.checkpoint_of(training.last_training(rig))
    kept = checkpoint.read_bytes()
    full.touch()
    ended = trained_until_stopped(training.resume)
    assert ended.state == "failed" and "is full: free some space" in ended.message
    assert checkpoint.read_bytes() == kept and not list(checkpoint.parent.glob(".*"))
    full.unlink()
    assert trained_until_stopped(training.resume).state == "cancelled" and checkpoint.read_bytes() != kept


def test_an_import_and_a_training_go_on_together(rig, demo_clip, tmp_path, module, crash_safe):
    tasks, training, importing = (module(f"blender_addon.{name}") for name in ("tasks", "training", "importing"))
    task = training.train(rig)
    pump_until(lambda: task.job.stage == "Warming up" and task.job.done, module)
    before = task.job.done
    other = importing.import_video(
        bpy.context.scene, demo_clip, last=4, size=128, landmarks_only=True, capture=tmp_path / "second.capture"
    )
    assert tasks.wait(other, 120).state == "done", other.message
    # It has trained further meanwhile, in this stage or already in the next one.
    progressed = task.job.stage == "Training" or task.job.done > before
    assert not task.finished and progressed, task.message
    assert len(list(module("blender_addon.rig.rig_properties").find_rigs(bpy.context.scene.objects))) == 2


def test_blender_closed_while_it_trains_resumes_when_the_file_is_opened_again(rig, tmp_path, module, crash_safe):
    training = module("blender_addon.training")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    script = tmp_path / "closed.py"
    script.write_text(CLOSED_MEANWHILE.format(package=PACKAGE))
    closed = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "shot.blend")], capture_output=True, text=True, timeout=240
    )
    assert "trained Warming up" in closed.stdout, closed.stdout + closed.stderr
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    rig = module("blender_addon.active").need_rig(bpy.context)
    pump_until(lambda: training.can_resume(rig), module, 30)
    resumed = training.resume(rig)
    assert resumed.params["size"] == 96
    pump_until(lambda: resumed.job.done or resumed.finished, module)
    assert not resumed.finished, resumed.message


@POSIX_ONLY
def test_a_worker_that_has_ended_does_not_end_blender(effigy):
    """Blender's Python leaves SIGPIPE as it is, which ends a program; that of the tests ignores it."""
    script = textwrap.dedent(f"""
        import signal, sys
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        sys.path.insert(0, {str(Path(effigy.__file__).parent.parent)!r})
        import effigy.blender_addon.worker.client as client
        worker = client.WorkerClient([sys.executable, "-c", "import os, time; os.close(0); time.sleep(1)"])
        for _ in range(3):
            try:
                worker.call("doctor", {{"more than a pipe holds": "." * 1_000_000}}, timeout=20)
            except client.WorkerError as error:
                print("reported:", error, flush=True)
    """)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and ended.stdout.count("reported:") == 3, (
        ended.returncode,
        ended.stdout,
        ended.stderr,
    )


def pump_until(done, module, seconds: float = 120.0) -> None:
    tasks, session = module("blender_addon.tasks"), module("blender_addon.worker.session")
    until = time.monotonic() + seconds
    while not done() and time.monotonic() < until:
        session.client().pump()
        for task in tasks.running():
            task.advance(0.0)
        time.sleep(0.02)
