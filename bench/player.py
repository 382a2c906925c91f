"""What the extension's player takes for a pose, against the backend's evaluation of the same avatar in the same run.

    python -m bench.player [--window [BLENDER]] [--avatar FILE] [--json FILE]

An untrained avatar of blendshapes on the open head, with the default number of Gaussians and of every shape, or that of
a file. Both run on one core: `pose` is from a pose to splats, `pack` from these to the numbers of the viewport's
texture.

`--window` plays an action in a window of this Blender, or of `blender` on the PATH, with the extension alone
(`player_in_window`): the share of drawn frames that show their pose, redraws a second and processor time with the
avatar, with the rig's mesh and with nothing in the view, and the time from a slider's value to its pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
os.environ |= ONE_THREAD

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
from building.environments import BuildError
from building.extension import build_extension
from building.window import run_in_window, window_command

REPEATS = 60
IN_WINDOW = Path(__file__).with_name("player_in_window.py")


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


def measure(path: Path, avatar: Avatar) -> dict[str, float]:
    """Milliseconds of the avatar in the file `path`, which was loaded."""
    torch.set_num_threads(1)
    model = avatar.head_model
    player = Player(read_baked(path), deltas_of(model))
    poses = [make_pose(model, number) for number in range(REPEATS + 3)]
    eye = np.array((0.0, 0.0, 0.8))
    networks = median_ms(lambda number: posed_splats(avatar, read_pose(Parameters(poses[number], "bench"), model), eye))
    answers = [player.splats(pose, {"view": eye}) for pose in poses]
    played = median_ms(lambda number: player.splats(poses[number], {"view": eye}))
    packed = median_ms(lambda number: pack([(Splats.from_answer(answers[number], np.eye(4)), np.eye(4), DrawStyle())]))
    return {
        "pose_ms": played,
        "pack_ms": packed,
        "networks_ms": networks,
        "pose_to_networks": played / networks,
        "megabytes": avatar.megabytes,
    }


def measure_in_window(blender: str | None, avatar: Path, folder: Path) -> dict[str, float]:
    """The figures of `player_in_window`. Raises a `BuildError` if Blender did not get through."""
    order, result = folder / "order.json", folder / "result.json"
    files = {"avatar": avatar, "package": build_extension(folder), "result": result}
    order.write_text(json.dumps({name: str(file) for name, file in files.items()}), "utf-8")
    for name in ("EFFIGY_BACKEND_PYTHON", *ONE_THREAD):
        os.environ.pop(name, None)
    run_in_window(window_command(blender), IN_WINDOW, order, folder / "settings")
    if not result.is_file():
        raise BuildError("Blender did not get to the end: what it said is above.")
    return json.loads(result.read_text("utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.player", description=__doc__.splitlines()[0])
    parser.add_argument("--avatar", metavar="FILE", type=Path, help="an avatar with a baked model")
    parser.add_argument("--window", metavar="BLENDER", nargs="?", const="", help="measure in its window as well")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="effigy-bench-") as folder:
        path = Path(folder, "person.effigy")
        if arguments.avatar:
            shutil.copyfile(arguments.avatar, path)
            if read_baked(path) is None:
                parser.error(f"{arguments.avatar} has no baked model: bake it first")
        avatar = load_avatar(path) if arguments.avatar else make_avatar(path, load_head())
        row = measure(path, avatar)
        if arguments.window is not None:
            try:
                row |= measure_in_window(arguments.window or None, path, Path(folder))
            except BuildError as error:
                print(error, file=sys.stderr)
                return 1
    figures = {str(avatar.gaussian_count): row}
    for count, row in figures.items():
        print(f"{count} Gaussians: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
