"""Opening and saving head models: ours (`.npz`), and the user's FLAME 2020, 2023 and 2023 Open (`.pkl` or `.npz`).

All of FLAME's files hold the same arrays under the same names: `v_template` (N, 3), `shapedirs` (N, 3, 400: 300
identity components, then 100 of expression), `posedirs` (N, 3, 36), `J_regressor` (5, N), `weights` (N, 5), `f` (F, 3)
and `kintree_table`. They have no uv, no regions and no landmark embedding for our detector: uv is unwrapped around the
head here, regions are transferred from the open head (`regions.py`), and landmarks are read from
`mediapipe_landmark_embedding.npz` (FLAME's own, 105 landmarks) if it lies beside the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from ..array_files import read_arrays
from ..assets import asset_path
from ..errors import EffigyError
from ..progress import SILENT, Progress
from ..reading import Damaged, check_regular, reading
from ..storage import check_schema, write_beside
from .model import LANDMARK_COUNT, NECK, PARENTS, REGION_NAMES, HeadModel
from .regions import transfer_regions
from .restricted_pickle import load_restricted_pickle
from .topology import neck_ring

SCHEMA = 1
FLAME_IDENTITY_COUNT = 300
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
_LANDMARK_FILE = "mediapipe_landmark_embedding.npz"


def load_head(path: Path | None = None, progress: Progress = SILENT) -> HeadModel:
    """The head model in a file, or the bundled open head. Missing parts of a file are reported by
    `progress.message`.
    """
    path = asset_path("open_head.npz") if path is None else Path(path)
    with reading(path, "head model", REMEDY):
        return _load(path, progress)


def _load(path: Path, progress: Progress) -> HeadModel:
    kind = path.suffix.lower()
    if kind not in (".npz", ".pkl"):
        check_regular(path, "head model")
        raise EffigyError(f"{path} is not a head model: Effigy opens its own .npz and FLAME's .pkl and .npz files.")
    arrays = _read_npz(path) if kind == ".npz" else load_restricted_pickle(path)
    if not isinstance(arrays, dict):
        raise EffigyError(f"{path} is a pickle, but not of a FLAME head model.")
    if kind == ".npz" and "schema" in arrays:
        return _checked(_from_ours(arrays, path), path)
    return _checked(_from_flame(arrays, path, progress), path)


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
    if missing:
        raise EffigyError(f"{path} is not a whole head model: it lacks {', '.join(missing)}.")
    _check_counts(arrays["template"], arrays["faces"], arrays["shape_basis"], arrays["expression_basis"])
    low, high = arrays["expression_range"].astype(float).tolist()
    if not (np.isfinite((low, high)).all() and low < high):
        raise Damaged("its expression_range is no range")
    floats = {name: np.ascontiguousarray(arrays[name], np.float32) for name in _FLOAT_FIELDS}
    for name in ("skinning", "joint_regressor"):
        floats[name] = _summing_to_one(floats[name])
    return HeadModel(
        name=str(arrays["name"]),
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        expression_range=(low, high),
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


def _from_flame(arrays: dict, path: Path, progress: Progress) -> HeadModel:
    faces = arrays.get("f", arrays.get("faces"))
    if faces is None or any(key not in arrays for key in ("v_template", "shapedirs")):
        raise EffigyError(f"{path} is not a FLAME head model: it lacks v_template, shapedirs or the triangles (f).")
    try:
        template = np.ascontiguousarray(arrays["v_template"], np.float32)
        faces = np.ascontiguousarray(faces, np.int64).astype(np.int32)
        directions = np.asarray(arrays["shapedirs"], np.float32)
        _check_counts(template, faces, directions)
        count = len(template)
        if template.shape != (count, 3) or faces.ndim != 2 or faces.shape[1] != 3 or directions.shape[:2] != (count, 3):
            raise ValueError
        if faces.min() < 0 or faces.max() >= count:
            raise EffigyError(f"{path} is not a usable head model: faces points outside of the mesh.")
        shape_basis, expression_basis = directions[..., :FLAME_IDENTITY_COUNT], directions[..., FLAME_IDENTITY_COUNT:]
        pose_basis = np.asarray(arrays.get("posedirs", np.zeros((count, 3, 36))), np.float32)
        skinning, regressor = _flame_skinning(arrays, template, faces)
    except (TypeError, ValueError) as error:
        raise EffigyError(f"{path} is not a FLAME head model: its arrays do not fit together.") from error
    if "weights" not in arrays or expression_basis.shape[2] == 0:
        progress.message(
            f"{path.name} has identity only (no expressions or no skinning): "
            "it can be fitted to a person but not animated."
        )
    uv, uv_faces = _unwrap(template, faces)
    landmark_faces, landmark_barycentric = _flame_landmarks(arrays, path)
    model = HeadModel(
        name=path.stem,
        template=template,
        shape_basis=np.ascontiguousarray(shape_basis),
        expression_basis=np.ascontiguousarray(expression_basis),
        pose_basis=np.ascontiguousarray(pose_basis),
        joint_regressor=regressor,
        skinning=skinning,
        faces=faces,
        uv=uv,
        uv_faces=uv_faces,
        expression_names=tuple(f"expression_{index:03d}" for index in range(expression_basis.shape[2])),
        expression_range=(-10.0, 10.0),
        regions={name: np.empty(0, np.int32) for name in REGION_NAMES},
        landmark_faces=landmark_faces,
        landmark_barycentric=landmark_barycentric,
    )
    _checked(model, path)
    return transfer_regions(load_head(), model)


def _flame_skinning(arrays: dict, template: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Skinning weights (N, 5) and joint regressor (5, N).

    A file with identity components only has neither. The whole head is then bound rigidly to the neck joint, and all
    joints lie at the centre of the neck's open edge, so that head poses have the same meaning as for other heads.
    """
    if "weights" in arrays and "J_regressor" in arrays:
        table = arrays.get("kintree_table")
        # FLAME stores the missing parent of the root as 2^32 - 1.
        if table is not None and tuple(np.asarray(table)[0, 1:].astype(int)) != PARENTS[1:]:
            raise ValueError("another skeleton")
        weights, regressor = (np.ascontiguousarray(arrays[key], np.float32) for key in ("weights", "J_regressor"))
        return weights, regressor
    skinning = np.zeros((len(template), 5), np.float32)
    skinning[:, NECK] = 1
    ring = neck_ring(template, faces)
    regressor = np.zeros((5, len(template)), np.float32)
    regressor[:, ring] = 1 / len(ring)
    return skinning, regressor


