#!/usr/bin/env python3
"""Takes the guide's screenshots: starts Blender with the built extension, performs the guide's steps in it (steps.py),
and writes the screenshots to docs/images. `python3 build.py docs` runs it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import av
import numpy as np
from PIL import Image

from building.environments import BuildError
from building.pictures import remember
from building.window import run_in_window, window_command

STEPS = Path(__file__).with_name("steps.py")
SETTINGS = ".settings"
"""Hidden, so that Blender's file browser does not show it."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.py docs", description="Take the guide's screenshots again.")
    parser.add_argument("--package", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--blender", metavar="PROGRAM", help="Blender 4.2 or later (default: `blender` on the PATH)")
    parser.add_argument("--avatar", metavar="FILE", default="", help="a trained avatar (default: train one meanwhile)")
    parser.add_argument(
        "--capture", metavar="FOLDER", default="", help="its capture (default: import the bundled clip)"
    )
    parser.add_argument(
        "--project",
        metavar="FOLDER",
        default=str(ROOT / "out" / "docs"),
        help="where the steps keep their files; its path is visible in the screenshots (default: out/docs)",
    )
    parser.add_argument("--frames", type=int, default=120, help="how much of the bundled clip to import (%(default)s)")
    parser.add_argument("--minutes", type=float, default=4.0, help="how long to train (default: %(default)s)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="PAGE",
        default=[],
        help="only these of the guide's later pages, as functions of pages.py are called; needs --avatar and --capture",
    )
    arguments = parser.parse_args()
    if arguments.only and not (arguments.avatar and arguments.capture):
        parser.error("--only needs --avatar and --capture")
    try:
        command = window_command(arguments.blender)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return take(arguments, command)


def take(arguments: argparse.Namespace, command: list[str]) -> int:
    started = time.time()
    project = Path(arguments.project).absolute()
    order = project / "order.json"
    if project.is_dir() and any(project.iterdir()) and not order.is_file():
        print(f"{project} holds other files: choose a new folder with --project.", file=sys.stderr)
        return 1
    for old in project.iterdir() if project.is_dir() else ():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    project.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "assets" / "demo.mp4", project / "demo.mp4")
    for name in ("line.flac", "line.txt"):
        shutil.copyfile(ROOT / "assets" / "speech" / name, project / name)
    make_plate(project / "demo.mp4", project / "plate.png")
    # Inside the project, so that the screenshots show paths as an artist has them.
    here = {"capture": project / "demo.capture", "avatar": project / "demo.effigy"}
    if arguments.capture:
        shutil.copytree(arguments.capture, here["capture"])
    if arguments.avatar:
        shutil.copyfile(arguments.avatar, here["avatar"])
    given = {name: str(path) if getattr(arguments, name) else "" for name, path in here.items()}
    order.write_text(
        json.dumps(
            given
            | {
                "package": str(Path(arguments.package).resolve()),
                "pictures": str(ROOT / "docs" / "images"),
                "project": str(project),
                "frames": arguments.frames,
                "minutes": arguments.minutes,
                "only": arguments.only,
            }
        ),
        "utf-8",
    )
    run_in_window(command, STEPS, order, project / SETTINGS)
    ended = project / "ended"
    if not ended.is_file() or ended.read_text() != "0":
        print(
            "Blender did not finish the guide's steps. Its output is above; if a step failed, where_it_stopped.png in "
            "the project folder shows the window at that moment.",
            file=sys.stderr,
        )
        return 1
    taken = [path.stem for path in (ROOT / "docs" / "images").glob("*.*") if path.stat().st_mtime > started]
    remember(taken)
    print(f"The guide's screenshots are in docs/images: {', '.join(sorted(taken))}.")
    return 0


def make_plate(clip: Path, plate: Path) -> None:
    """The clip's first frame as a darker and warmer plate with lifted blacks."""
    with av.open(str(clip)) as film:
        frame = next(film.decode(video=0)).to_ndarray(format="rgb24") / 255.0
    graded = 0.06 + 0.72 * frame ** np.array([1.0, 1.25, 1.6])
    Image.fromarray(np.round(255 * graded.clip(0, 1)).astype(np.uint8)).save(plate)


if __name__ == "__main__":
    sys.exit(main())
