"""What the two Blenders of the row `two_blenders` do; each deed returns what the artist was told.

python -m bench.fault_rows._deeds      a Blender that does the deeds that it reads from stdin, one JSON list a line
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final

from bench.fault_rows._blender import part
from building.in_blender import PACKAGE

SECONDS: Final = 120.0
"""For the longest deed."""
FRAMES: Final = 3


def open_file(path: str) -> str:
    import bpy

    bpy.ops.wm.open_mainfile(filepath=path)
    return ""


def save(value: float) -> str:
    """Opens the jaw by `value` and saves the file."""
    import bpy

    rig().key_blocks["jawOpen"].value = value
    printed = StringIO()
    with redirect_stdout(printed):
        bpy.ops.wm.save_mainfile()
    return "".join(line for line in printed.getvalue().splitlines() if line.startswith("Effigy: "))


def train(until: str) -> str:
    """Trains an avatar on the rig's capture until the job runs, or has ended."""
    settings = rig().armature.effigy
    settings.size, settings.device, settings.minutes = 64, "cpu", 0.05
    return _follow(part("training").train(rig()), until)


def import_video(video: str, capture: str, until: str) -> str:
    import bpy

    task = part("importing").import_video(
        bpy.context.scene, Path(video), last=3, size=128, landmarks_only=True, capture=Path(capture)
    )
    return _follow(task, until)


def finish() -> str:
    """Waits until the last task has ended."""
    return _follow(part("tasks").all_tasks()[-1], "ended")


def bake() -> str:
    import bpy

    bpy.context.scene.frame_start, bpy.context.scene.frame_end, bpy.context.scene.effigy.bake_to = 1, FRAMES, "DISK"
    bpy.ops.effigy.bake_playback()
    baked = part("viewport.cache").bake_of(rig())
    return "" if baked.count == FRAMES else f"{baked.count} frames are baked"


def unpack() -> str:
    """Writes the packed avatar to a file of its own; returns the file's name."""
    import bpy

    bpy.context.view_layer.objects.active = rig().armature
    bpy.ops.effigy.unpack_avatar()
    return bpy.path.abspath(rig().armature.effigy.avatar)


def pose() -> str:
    """Has the worker pose the packed avatar, for which it gets a file."""
    path = part("avatars").avatar_path(rig().armature)
    part("worker.session").client().call("avatar.open", {"path": path})
    return ""


def rig() -> Any:
    import bpy

    return next(iter(part("rig.rig_properties").find_rigs(bpy.context.scene.objects)))


def _follow(task: Any, until: str) -> str:
    """Pumps until a task's job runs (`running`) or the task has ended; returns how it failed."""
    deadline = time.monotonic() + SECONDS
    while not task.finished and time.monotonic() < deadline:
        if until == "running" and task.state == "running" and task.job.done:
            return ""
        part("worker.session").client().pump()
        task.advance(0.01)
        time.sleep(0.005)
    return "" if task.state == "done" else f"{task.state}: {task.message}"


DEEDS: Final = {
    function.__name__: function for function in (open_file, save, train, import_video, finish, bake, unpack, pose)
}


def do(name: str, *arguments: Any) -> str:
    """Does a deed; an error that the artist sees is returned as well."""
    try:
        return DEEDS[name](*arguments)
    except (RuntimeError, part("errors").EffigyError) as error:
        return str(error)


def main() -> None:
    """A second Blender of the same user."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import bpy

    bpy.ops.preferences.addon_enable(module=PACKAGE)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(do(*json.loads(line))), file=answers, flush=True)
    bpy.ops.preferences.addon_disable(module=PACKAGE)


if __name__ == "__main__":
    main()
