"""Checks whether an interpreter can run the backend, by running a short program in it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import child_process
from ..child_environment import environment_for_another_python
from ..errors import EffigyError

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
"""The packages that the backend imports."""

PROBE: Final = f"""
import importlib.util, json, platform, sys
missing = [name for name in {MODULES!r} if importlib.util.find_spec(name) is None]
torch = None
if "torch" not in missing:
    from importlib.metadata import version
    torch = version("torch")
print(json.dumps({{"version": list(sys.version_info[:3]), "missing": missing, "torch": torch}}))
"""
TIMEOUT: Final = 30
"""Seconds."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can run the backend."""

    path: Path
    version: str
    torch: str

    @property
    def description(self) -> str:
        """`Python 3.11.2 with PyTorch 2.13.0`."""
        return f"Python {self.version} with PyTorch {self.torch}"


def check_interpreter(path: Path) -> Interpreter:
    """Describes the interpreter at `path`. Raises an `EffigyError` with the reason if it cannot run the backend."""
    if path.is_dir():
        raise EffigyError(
            f"{path} is a folder: choose the Python program inside it, for instance bin/python or Scripts\\python.exe."
        )
    if not path.is_file():
        raise EffigyError(
            f"There is no Python at {path}: choose the interpreter of an environment that has the backend's packages."
        )
    try:
        completed = child_process.run(
            [str(path), "-c", PROBE], timeout=TIMEOUT, environment=environment_for_another_python()
        )
    except subprocess.TimeoutExpired as error:
        raise EffigyError(
            f"{path} did not answer within {TIMEOUT} seconds. Either it is not a Python interpreter, or it hangs: "
            "choose another."
        ) from error
    except OSError as error:
        raise EffigyError(
            f"{path} could not be run ({error.strerror or error}): choose a Python interpreter."
        ) from error
    try:
        found = json.loads(completed.stdout.strip().splitlines()[-1])
        version, missing = tuple(found["version"]), found["missing"]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise EffigyError(f"{path} is not a working Python interpreter: choose another.") from error
    version_text = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        raise EffigyError(
            f"{path} is Python {version_text}, and the backend needs {'.'.join(map(str, OLDEST_PYTHON))} or newer."
        )
    if missing:
        raise EffigyError(
            f"{path} (Python {version_text}) lacks {', '.join(missing)}: install these packages into it, or press "
            "Install Backend instead."
        )
    return Interpreter(path, version_text, found["torch"])
