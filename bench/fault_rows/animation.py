"""An animation whose worker is killed again and again: every frame must be the one of an undisturbed render."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.fault_rows._blender import add_rig, blender, copied_avatars, pixels_of, stage, worker_pid
from bench.fault_rows.outcome import Outcome, Place

if TYPE_CHECKING:
    import bpy

TITLE: Final = "an animation of 250 frames, its worker killed 10 times at random moments"
ASKED: Final = "every frame right, none missing, none black"
FULL: Final = 250
SHORT: Final = 12
NEEDS_BLENDER: Final = True

FRAMES_FOR_A_KILL: Final = 25
TOLERANCE: Final = 1.5 / 255
"""The same frame rendered twice differs by less: sums of floating-point numbers in another order, rounded to 8 bits."""
SIZE: Final = 128
"""Pixels."""
STARTING_SECONDS: Final = 3.0
"""About as long as a worker takes to start and answer."""
SHARED_MEMORY: Final = Path("/dev/shm")


def run(place: Place, seed: int, count: int) -> Outcome:
    """`count` is the number of frames."""
    with blender(place.scratch):
        return _run(place, random.Random(seed), count, max(2, count // FRAMES_FOR_A_KILL))


def _run(place: Place, draw: random.Random, count: int, kills: int) -> Outcome:
    outcome = Outcome()
    rig = add_rig(copied_avatars(place.scratch / "avatars")["bundled"])
    stage(SIZE)
    _animate(rig, count)
    _warm_up()
    seconds = _render(place.scratch / "undisturbed" / "shot_")
    killer = _Killer(draw, kills, count, seconds / count)
    with killer.at_work():
        disturbed = _render(place.scratch / "disturbed" / "shot_")
    outcome.figures = {
        "kills": f"{killer.killed} of {kills}",
        "undisturbed": f"{seconds:.0f} s",
        "with kills": f"{disturbed:.0f} s",
    }
    if killer.killed < kills:
        outcome.failures.append(f"only {killer.killed} of {kills} kills found a worker before the last frame")
    largest = 0.0
    for frame in range(1, count + 1):
        files = (place.scratch / name / f"shot_{frame:04d}.png" for name in ("undisturbed", "disturbed"))
        wrong, difference = _compare(*files)
        largest = max(largest, difference)
        outcome.record(f"frame {frame}", wrong)
    outcome.figures["largest difference"] = f"{255 * largest:.1f} of 255"
    left = [path.name for path in SHARED_MEMORY.glob("effigy-*")]
    if len(left) > (worker_pid() is not None):
        outcome.failures.append(f"folders of killed workers are left in shared memory: {left}")
    return outcome


class _Killer:
    """Kills the worker `kills` times, each time at a random moment of a random frame. After every third kill comes
    another one while the next worker starts.
    """

    def __init__(self, draw: random.Random, kills: int, count: int, seconds: float) -> None:
        """`seconds`: the duration of an undisturbed frame."""
        self._delays: dict[int, list[float]] = {}
        """Seconds after the beginning of each frame."""
        frame = 1
        for number in range(kills):
            again = number % 3 == 2
            frame = frame if again else draw.randrange(1, count)
            self._delays.setdefault(frame, []).append(draw.uniform(0, STARTING_SECONDS if again else seconds))
        self._threads: list[threading.Thread] = []
        self.killed = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        import bpy

        bpy.app.handlers.render_pre.append(self._on_frame)
        try:
            yield
        finally:
            bpy.app.handlers.render_pre.remove(self._on_frame)
            for thread in self._threads:
                thread.join()

    def _on_frame(self, scene: bpy.types.Scene, *_: object) -> None:
        if delays := self._delays.pop(scene.frame_current, None):
            self._threads.append(threading.Thread(target=self._kill, args=(delays,)))
            self._threads[-1].start()

    def _kill(self, delays: list[float]) -> None:
        for delay in delays:
            time.sleep(delay)
            until = time.monotonic() + 30
            while (pid := worker_pid()) is None and time.monotonic() < until:
                time.sleep(0.01)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                self.killed += 1
                print(f"killed worker {pid}", file=sys.stderr, flush=True)


def _warm_up() -> None:
    """Starts the worker and has it read the avatar."""
    import bpy

    bpy.ops.render.render()


def _animate(rig: Any, count: int) -> None:
    """The head turns and the mouth opens a little further in each frame, so that no two frames are alike."""
    import bpy

    scene, jaw = bpy.context.scene, rig.key_blocks["jawOpen"]
    scene.frame_start, scene.frame_end = 1, count
    for frame, share in ((1, 0.0), (count, 1.0)):
        jaw.value, rig.armature.rotation_euler.z = share, 2.0 * share - 1.0
        jaw.keyframe_insert("value", frame=frame)
        rig.armature.keyframe_insert("rotation_euler", frame=frame)


def _render(path: Path) -> float:
    """Renders the animation to numbered files; returns the seconds that it took."""
    import bpy

    bpy.context.scene.render.filepath = str(path)
    started = time.monotonic()
    try:
        bpy.ops.render.render(animation=True)
    except RuntimeError as error:
        print(error, file=sys.stderr, flush=True)
    return time.monotonic() - started


def _compare(expected: Path, rendered: Path) -> tuple[str | None, float]:
    """What is wrong with a rendered frame, or None, and its largest difference from the expected one."""
    if not rendered.is_file():
        return "it is missing", 0.0
    try:
        right, found = pixels_of(expected), pixels_of(rendered)
    except RuntimeError as error:
        return str(error), 0.0
    if right.shape != found.shape:
        return f"it has {found.shape} pixels instead of {right.shape}", 1.0
    difference = float(abs(found - right).max())
    if found[..., 3].max() < 0.5 or found[..., :3].max() < 0.1:
        return "it is black", difference
    return (f"it differs by {255 * difference:.1f} of 255" if difference > TOLERANCE else None), difference
