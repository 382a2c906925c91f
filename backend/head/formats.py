"""Opening and saving head models: ours (`.npz`), and the user's FLAME files (`.pkl` or `.npz`, see `flame_files`). The
regions of FLAME are transferred from the open head (`regions.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from ..array_files import read_arrays
from ..assets import asset_path
from ..errors import EffigyError
from ..progress import SILENT, Progress
from ..reading import Damaged, Unlike, check_regular, reading, shown
from ..storage import check_schema, write_beside
from .added_mouth import with_mouth
from .flame_files import READ, from_flame
from .model import LANDMARK_COUNT, REGION_NAMES, HeadModel
from .regions import transfer_regions
from .restricted_pickle import load_restricted_pickle

SCHEMA = 1
REMEDY: Final = "download or save it again"
MOST_BYTES: Final = 512 * 2**20
"""Of a head model's file, and of its arrays: MOST_VERTICES with FLAME's 436 directions take half of it."""
LEAST_VERTICES, MOST_VERTICES = 4, 50_000
"""FLAME has 5,023. Pooling the mesh of 50,000 vertices for the networks takes half a minute."""
MOST_COMPONENTS: Final = 1000
"""Of the identity or the expression; FLAME has 300 and 100."""
LEAST_EXTENT, MOST_EXTENT = 1e-3, 100.0
"""Metres: the smallest extent of a mesh, and the largest coordinate. A flat mesh has no head's shape, and one in
millimetres would stand half a kilometre before the camera."""

_FLOAT_FIELDS = (
    "template",
    "shape_basis",
    "expression_basis",
    "pose_basis",
    "joint_regressor",
    "skinning",
    "uv",
    "landmark_barycentric",
)
_INTEGER_FIELDS = ("faces", "uv_faces", "landmark_faces")


def load_head(
    path: Path | None = None,
    progress: Progress = SILENT,
    *,
    expression_count: int | None = None,
    is_known: bool = False,
    in_metres: bool = False,
    mouth: bool = True,
) -> HeadModel:
    """The head model in a file, or the bundled open head. A FLAME file gets a mouth inside (`added_mouth`), unless
    `mouth` is False. Missing parts of a file are reported by `progress.message`.

    `expression_count` and `is_known` say how the components of a FLAME file are split, and `in_metres` that its lengths
    are metres, however large it is (`flame_files.from_flame`).
    """
    path = asset_path("open_head.npz") if path is None else Path(path)
    with reading(path, "head model", REMEDY):
        return _load(path, progress, expression_count, is_known, in_metres, mouth)


def _load(
    path: Path, progress: Progress, expression_count: int | None, is_known: bool, in_metres: bool, mouth: bool
) -> HeadModel:
    kind = path.suffix.lower()
    if kind not in (".npz", ".pkl"):
        check_regular(path, "head model")
        raise Unlike(f"its name ends in {shown(path.suffix) or 'nothing'}", READ)
    arrays = _read_npz(path) if kind == ".npz" else load_restricted_pickle(path)
    if not isinstance(arrays, dict):
        raise Unlike("it is a pickle of something else", READ)
    if kind == ".npz" and "schema" in arrays and "v_template" not in arrays:
        return _checked(_from_ours(arrays, path), path)
    made = from_flame(arrays, path, progress, expression_count, is_known, in_metres, _read_npz, _check_counts)
    named = load_head()
    made = transfer_regions(named, _checked(made, path))
    return with_mouth(named, made) if mouth else made


def save_head(model: HeadModel, path: Path) -> None:
    """Write our `.npz`: the fields of `HeadModel` by name, regions as `region_<name>`."""
    arrays: dict[str, Any] = {name: getattr(model, name) for name in (*_FLOAT_FIELDS, *_INTEGER_FIELDS)}
    arrays |= {f"region_{name}": vertices for name, vertices in model.regions.items()}
    with write_beside(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            schema=np.int64(SCHEMA),
            name=np.array(model.name),
            expression_names=np.array(model.expression_names, np.str_),
            expression_range=np.array(model.expression_range, np.float64),
            added=np.int64(model.added),
            **arrays,
        )


def has_expressions(model: HeadModel) -> bool:
    """Whether the model can be animated. A file that has only identity components cannot."""
    return model.expression_basis.shape[2] > 0


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    return read_arrays(path, "head model", REMEDY, MOST_BYTES)


def _from_ours(arrays: dict[str, np.ndarray], path: Path) -> HeadModel:
    check_schema(int(arrays["schema"]), SCHEMA, str(path))
    needed = (*_FLOAT_FIELDS, *_INTEGER_FIELDS, "name", "expression_names", "expression_range")
    missing = [key for key in needed if key not in arrays]
    if "template" in missing:
        raise Unlike(f"it holds {shown(', '.join(arrays), 120)}", READ)
    if missing:
        raise EffigyError(f"{path} is not a whole head model: it lacks {', '.join(missing)}.")
    _check_counts(arrays["template"], arrays["faces"], arrays["shape_basis"], arrays["expression_basis"])
    low, high = arrays["expression_range"].astype(float).tolist()
    if not (np.isfinite((low, high)).all() and low < high):
        raise Damaged("its expression_range is no range")
    added = int(arrays.get("added", 0))
    if not 0 <= added < len(arrays["template"]):
        raise Damaged("it has more added vertices than vertices")
    floats = {name: np.ascontiguousarray(arrays[name], np.float32) for name in _FLOAT_FIELDS}
    for name in ("skinning", "joint_regressor"):
        floats[name] = _summing_to_one(floats[name])
    return HeadModel(
        name=str(arrays["name"]),
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        expression_range=(low, high),
        added=added,
        regions={name: np.sort(arrays.get(f"region_{name}", np.empty(0))).astype(np.int32) for name in REGION_NAMES},
        **floats,
        **{name: np.ascontiguousarray(arrays[name], np.int32) for name in _INTEGER_FIELDS},
    )


def _check_counts(vertices: np.ndarray, faces: np.ndarray, *bases: np.ndarray) -> None:
    """Raise `Damaged` for more vertices, triangles or components than any head has, before work is done for each."""
    if not (vertices.ndim == faces.ndim == 2 and vertices.shape[1:] == faces.shape[1:] == (3,)):
        raise Damaged("it has no mesh of triangles")
    for name, count, least, most in (
        ("vertices", len(vertices), LEAST_VERTICES, MOST_VERTICES),
        ("triangles", len(faces), LEAST_VERTICES, 2 * MOST_VERTICES),
        *(("components", basis.shape[-1] if basis.ndim else 0, 0, MOST_COMPONENTS) for basis in bases),
    ):
        if not least <= count <= most:
            raise Damaged(f"it has {count} {name}; a head has {least} to {most}")


def _summing_to_one(rows: np.ndarray) -> np.ndarray:
    """Normalise rows that half precision has rounded, which would shrink a posed head. Exact rows keep every bit,
    because the fingerprint depends on them.
    """
    total = rows.sum(1, keepdims=True, dtype=np.float64)
    rounded = (np.abs(total - 1) > 1e-5) & (np.abs(total - 1) < 1e-2)
    return np.where(rounded, rows / np.where(rounded, total, 1), rows).astype(np.float32)


def _checked(model: HeadModel, path: Path) -> HeadModel:
    """Validate a loaded model: shapes fit, numbers are finite, indices are in range, skinning weights sum to one."""
    count, triangles = len(model.template), len(model.faces)
    if not len(model.uv):
        raise Damaged("it has no uv")
    sizes = {
        "template": (count, 3),
        "shape_basis": (count, 3, model.shape_basis.shape[-1]),
        "pose_basis": (count, 3, 36),
        "expression_basis": (count, 3, len(model.expression_names)),
        "joint_regressor": (5, count),
        "skinning": (count, 5),
        "faces": (triangles, 3),
        "uv_faces": (triangles, 3),
        "uv": (len(model.uv), 2),
        "landmark_faces": (LANDMARK_COUNT,),
        "landmark_barycentric": (LANDMARK_COUNT, 3),
    }
    if max(map(len, (model.uv, *model.regions.values()))) > 6 * MOST_VERTICES:
        raise Damaged("it has more uv or larger regions than its mesh has corners")
    for name, size in sizes.items():
        found = getattr(model, name).shape
        if found != size:
            raise EffigyError(f"{path} is not a usable head model: {name} is {found} and should be {size}.")
    for name in _FLOAT_FIELDS:
        if not np.isfinite(getattr(model, name)).all():
            raise EffigyError(f"{path} is not a usable head model: {name} holds numbers that are not finite.")
    if np.ptp(model.template, axis=0).min() < LEAST_EXTENT or np.abs(model.template).max() > MOST_EXTENT:
        raise EffigyError(f"{path} is not a usable head model: its mesh is flat, or not a head's size in metres.")
    ranges = [
        ("faces", model.faces, 0, count),
        ("uv_faces", model.uv_faces, 0, len(model.uv)),
        ("landmark_faces", model.landmark_faces, -1, triangles),
    ]
    ranges += [(f"region {name}", vertices, 0, count) for name, vertices in model.regions.items()]
    for name, indices, low, high in ranges:
        if indices.size and (indices.min() < low or indices.max() >= high):
            raise EffigyError(f"{path} is not a usable head model: {name} points outside of the mesh.")
    if np.abs(model.skinning.sum(1) - 1).max() > 1e-2:
        raise EffigyError(f"{path} is not a usable head model: its skinning weights do not sum to one.")
    return model
