"""A real Blender with a window, for what a Blender without one cannot show: the guide's pictures, how quick it stays.

Blender's settings stay as they are: it gets a folder of its own, with factory settings. The window lies in a screen
that nobody sees where xvfb-run is installed, else on the display of the desktop, which is then not to be touched.
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
"""Pixels of the window."""


def window_command(program: str | None) -> list[str]:
    """The words that start Blender in a window; `program`: which one, by default `blender` on the PATH."""
    blender = shutil.which(program or "blender")
    if blender is None:
        raise BuildError("This is done in a real Blender: install Blender 4.2 or later, or name it by --blender.")
    screen = list(SCREEN) if shutil.which(SCREEN[0]) else []
    if not screen and not os.environ.get("DISPLAY"):
        raise BuildError("Blender's window needs a display, and there is none: install xvfb and xauth.")
    return [*screen, blender]


def run_in_window(command: list[str], script: Path, order: Path, settings: Path, said: TextIO | None = None) -> None:
    """Have Blender run `script` with `order`'s path as its argument until it quits; `settings`: its user folder;
    `said`: a file for what it prints, by default this terminal.
    """
    settings.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *command,
            "--factory-startup",
            "--gpu-backend",
            "opengl",
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
        stdout=said,
        stderr=said,
    )
