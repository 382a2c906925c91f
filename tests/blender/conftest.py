"""Blender as a module with the *built zip* installed, in a temporary settings folder."""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Blender reads this once, when bpy is first imported, so it is set before any test module is imported.
SCRATCH = Path(tempfile.mkdtemp(prefix="effigy-blender-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
(SCRATCH / "user").mkdir()
os.environ["BLENDER_USER_RESOURCES"] = str(SCRATCH / "user")
os.environ.setdefault(
    "EFFIGY_BACKEND_PYTHON", str(ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
)

import bpy

PACKAGE = "bl_ext.user_default.effigy"


@pytest.fixture(scope="session", autouse=True)
def effigy() -> ModuleType:
    """The installed and enabled extension, `bl_ext.user_default.effigy`."""
    from building.extension import build_extension

    package = build_extension(SCRATCH, environment=Path(sys.prefix))
    bpy.ops.extensions.package_install_files(filepath=str(package), repo="user_default", enable_on_install=True)
    assert PACKAGE in bpy.context.preferences.addons, "the extension was installed but could not be enabled"
    yield importlib.import_module(PACKAGE)
    # With a render engine still registered some versions of Blender hang or crash at exit.
    bpy.ops.preferences.addon_disable(module=PACKAGE)


@pytest.fixture(autouse=True)
def fresh_file(effigy: ModuleType) -> None:
    """Every test starts in an empty file."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)


@pytest.fixture(scope="session")
def module(effigy: ModuleType):
    """A module of the installed extension by its path: `module("blender_addon.rig.build")`."""
    return lambda path: importlib.import_module(f"{PACKAGE}.{path}")


@pytest.fixture(scope="session")
def demo_clip() -> Path:
    """The bundled clip in the installed extension."""
    return Path(importlib.import_module(PACKAGE).__file__).parent / "assets" / "demo.mp4"


@pytest.fixture(scope="session")
def demo_capture(effigy: ModuleType, demo_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames 10 to 21 of the bundled clip at 256 pixels, captured and tracked once by *Import Video*. Do not change
    it.
    """
    folder = tmp_path_factory.mktemp("project") / "demo.capture"
    bpy.ops.effigy.import_video(
        filepath=str(demo_clip), first=10, last=21, size=256, landmarks_only=True, capture=str(folder)
    )
    return folder


@pytest.fixture(scope="session")
def demo_avatar(demo_capture: Path) -> Path:
    """An avatar trained for a few seconds on `demo_capture`, by *Train Avatar*: a valid file of low quality."""
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    settings = bpy.context.object.effigy
    settings.minutes, settings.size, settings.device = 0.1, 128, "cpu"
    bpy.ops.effigy.train_avatar()
    return Path(bpy.path.abspath(bpy.context.object.effigy.avatar))


@pytest.fixture(scope="session")
def engine_avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two untrained avatars that look like heads, and an image of one by the backend (`engine_truth`)."""
    from engine_scenes import backend

    folder = tmp_path_factory.mktemp("avatars")
    backend("make", folder)
    return folder


@pytest.fixture(scope="session")
def engine_picture(engine_avatars: Path) -> dict:
    import numpy as np

    with np.load(engine_avatars / "truth.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="session")
def shot(effigy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .blend with a rig that is moved, turned, scaled and posed (`rig_place`)."""
    from rig_place import save_shot

    path = tmp_path_factory.mktemp("rig") / "shot.blend"
    save_shot(path)
    return path


@pytest.fixture
def scene(shot: Path, fresh_file: None) -> Path:
    """`shot`, opened."""
    bpy.ops.wm.open_mainfile(filepath=str(shot))
    return shot
