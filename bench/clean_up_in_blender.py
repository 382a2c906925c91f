"""Runs in Blender's Python for `bench.clean_up`: simplifies a capture's performance and writes the poses.

.venv-blender/bin/python -m bench.clean_up_in_blender CAPTURE OUT TOLERANCE [TOLERANCE …]
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from building.extension import build_extension
from building.in_blender import PACKAGE, installed_extension


def main() -> None:
    capture, out, tolerances = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute(), sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        package = build_extension(Path(folder), environment=Path(sys.prefix))
        with installed_extension(package):
            for tolerance in tolerances:
                measure(capture, out, float(tolerance))


def measure(capture: Path, out: Path, tolerance: float) -> None:
    """Writes `TOLERANCE.npz` and `TOLERANCE.json` into `out`: the poses before and after, and what was reported."""
    import bpy

    active, cleaning, performance, pose = (
        importlib.import_module(f"{PACKAGE}.blender_addon.{name}")
        for name in ("active", "rig.cleaning", "rig.performance", "rig.pose")
    )
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.effigy.import_capture(directory=str(capture))
    rig = active.need_rig(bpy.context)
    first, last = (
        round(frame) for frame in importlib.import_module(f"{PACKAGE}.blender_addon.rig.takes").take_of(rig).span
    )

    def poses() -> dict[str, np.ndarray]:
        found: list[Any] = []
        for frame in range(first, last + 1):
            bpy.context.scene.frame_set(frame)
            found.append(pose.read_pose(rig, bpy.context.evaluated_depsgraph_get()).message())
        return {name: np.array([each[name] for each in found]) for name in found[0]}

    before = poses()
    begin = time.perf_counter()
    done = cleaning.simplify(rig, cleaning.Choice(), tolerance)
    seconds = time.perf_counter() - begin
    after = poses()
    placement = performance.placement_of(rig)
    np.savez(
        out / f"{tolerance:g}.npz",
        camera=placement.camera_pose,
        **{f"before_{name}": values for name, values in before.items()},
        **{f"after_{name}": values for name, values in after.items()},
    )
    report = {"before": done.before, "after": done.after, "millimetres": done.error, "seconds": seconds}
    (out / f"{tolerance:g}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
