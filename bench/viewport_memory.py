"""Whether playing for long takes more and more memory: frames of an action, as the live viewport shows them.

    python -m bench.viewport_memory [--frames 5000] [--count 5000] [--blender-python PYTHON]

Each frame is a new pose: asked of a worker, unpacked, sorted, uploaded and drawn with the rig's mesh taken from Blender
anew, in a GPU context of Blender's as a module; a pixel is read back, as a window waits for its picture. Memory is
looked at every tenth of the way, from the 250th frame on, when what is kept for good is there. More than 20 MB of
growth makes the exit code 1. `bench.viewport --window BLENDER --frames N` does the like in a real window.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST = 20.0
"""MB."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.viewport_memory", description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=5000, metavar="N")
    parser.add_argument("--count", type=int, default=5000, metavar="N", help="Gaussians (default: %(default)s)")
    parser.add_argument(
        "--blender-python",
        default=str(ROOT / ".venv-blender" / "bin" / "python"),
        metavar="PYTHON",
        help="a Python with Blender as a module (default: .venv-blender)",
    )
    arguments = parser.parse_args()
    from bench.viewport import make_avatar

    with tempfile.TemporaryDirectory(prefix="effigy-bench-") as folder:
        avatar, _ = make_avatar(arguments.count, Path(folder))
        order, result = Path(folder) / "order.json", Path(folder) / "result.json"
        order.write_text(
            json.dumps(
                {
                    "python": os.environ.get("EFFIGY_BACKEND_PYTHON", sys.executable),
                    "root": str(ROOT),
                    "memory": {"frames": arguments.frames, "avatar": str(avatar)},
                    "result": str(result),
                }
            ),
            "utf-8",
        )
        (Path(folder) / "settings").mkdir()
        subprocess.run(
            [arguments.blender_python, str(ROOT / "bench" / "viewport_inside.py"), str(order)],
            check=False,
            env=os.environ | {"BLENDER_USER_RESOURCES": str(Path(folder) / "settings")},
        )
        if not result.is_file():
            print("Blender did not get to the end: what it said is above.", file=sys.stderr)
            return 1
        sizes = json.loads(result.read_text("utf-8"))
    growth = sizes[-1][1] - sizes[0][1]
    print(f"{arguments.frames} frames: {growth:+.1f} MB.")
    return int(growth > MOST)


if __name__ == "__main__":
    sys.exit(main())
