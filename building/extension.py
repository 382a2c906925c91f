"""Builds the extension as one zip file, with Blender's own tool, and validates it. Two builds give the same bytes.

Blender installs an extension as one package, `bl_ext.<repository>.effigy`. So the folders that import each other
relatively in this checkout (`blender_addon` and `operators`), and those that the worker needs (`backend` and `assets`),
are copied side by side under one root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blender_addon.installation.plan import PIP_LIST, PIP_WHEEL

from .environments import BLENDER, ROOT, BuildError

PACKAGES: Final = ("blender_addon", "operators", "backend")
NOT_SHIPPED: Final = ("derive", "speech", "demo_truth.npz", "__pycache__")
"""Names in assets/ that are not shipped: they derive or measure the assets, and the product does not read them."""

REQUIREMENTS: Final = (
    *("backend.lock", "torch.lock", "torch-cuda.lock", "warp.lock", "cuda.lock"),
    *("wheels.json", PIP_WHEEL, PIP_LIST, "batch.lock"),
)
"""The lists from which the extension installs its own backend environment, their sizes, pip, and what `batch --cluster`
needs besides."""

ROOT_MODULE: Final = '''"""Effigy, as Blender loads it: everything is registered in one place."""

from .blender_addon import register, unregister

__all__ = ["register", "unregister"]
'''
FIXED_TIME: Final = (2024, 1, 1, 0, 0, 0)


def build_extension(folder: Path, environment: Path = BLENDER.folder) -> Path:
    """Write `effigy-<version>.zip` into `folder` and validate it; `environment` is the one that holds the bpy wheel.

    Raises a `BuildError` with the tool's reason if it refuses the extension; `folder` is then left as it was.
    """
    tool = _blender_tool(environment)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="effigy-") as scratch:
        staged, built = Path(scratch, "effigy"), Path(scratch, "built")
        staged.mkdir()
        built.mkdir()
        for source, inside in files_to_ship():
            target = staged / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        (staged / "__init__.py").write_text(ROOT_MODULE, "utf-8")
        _run_tool(environment, tool, "build", "--source-dir", str(staged), "--output-dir", str(built))
        (made,) = built.glob("*.zip")
        final = folder / made.name
        beside = final.with_suffix(f".{os.getpid()}.tmp.zip")
        try:
            _normalise(made, beside)
            _run_tool(environment, tool, "validate", str(beside))
            beside.replace(final)
        finally:
            beside.unlink(missing_ok=True)
    return final


def files_to_ship() -> Iterator[tuple[Path, Path]]:
    """(file of this checkout, its path inside the zip), sorted by name within each folder."""
    yield ROOT / "blender_addon" / "blender_manifest.toml", Path("blender_manifest.toml")
    yield ROOT / "LICENSE", Path("LICENSE")
    for name in REQUIREMENTS:
        yield ROOT / "requirements" / name, Path("requirements", name)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, path.relative_to(ROOT)
    for path in sorted((ROOT / "assets").rglob("*")):
        inside = path.relative_to(ROOT)
        if path.is_file() and not any(part in NOT_SHIPPED or part.startswith(".") for part in inside.parts):
            yield path, inside


def _blender_tool(environment: Path) -> Path:
    found = sorted(environment.glob("[Ll]ib/**/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))
    if not found:
        raise BuildError(f"Blender's extension tool is not in {environment.name}: run `python3 build.py setup`.")
    return found[0]


def _run_tool(environment: Path, tool: Path, *arguments: str) -> None:
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ended = subprocess.run(
        [str(python), str(tool), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if ended.returncode:
        output = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()] or [
            "no reason was given"
        ]
        raise BuildError(f"Blender's tool refuses the extension ({arguments[0]}): {'; '.join(output[-3:])}")


def _normalise(source: Path, target: Path) -> None:
    """Copy a zip with its entries sorted by name and with one time and one mode, so that two builds of one commit are
    identical.
    """
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w") as write:
        for name in sorted(read.namelist()):
            entry = zipfile.ZipInfo(name, FIXED_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else 0o100644 << 16
            entry.create_system = 3
            write.writestr(entry, read.read(name), compresslevel=9)
