"""What the live viewport costs, stage by stage, for 5k, 15k, 30k and 100k Gaussians.

    python -m bench.viewport [--json FILE] [--counts 5000 15000] [--blender-python PYTHON] [--window BLENDER]

Untrained avatars on the open head with as many Gaussians per vertex as make up the count. The backend's Python, which
runs this, measures the networks; Blender as a module (`.venv-blender`) measures the rest in a GPU context of its own,
with the extension's modules and a worker of its own: transfer is a request's whole way less the networks, draw is done
when a pixel of it was read back, latency is from a new pose to its pixels while 24 poses a second come, fresh is the
share of poses that were drawn before the next one came.

`--window` measures a real Blender instead, under xvfb where that is installed: redraws a second with and without an
avatar in the view, the view turning at each redraw and standing still, and what playing an action shows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from building.environments import BuildError
from building.window import run_in_window, window_command

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (5000, 15000, 30000, 100000)
REPEATS = 20
INSIDE = ROOT / "bench" / "viewport_inside.py"
WINDOW = ROOT / "bench" / "viewport_window.py"


def make_avatar(count: int, folder: Path) -> tuple[Path, float]:
    """An untrained avatar of about `count` Gaussians, coloured like a head; its file and what its networks take, ms."""
    import numpy as np
    import torch

    from backend.avatar.avatar import Avatar, build_networks, load_avatar, save_avatar
    from backend.avatar.settings import AvatarSettings
    from backend.head.formats import load_head
    from backend.service.posing import SubjectPose, posed_splats

    model = load_head()
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    torch.manual_seed(0)
    settings = AvatarSettings(neural_per_anchor=max(0, round(count / len(model.template)) - 1))
    path = folder / f"{count}.effigy"
    save_avatar(Avatar(build_networks(settings, model, identity).eval(), model, identity, settings), path)
    avatar = load_avatar(path)
    times = []
    for number in range(REPEATS + 3):
        expression = np.zeros(len(model.expression_names))
        expression[number % len(expression)] = 0.5
        pose = SubjectPose(expression, np.zeros((5, 3)), np.eye(3), np.zeros(3), 1.0)
        started = time.perf_counter()
        posed_splats(avatar, pose, np.array((0.0, 0.0, 0.8)))
        times.append(1e3 * (time.perf_counter() - started))
    return path, float(np.median(times[3:]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.viewport", description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, metavar="N")
    parser.add_argument(
        "--blender-python",
        default=str(ROOT / ".venv-blender" / "bin" / "python"),
        metavar="PYTHON",
        help="a Python with Blender as a module (default: .venv-blender)",
    )
    parser.add_argument("--window", metavar="BLENDER", help="measure this Blender's window instead")
    parser.add_argument("--package", metavar="ZIP", help="with --window: the built extension")
    parser.add_argument(
        "--frames",
        type=int,
        default=0,
        metavar="N",
        help="with --window: redraw so many frames of an action, and say how much memory that took",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="effigy-bench-") as folder:
        order: dict = {
            "python": os.environ.get("EFFIGY_BACKEND_PYTHON", sys.executable),
            "root": str(ROOT),
            "avatars": {},
            "network_ms": {},
            "frames": arguments.frames,
            "package": str(Path(arguments.package).resolve()) if arguments.package else "",
        }
        for count in arguments.counts:
            path, order["network_ms"][str(count)] = make_avatar(count, Path(folder))
            order["avatars"][str(count)] = str(path)
        script, result = Path(folder) / "order.json", Path(folder) / "result.json"
        script.write_text(json.dumps(order | {"result": str(result)}), "utf-8")
        settings = Path(folder) / "settings"
        if arguments.window:
            try:
                run_in_window(window_command(arguments.window), WINDOW, script, settings)
            except BuildError as error:
                print(error, file=sys.stderr)
                return 1
        else:
            settings.mkdir()
            subprocess.run(
                [arguments.blender_python, str(INSIDE), str(script)],
                env=os.environ | {"BLENDER_USER_RESOURCES": str(settings)},
                check=False,
            )
        if not result.is_file():
            print("Blender did not get to the end: what it said is above.", file=sys.stderr)
            return 1
        figures = json.loads(result.read_text("utf-8"))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    columns = list(next(iter(figures.values())))
    print("| Gaussians | " + " | ".join(column.replace("_", " ") for column in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for count, row in figures.items():
        print(
            f"| {count} | "
            + " | ".join(f"{row[column]:.2f}" if "share" in column else f"{row[column]:.1f}" for column in columns)
            + " |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
