"""Starts Blender with a window, which the guide's screenshots and the benchmarks of the viewport need.

The user's settings stay as they are: Blender gets a separate folder with factory settings. Where xvfb-run is installed
the window opens on a virtual display; otherwise it opens on the desktop, which must not be used meanwhile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TextIO

from .environments import BuildError

SCREEN = ("xvfb-run", "-a", "-s", "-screen 0 1280x900x24 +extension GLX")
SIZE = ("1280", "900")
"""Width and height of the window in pixels."""


def window_command(program: str | None) -> list[str]:
    """The command that starts Blender with a window; `program` is its path, by default `blender` on the PATH."""
    blender = shutil.which(program or "blender")
    if blender is None:
        raise BuildError("Blender was not found: install Blender 4.2 or later, or give its path with --blender.")
    screen = list(SCREEN) if shutil.which(SCREEN[0]) else []
    if not screen and not os.environ.get("DISPLAY"):
        raise BuildError("Blender's window needs a display, and there is none: install xvfb and xauth.")
    return [*screen, blender]


def run_in_window(
    command: list[str],
    script: Path,
    order: Path,
    settings: Path,
    output: TextIO | None = None,
    gpu_backend: str = "opengl",
) -> None:
    """Run Blender with `script`, which gets the path `order` as its argument, until it quits. `settings` is Blender's
    user folder; `output` is a file for what Blender prints, by default this terminal; `gpu_backend` is what Blender
    draws with, `opengl` or, from Blender 4.5 on, `vulkan` or `metal`.
    """
    settings.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *command,
            "--factory-startup",
            "--gpu-backend",
            gpu_backend,
            "-noaudio",
            "--window-geometry",
            "0",
            "0",
            *SIZE,
            "--python",
            str(script),
            "--",
            str(order),
        ],
        env=os.environ | {"BLENDER_USER_RESOURCES": str(settings), "LANG": "C.UTF-8"},
        stdout=output,
        stderr=output,
    )
