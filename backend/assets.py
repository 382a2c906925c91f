"""Paths of the files that ship with Effigy: the open head, detector models, the demo clip."""

from __future__ import annotations

from pathlib import Path

from .errors import EffigyError

_FOLDER = Path(__file__).resolve().parent.parent / "assets"


def asset_path(name: str) -> Path:
    """The path of a bundled file such as `open_head.npz` or `models/face_landmarker.task`."""
    path = _FOLDER / name
    if not path.exists():
        raise EffigyError(
            f"The bundled file assets/{name} is missing: install Effigy again, or run `python3 build.py assets`."
        )
    return path


def asset_bytes(name: str) -> bytes:
    """The content of a bundled file, for libraries that cannot open every path: on Windows, MediaPipe opens no path
    with characters outside the system's code page.
    """
    return asset_path(name).read_bytes()
