"""Whether an interpreter can run the backend: asked of itself, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import EffigyError
from .install import NOT_FOR_ANOTHER_PYTHON

OLDEST_PYTHON: Final = (3, 11)
MODULES: Final = (
    "torch",
    "numpy",
    "scipy",
    "numba",
    "av",
    "cv2",
    "mediapipe",
    "h5py",
    "OpenEXR",
    "safetensors",
    "rich",
)
"""What the backend imports."""

PROBE: Final = f"""
import importlib.util, json, platform, sys
missing = [name for name in {MODULES!r} if importlib.util.find_spec(name) is None]
torch = None
if "torch" not in missing:
    from importlib.metadata import version
    torch = version("torch")
print(json.dumps({{"version": list(sys.version_info[:3]), "missing": missing, "torch": torch}}))
"""
SECONDS: Final = 30


@dataclass(frozen=True)
class Interpreter:
    """A Python that can run the backend."""

    path: Path
    version: str
    torch: str

    @property
    def said(self) -> str:
        return f"Python {self.version} with PyTorch {self.torch}"


def check_interpreter(path: Path) -> Interpreter:
    """What this interpreter is; an `EffigyError` says why it cannot run the backend."""
    if path.is_dir():
        raise EffigyError(
            f"{path} is a folder: choose the Python program inside it, for instance bin/python or Scripts\\python.exe."
        )
    if not path.is_file():
        raise EffigyError(
            f"There is no Python at {path}: choose the interpreter of an environment that has the backend's packages."
        )
    environment = {name: value for name, value in os.environ.items() if name not in NOT_FOR_ANOTHER_PYTHON}
    flags = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {}
    try:
        ended = subprocess.run(
            [str(path), "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment,
            stdin=subprocess.DEVNULL,
            errors="replace",
            **flags,
        )
    except subprocess.TimeoutExpired as error:
        raise EffigyError(
            f"{path} did not answer within {SECONDS} seconds: it is no Python, or it is stuck."
        ) from error
    except OSError as error:
        raise EffigyError(
            f"{path} could not be run ({error.strerror or error}): choose a Python interpreter."
        ) from error
    try:
        found = json.loads(ended.stdout.strip().splitlines()[-1])
        version, missing = tuple(found["version"]), found["missing"]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise EffigyError(f"{path} is no Python interpreter that works: choose another.") from error
    told = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        raise EffigyError(
            f"{path} is Python {told}, and the backend needs {'.'.join(map(str, OLDEST_PYTHON))} or newer."
        )
    if missing:
        raise EffigyError(
            f"{path} (Python {told}) lacks {', '.join(missing)}: install what requirements/ of the "
            "extension lists, or press Install Backend."
        )
    return Interpreter(path, told, found["torch"])
