"""What Live takes inside Blender for a face, and what it takes from a camera's frame to the moved rig.

    .venv-blender/bin/python -m bench.live_in_blender [--film FILM]

*Show* sets sliders and bones, *record* keeps what they are, *evaluate* is Blender's own work on the rig: milliseconds
of the processor's time in Blender's main thread, on the open head. With FILM, which the worker watches in place of a
camera, the whole is measured as well: milliseconds from the frame to the moved rig.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from building.extension import build_extension
from building.in_blender import PACKAGE, installed_extension

FACES = 200
SECONDS = 15.0


def module(name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.{name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--film", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package = build_extension(Path(folder), environment=Path(sys.prefix))
        with installed_extension(package):
            rig = make_rig()
            print("| step | median, ms | 95 %, ms |\n|---|---|---|")
            for name, times in steps(rig).items():
                print(f"| {name} | {np.median(times):.2f} | {np.quantile(times, 0.95):.2f} |")
            if arguments.film:
                ages, rate = whole(rig, arguments.film.absolute())
                print(f"| frame to moved rig | {np.median(ages):.1f} | {np.quantile(ages, 0.95):.1f} |")
                print(f"\n{rate:.1f} faces a second.")


def make_rig() -> Any:
    import bpy

    rigs = {name: module(f"blender_addon.rig.{name}") for name in ("build", "data")}
    answer = module("blender_addon.worker.session").client().call("head.rig", {}, timeout=300)
    made = rigs["build"].build_rig(rigs["data"].RigData.from_answer(answer), "Ann", bpy.context.scene.collection)
    bpy.context.view_layer.objects.active = made.mesh
    return made


def steps(rig: Any) -> dict[str, list[float]]:
    import bpy

    face, calibration, puppet = (module(f"blender_addon.live.{name}") for name in ("face", "calibration", "puppet"))
    random, made = np.random.default_rng(0), puppet.Puppet(rig)
    spent: dict[str, list[float]] = {"show": [], "record": [], "evaluate": []}
    for _ in range(FACES):
        seen = face.Face(0.0, random.uniform(0, 1, 52), calibration.STILL.head)
        for name, work in (
            ("show", lambda: made.show(rig, seen, calibration.STILL, 1.0, 1.0)),
            ("record", lambda: puppet.state_of(rig)),
            ("evaluate", bpy.context.view_layer.update),
        ):
            begun = time.thread_time()
            work()
            spent[name].append(1e3 * (time.thread_time() - begun))
    made.restore(rig)
    return spent


def whole(rig: Any, film: Path) -> tuple[list[float], float]:
    import bpy

    session, webcam = module("blender_addon.live.session"), module("blender_addon.live.webcam")
    session.WebcamSource = lambda _: webcam.WebcamSource(str(film))
    bpy.context.window_manager.effigy_live.source = "WEBCAM"
    live = session.start(rig)
    ages, last, begun = [], None, 0.0
    # A film ends by itself.
    while session.current() is not None and not (begun and time.monotonic() - begun > SECONDS):
        session._tick()
        bpy.context.view_layer.update()
        if live.last is not None and live.last is not last:
            last, begun = live.last, begun or time.monotonic()
            # Both processes have one clock, which the worker's time is by.
            ages.append(1e3 * (time.monotonic() - last.time))
        time.sleep(session.INTERVAL)
    rate = len(ages) / (time.monotonic() - begun)
    session.stop()
    return ages, rate


if __name__ == "__main__":
    main()
