"""Writes the splats of a range of frames as one USD file, which Blender plays by itself: its modifier Mesh Sequence
Cache reads the schema ParticleField3DGaussianSplat of OpenUSD 26.

Time codes are the scene's frame numbers. Positions, rotations and sizes are in single precision, because Cycles chooses
other Gaussians for a ray where their last digits differ, so that a picture has other noise than without the file.
Colours and opacity are in half precision, of which the largest error is an eighth of a level of 8 bits. Between two
frames Blender blends linearly each number, so that a quaternion is written with the sign that brings it nearest to its
predecessor.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final, Self

import bpy
import numpy as np

from ..errors import EffigyError
from ..output_files import temporary_beside
from ..renaming import rename
from .frame import NativeSplats, aligned

SUFFIX: Final = ".usdc"
PRIM: Final = "/splats"
"""Path of the splats in the file."""
KEPT: Final = 50
"""Frames in memory; each has about a megabyte."""
MOST_HALF: Final = 65504.0


class UsdWriter:
    """Writes a file, which takes its place when the `with` block ends without an error. Raises an `EffigyError` where
    that is not possible.
    """

    def __init__(self, path: Path, frames: tuple[int, int], fps: float) -> None:
        """`frames`: the first and the last."""
        self.path, self._temporary = path, temporary_beside(path)
        self._frames, self._fps = frames, fps
        self._stage: Any = None
        self._last: np.ndarray | None = None
        self._written = 0

    def __enter__(self) -> Self:
        pxr = _usd()
        try:
            self._stage = stage = pxr["Usd"].Stage.CreateNew(str(self._temporary))
        except Exception as error:
            raise EffigyError(f"{self.path} cannot be written: choose another folder.") from error
        stage.SetStartTimeCode(self._frames[0])
        stage.SetEndTimeCode(self._frames[1])
        stage.SetTimeCodesPerSecond(self._fps)
        stage.SetFramesPerSecond(self._fps)
        pxr["UsdGeom"].SetStageUpAxis(stage, pxr["UsdGeom"].Tokens.z)
        pxr["UsdGeom"].SetStageMetersPerUnit(stage, 1.0)
        self._pxr = pxr
        self._prim = pxr["UsdVol"].ParticleField3DGaussianSplat.Define(stage, PRIM)
        stage.SetDefaultPrim(self._prim.GetPrim())
        return self

    def add(self, frame: int, splats: NativeSplats) -> None:
        prim, vt = self._prim, self._pxr["Vt"]
        rotation = splats.rotation if self._last is None else aligned(splats.rotation, self._last)
        self._last = rotation
        coefficients = np.concatenate((splats.base[None, :, :3], splats.harmonics)).transpose(1, 0, 2)
        reach = 3 * splats.scale.max(1, keepdims=True)
        extent = np.stack(((splats.position - reach).min(0), (splats.position + reach).max(0)))
        prim.GetRadianceSphericalHarmonicsDegreeAttr().Set(round(coefficients.shape[1] ** 0.5) - 1)
        prim.GetPositionsAttr().Set(vt.Vec3fArray.FromNumpy(splats.position), frame)
        prim.GetExtentAttr().Set(vt.Vec3fArray.FromNumpy(extent.astype(np.float32)), frame)
        # In memory USD has the real part last.
        prim.GetOrientationsAttr().Set(vt.QuatfArray.FromNumpy(np.ascontiguousarray(rotation[:, (1, 2, 3, 0)])), frame)
        prim.GetScalesAttr().Set(vt.Vec3fArray.FromNumpy(splats.scale), frame)
        prim.GetOpacitieshAttr().Set(vt.HalfArray.FromNumpy(_half(splats.base[:, 3])), frame)
        attribute = prim.GetRadianceSphericalHarmonicsCoefficientshAttr()
        attribute.Set(vt.Vec3hArray.FromNumpy(_half(coefficients.reshape(-1, 3))), frame)
        self._written += 1
        if self._written % KEPT == 0:
            # What is saved leaves the memory.
            self._save()

    def _save(self) -> None:
        try:
            self._stage.GetRootLayer().Save()
        except Exception as error:
            raise self._unwritten() from error

    def _unwritten(self) -> EffigyError:
        return EffigyError(f"{self.path} could not be written: free some space on its disk, or choose another folder.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._save()
                self._prim = self._stage = None
                try:
                    rename(self._temporary, self.path)
                except OSError as failure:
                    raise self._unwritten() from failure
        finally:
            # USD holds the file open as long as there is a stage.
            self._prim = self._stage = None
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)


def _half(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.clip(values, -MOST_HALF, MOST_HALF).astype(np.float16))


def _usd() -> dict[str, ModuleType]:
    """Blender's own USD library."""
    try:
        if "pxr" not in sys.modules and importlib.util.find_spec("pxr") is None:
            _load_of_module()
        modules = {name: importlib.import_module(f"pxr.{name}") for name in ("Usd", "UsdGeom", "UsdVol", "Vt")}
        if not hasattr(modules["UsdVol"], "ParticleField3DGaussianSplat"):
            raise ImportError("an older one is in its place")
        return modules
    except ImportError as error:
        raise EffigyError(
            f"This build of Blender has no USD library ({error}): use one from blender.org for Bake to Disk."
        ) from error


def _load_of_module() -> None:
    """Blender as a Python module has its packages in a folder that Python does not search."""
    found = next(Path(bpy.utils.resource_path("LOCAL"), "python").glob("**/site-packages/pxr/__init__.py"), None)
    spec = found and importlib.util.spec_from_file_location(
        "pxr", found, submodule_search_locations=[str(found.parent)]
    )
    if not spec or not spec.loader:
        raise ImportError("pxr is not there")
    sys.modules["pxr"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
