"""What *Simplify* leaves of a tracked performance, and by how much it moves the landmarks.

    python -m bench.clean_up CAPTURE [CAPTURE …] [--tolerances 0.1 0.2 0.5]

Each capture is imported into Blender (`.venv-blender`), its performance simplified, and the evaluated pose of every
frame compared with that before: the landmarks on the posed head, projected by the track's camera, in pixels of the
capture.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from backend.formats.track import Track, load_track
from backend.head.formats import load_head
from backend.tracking.after.residuals import project_landmarks
from blender_addon.rig.conventions import HEAD_TO_BLENDER
from building.environments import BLENDER

JOINTS = ("neck", "jaw", "eye_L", "eye_R")


def posed(track: Track, poses: dict[str, np.ndarray], which: str) -> Track:
    """The track with the poses that Blender has evaluated."""
    rotations = np.zeros((len(poses[f"{which}_neck"]), 5, 3), np.float32)
    rotations[:, 1:] = np.stack([poses[f"{which}_{joint}"] for joint in JOINTS], 1)
    # The inverse of how the performance is keyed: the head's motion in the world, seen by the footage's camera.
    head = np.linalg.inv(poses["camera"]) @ HEAD_TO_BLENDER @ poses[f"{which}_root"]
    return track.posed(
        expression=poses[f"{which}_expression"].astype(np.float32),
        rotations=rotations,
        head_to_camera=head.astype(np.float32),
        residual=np.zeros(len(rotations), np.float32),
        flags=np.zeros(len(rotations), np.int32),
        frame_times=None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("captures", type=Path, nargs="+")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[0.1, 0.2, 0.5])
    arguments = parser.parse_args()
    model = load_head()
    columns = ("clip", "frames", "tolerance, mm", "keys", "share", "largest error, mm", "landmarks, median px", "95 %")
    print(f"| {' | '.join((*columns, 'largest', 's'))} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for capture in arguments.captures:
        track = load_track(capture / "track.npz", model)
        with tempfile.TemporaryDirectory() as folder:
            tolerances = [f"{tolerance:g}" for tolerance in arguments.tolerances]
            command = [str(BLENDER.python), "-m", "bench.clean_up_in_blender", str(capture), folder, *tolerances]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            for tolerance in tolerances:
                with np.load(Path(folder) / f"{tolerance}.npz") as archive:
                    poses = dict(archive)
                report = json.loads((Path(folder) / f"{tolerance}.json").read_text())
                before, after = (project_landmarks(posed(track, poses, which), model) for which in ("before", "after"))
                # Lips of a shut jaw are not pushed through each other (`pose.read_pose`), so that a few differ.
                check = np.nanmedian(np.abs(before - project_landmarks(track, model)[: len(before)]))
                if check > 0.05:
                    raise SystemExit(f"Blender's poses are not the track's: landmarks differ by {check:.2f} px.")
                moved = np.linalg.norm(after - before, axis=2)
                moved = moved[np.isfinite(moved)]
                numbers = (
                    capture.stem,
                    str(len(before)),
                    tolerance,
                    f"{report['before']:,} → {report['after']:,}",
                    f"1/{report['before'] / report['after']:.1f}",
                    f"{report['millimetres']:.2f}",
                    *(f"{each:.2f}" for each in (np.median(moved), np.percentile(moved, 95), moved.max())),
                    f"{report['seconds']:.1f}",
                )
                print(f"| {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    main()
