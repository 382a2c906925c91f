"""How much the baked model of an avatar of graph U-Nets loses against its networks, by the number of shapes.

    python -m bench.baked AVATAR CAPTURE [AVATAR CAPTURE ...] [--shapes 8 16 32 48 64] [--json FILE]

Held-out frames are those that `evaluate` scores, every fourth of them. The walk moves random sliders, jaw, gaze and
view smoothly, as an artist does; it gives the mean difference from the networks' images inside the head.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
import torch

from backend.avatar.avatar import Avatar, load_avatar, save_avatar
from backend.avatar.posing import Pose
from backend.formats.capture import load_capture
from backend.formats.track import load_track
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras
from backend.training.baking import DISTANCE, IMAGE, distil, sample, sampler
from bench.generators import score

KEYS: Final = 8
"""Poses between which the walk moves."""
STEPS: Final = 6
"""Images from one to the next."""
MOVED: Final = 5
"""Sliders in each of these poses."""
COLUMNS: Final = {
    "megabytes": "MB",
    "psnr": "held-out PSNR",
    "psnr_head": "in the head",
    "psnr_inner": "inner",
    "walk": "walk, |difference| / 255",
    "seconds": "seconds",
}


def walk(avatar: Avatar) -> Iterator[tuple[Pose, torch.Tensor]]:
    """Poses of a random walk and their cameras (1, 4, 4)."""
    random, poses = np.random.default_rng(11), sampler(avatar, 12)
    size = len(avatar.head_model.expression_names)
    keys = np.zeros((KEYS + 1, size + 15))
    for key in keys[1:]:
        key[random.choice(size, MOVED, replace=False)] = random.uniform(0, 1, MOVED)
        key[size : size + 15] = random.normal(0, 0.08, 15)
    _, cameras = poses.draw(KEYS + 1)
    for before, after in zip(range(KEYS), range(1, KEYS + 1), strict=True):
        for share in np.arange(STEPS) / STEPS:
            values = torch.as_tensor((1 - share) * keys[before] + share * keys[after], dtype=torch.float32)
            rotations = values[size:].view(1, 5, 3).clone()
            rotations[:, 0] = 0
            # Views change from pose to pose.
            camera = cameras[before : before + 1]
            yield avatar.pose(values[None, :size], rotations, camera), camera


@torch.inference_mode()
def walked(networks: Avatar, made: Avatar) -> float:
    """Mean difference of the images inside the head, in steps of 8 bits."""
    focal = 0.9 * IMAGE * DISTANCE / 0.3
    intrinsics = torch.tensor(((focal, 0, IMAGE / 2), (0, focal, IMAGE / 2), (0, 0, 1.0)))
    found = []
    for pose, camera in walk(networks):
        cameras = Cameras(intrinsics[None], camera, IMAGE, IMAGE)
        truth, image = (rasterize(each.networks(pose)[0], cameras) for each in (networks, made))
        inside = truth.alpha[0] > 0.5
        found.append(float((truth.color - image.color)[0][inside].abs().mean()))
    return 255 * float(np.mean(found))


def measure(path: Path, folder: Path, shapes: list[int]) -> dict[str, dict[str, float]]:
    """The columns by the number of shapes, and those of the networks."""
    avatar, capture = load_avatar(path), load_capture(folder)
    rows = {"networks": score(avatar, capture) | {"walk": 0.0, "seconds": 0.0}}
    started = time.process_time()
    samples = sample(avatar, max(shapes), sampler(avatar, 0, [load_track(capture.folder / "track.npz")]))
    spent = time.process_time() - started
    with tempfile.TemporaryDirectory() as place:
        for count in shapes:
            started = time.process_time()
            made = distil(avatar, samples, count)
            seconds = spent + time.process_time() - started
            file = Path(place, f"{count}.effigy")
            save_avatar(made, file)
            # As it is played.
            made = load_avatar(file)
            rows[str(count)] = score(made, capture) | {"walk": walked(avatar, made), "seconds": seconds}
            print(path.stem, count, {name: round(rows[str(count)][name], 3) for name in COLUMNS}, flush=True)
    return {row: {name: figures[name] for name in COLUMNS} for row, figures in rows.items()}


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = ["| avatar | shapes | " + " | ".join(COLUMNS.values()) + " |", "|---" * (2 + len(COLUMNS)) + "|"]
    for name, rows in found.items():
        for row, figures in rows.items():
            values = " | ".join(f"{figures[column]:.2f}" for column in COLUMNS)
            lines.append(f"| {name} | {row} | {values} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", type=Path, metavar="AVATAR CAPTURE")
    parser.add_argument("--shapes", nargs="+", type=int, default=[8, 16, 32, 48, 64])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if len(arguments.pairs) % 2:
        parser.error("give a capture after each avatar")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for avatar, capture in zip(arguments.pairs[::2], arguments.pairs[1::2], strict=True):
        found[capture.stem] = measure(avatar, capture, arguments.shapes)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
