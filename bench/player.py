"""What the extension's player takes for a pose, against the backend's evaluation of the same avatar in the same run.

    python -m bench.player [--json FILE]

An untrained avatar of blendshapes on the open head, with the default number of Gaussians and of every shape. Both run
on one core: `pose` is from a pose to splats, `pack` from these to the numbers of the viewport's texture.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
import torch

from backend.avatar.avatar import Avatar, build_networks, load_avatar, save_avatar
from backend.avatar.settings import GENERATORS, AvatarSettings
from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.service.parameters import Parameters
from backend.service.posing import posed_splats, read_pose
from blender_addon.player.baked_file import read_baked
from blender_addon.player.evaluate import Player
from blender_addon.player.head import HeadDeltas
from blender_addon.viewport.splats import DrawStyle, Splats, pack

REPEATS = 60


def make_avatar(path: Path, model: HeadModel) -> Avatar:
    """An untrained avatar in the file `path`, read from there."""
    torch.manual_seed(0)
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    settings = AvatarSettings(**GENERATORS["blendshapes"])
    save_avatar(Avatar(build_networks(settings, model, identity).eval(), model, identity, settings), path)
    return load_avatar(path)


def deltas_of(model: HeadModel) -> HeadDeltas:
    """What the player reads from a rig's shape keys in Blender."""
    used = np.flatnonzero(model.pose_basis.any((0, 1)))
    expression = np.ascontiguousarray(model.expression_basis.transpose(2, 1, 0), np.float32)
    corrective = np.ascontiguousarray(model.pose_basis.transpose(2, 1, 0)[used], np.float32)
    return HeadDeltas(expression, corrective, used)


def make_pose(model: HeadModel, number: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    pose = {name: random.normal(0, 0.1, 3) for name in ("neck", "jaw", "eye_L", "eye_R")}
    return pose | {"expression": random.uniform(0, 0.5, len(model.expression_names)), "root": np.eye(4)}


def median_ms(work: Callable[[int], object]) -> float:
    """Median milliseconds of REPEATS calls with the numbers of poses, after three that are not counted."""
    times = []
    for number in range(REPEATS + 3):
        started = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times[3:]))


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    model = load_head()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "person.effigy")
        avatar = make_avatar(path, model)
        player = Player(read_baked(path), deltas_of(model))
        poses = [make_pose(model, number) for number in range(REPEATS + 3)]
        eye = np.array((0.0, 0.0, 0.8))
        networks = median_ms(
            lambda number: posed_splats(avatar, read_pose(Parameters(poses[number], "bench"), model), eye)
        )
        answers = [player.splats(pose, {"view": eye}) for pose in poses]
        played = median_ms(lambda number: player.splats(poses[number], {"view": eye}))
        packed = median_ms(
            lambda number: pack([(Splats.from_answer(answers[number], np.eye(4)), np.eye(4), DrawStyle())])
        )
        return {
            str(avatar.gaussian_count): {
                "pose_ms": played,
                "pack_ms": packed,
                "networks_ms": networks,
                "pose_to_networks": played / networks,
                "megabytes": avatar.megabytes,
            }
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.player", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    figures = measure()
    for count, row in figures.items():
        print(f"{count} Gaussians: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
