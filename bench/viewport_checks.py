"""The live viewport in a real Blender window, held against the CPU rasteriser in every situation that an artist meets.

    python3 build.py bench viewport_checks --blender PROGRAM --avatar FILE [--second FILE] [--capture FOLDER]
                                           [--gpu-backend NAME] [--pictures FOLDER] [--checks NAME …] [--json FILE]

Perspective, orthographic and camera view, render border, every shading mode; what hides an avatar; objects before,
behind and inside the head; two avatars; the view turned in place and about the world's origin; undo, deletion, another
file, *Reload Scripts*, the extension disabled and enabled; at the end, Blender is closed and nothing is to be left. A
row each, with the mean difference inside the head in levels of 255; one that fails makes the exit code 1.

`--pictures` keeps screenshots, with `--capture` in front of the footage as well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from building.environments import BuildError
from building.extension import build_extension
from building.window import run_in_window, window_command

SCRIPT = Path(__file__).with_name("viewport_checks_in_blender.py")
CHECKS = ("views", "turned", "hidden", "objects", "shading", "two", "lifetime")
WRONG = re.compile(r"Traceback|^Error|[A-Z]\w*(?:Error|Exception): |WARN.*leak|memory leak", re.MULTILINE)
"""In what Blender says."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.py bench viewport_checks", description=__doc__.split("\n")[0])
    parser.add_argument("--blender", metavar="PROGRAM", help="Blender 4.2 or later (default: `blender` on the PATH)")
    parser.add_argument("--avatar", metavar="FILE", required=True, help="a trained avatar")
    parser.add_argument("--second", metavar="FILE", help="another, to stand beside it (default: the same)")
    parser.add_argument("--capture", metavar="FOLDER", default="", help="the first one's, for its footage")
    parser.add_argument("--pictures", metavar="FOLDER", default="", help="keep screenshots there")
    parser.add_argument(
        "--gpu-backend", choices=("opengl", "vulkan", "metal"), default="opengl", help="what Blender draws with"
    )
    parser.add_argument("--checks", nargs="*", choices=CHECKS, default=CHECKS, help="which of them (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write the rows there as well")
    parser.add_argument("--log", metavar="FILE", help="keep what Blender says there")
    arguments = parser.parse_args()
    try:
        command = window_command(arguments.blender)
        with tempfile.TemporaryDirectory(prefix="effigy-window-") as folder:
            rows = check(command, Path(folder), arguments)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    width = max(len(row["what"]) for row in rows)
    for row in rows:
        print(
            f"{row['what']:{width}}  {'' if row['level'] is None else format(row['level'], '6.2f'):>6}  "
            f"{'good' if row['good'] else 'WRONG'}  {row['said']}"
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    return int(not all(row["good"] for row in rows))


def check(command: list[str], folder: Path, arguments: argparse.Namespace) -> list[dict]:
    order, result, log = folder / "order.json", folder / "rows.json", Path(arguments.log or folder / "log.txt")
    files = {
        name: str(Path(value).resolve()) if value else ""
        for name, value in (
            ("avatar", arguments.avatar),
            ("second", arguments.second or arguments.avatar),
            ("capture", arguments.capture),
            ("pictures", arguments.pictures),
        )
    }
    order.write_text(
        json.dumps(
            files
            | {
                "package": str(build_extension(folder)),
                "folder": str(folder),
                "result": str(result),
                "checks": list(arguments.checks),
                "gpu_backend": arguments.gpu_backend,
            }
        ),
        "utf-8",
    )
    with log.open("w", encoding="utf-8") as said:
        run_in_window(command, SCRIPT, order, folder / "settings", said, arguments.gpu_backend)
    output = log.read_text("utf-8", errors="replace")
    if not result.is_file():
        raise BuildError(f"Blender did not get through. It said:\n{output[-4000:]}")
    rows = json.loads(result.read_text("utf-8"))
    workers = [row.pop("worker") for row in rows if "worker" in row]
    left = [worker for worker in workers if still_runs(worker)]
    wrong = [line for line in output.splitlines() if WRONG.search(line)]
    rows.append({"what": "after closing, no worker", "level": None, "good": not left, "said": " ".join(map(str, left))})
    rows.append({"what": "the console: no error", "level": None, "good": not wrong, "said": " | ".join(wrong[:3])})
    return rows


def still_runs(process: int) -> bool:
    """A moment after Blender was closed."""
    for _ in range(30):
        try:
            os.kill(process, 0)
        except OSError:
            return False
        if Path(f"/proc/{process}/stat").is_file() and Path(f"/proc/{process}/stat").read_text().split()[2] == "Z":
            return False
        time.sleep(0.1)
    return True


if __name__ == "__main__":
    sys.exit(main())