def _unwrap(template: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cylindrical uv about the vertical axis with the seam at the back; corners beyond the seam get separate uv
    vertices.
    """
    low, high = template.min(0), template.max(0)
    centre = (low + high) / 2
    around = np.arctan2(template[:, 0] - centre[0], template[:, 2] - centre[2]) / (2 * np.pi) + 0.5
    up = (template[:, 1] - low[1]) / max(high[1] - low[1], 1e-9)
    u = around[faces]
    crossing = (u.max(1, keepdims=True) - u.min(1, keepdims=True) > 0.5) & (u < 0.5)
    corners = faces + crossing * len(template)
    used, uv_faces = np.unique(corners, return_inverse=True)
    vertex = used % len(template)
    # u exceeds 1 only for the few triangles across the seam; all u are scaled to fit into [0, 1].
    uv = np.stack((around[vertex] + (used >= len(template)), up[vertex]), 1)
    uv[:, 0] /= max(1.0, uv[:, 0].max())
    return uv.astype(np.float32), uv_faces.reshape(faces.shape).astype(np.int32)


def _flame_landmarks(arrays: dict, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """FLAME's own embedding of the detector's landmarks, from the file itself or from the one beside it."""
    faces, barycentric = np.full(LANDMARK_COUNT, -1, np.int32), np.zeros((LANDMARK_COUNT, 3), np.float32)
    keys = ("lmk_face_idx", "lmk_b_coords", "landmark_indices")
    beside = path.with_name(_LANDMARK_FILE)
    if any(key not in arrays for key in keys):
        arrays = _read_npz(beside) if beside.is_file() else {}
    if all(key in arrays for key in keys):
        points = np.asarray(arrays["landmark_indices"], np.int64)
        faces[points] = arrays["lmk_face_idx"]
        barycentric[points] = arrays["lmk_b_coords"]
    return faces, barycentric


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
