"""The user's FLAME files in the shapes in which projects keep them, as the parts of a head model.

FLAME 2020, 2023 and 2023 Open hold the same arrays under the same names: `v_template` (N, 3), `shapedirs` (N, 3, 400:
300 identity components, then 100 of expression), `posedirs` (N, 3, 36), `J_regressor` (5, N), `weights` (N, 5), `f`
(F, 3) and `kintree_table` (2, 5). Files that other projects have saved again differ:

- expressions of their own, `exprdirs`, `expressedirs`, `expr_dirs` or `keyed_exprdirs` (N, 3, E), beside `shapedirs`
- fewer components, such as 100 and 50. Nothing in the file says where the identity ends. Programs disagree: DECA,
  EMOCA, VHAP and FLAME's own code count from 300, the package smplx takes 10 and 10. Such a file is refused until the
  user says how many are expressions.
- directions as matrices (3 N, K) or their transposes (K, 3 N), a regressor (N, 5), other names of triangles, weights
- no `posedirs` or no skinning

None has uv, regions or a landmark embedding for our detector: uv is unwrapped around the head here, and landmarks are
read from `mediapipe_landmark_embedding.npz` (FLAME's own, 105 landmarks) if it lies beside the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import EffigyError
from ..file_kinds import Kind, kind_of_counts, kind_of_model_keys
from ..progress import Progress
from ..reading import Unlike, shown
from .model import LANDMARK_COUNT, NECK, PARENTS, REGION_NAMES, HeadModel
from .topology import neck_ring

FLAME_IDENTITY_COUNT: Final = 300
FLAME_COUNT: Final = 400
"""Identity and expression components of the files that FLAME's makers publish."""
EXPRESSION_NAMES: Final = ("exprdirs", "expressedirs", "expr_dirs", "keyed_exprdirs")
LANDMARK_FILE: Final = "mediapipe_landmark_embedding.npz"
WEIGHTS: Final = frozenset(("weights", "lbs_weights"))
POSE_COUNT: Final = 36
HEAD_EXTENT: Final = (0.15, 0.6)
"""Metres: the largest side of a head's box, from a child's head without a neck to a bust. FLAME's is 0.31."""
UNITS: Final = {"millimetres": 1e-3, "centimetres": 1e-2, "decimetres": 0.1}
"""Metres of the units in which other programs save heads."""
ASK: Final = (
    "say how many of them are expressions with --expression-count N, or in the field Expressions of Use My FLAME File; "
    "0 for none"
)
READ: Final = (
    "choose a FLAME model (generic_model.pkl, flame2023.pkl, or an .npz of the same arrays), or Effigy's own .npz"
)


def from_flame(
    arrays: Mapping[Any, Any],
    path: Path,
    progress: Progress,
    expression_count: int | None,
    is_known: bool,
    in_metres: bool,
    read_beside: Callable[[Path], Mapping[str, Any]],
    check_counts: Callable[..., None],
) -> HeadModel:
    """The head model in a FLAME file, without regions.

    `expression_count`: how many components are expressions, where the user says it. `is_known`: the file was opened by
    a version that counted from 300 in every file, and is read in the same way. `in_metres`: its lengths are metres;
    otherwise a file in another unit is converted, which is told. `read_beside` reads a file of arrays,
    `check_counts` bounds the mesh and its bases. Raises an `EffigyError`, or `Unlike` for another kind of model.
    """
    faces = next((arrays[key] for key in ("f", "faces", "faces_tensor") if key in arrays), None)
    _refuse_others(arrays, path)
    if faces is None or any(key not in arrays for key in ("v_template", "shapedirs")):
        raise Unlike(f"it holds {shown(', '.join(map(str, arrays)), 120) or 'nothing'}", READ)
    try:
        template = np.ascontiguousarray(arrays["v_template"], np.float32)
        faces = np.ascontiguousarray(faces, np.int64).astype(np.int32)
        directions = _directions(arrays["shapedirs"], template, "shapedirs")
        check_counts(template, faces, directions)
        if faces.min() < 0 or faces.max() >= len(template):
            raise EffigyError(f"{path} is not a usable head model: faces points outside of the mesh.")
        skinning, regressor = _skinning(arrays, template, faces)
        shape_basis, expression_basis = _split(arrays, directions, template, path, expression_count, is_known)
        pose_basis = np.zeros((len(template), 3, POSE_COUNT), np.float32)
        if "posedirs" in arrays:
            pose_basis = _directions(arrays["posedirs"], template, "posedirs")
    except (TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, _Shape) else "its arrays do not fit together"
        raise EffigyError(f"{path} is not a FLAME head model: {reason}.") from error
    unit = None if in_metres else _unit(template)
    if unit is not None:
        name, metres = unit
        template, shape_basis, expression_basis, pose_basis = (
            (metres * lengths).astype(np.float32) for lengths in (template, shape_basis, expression_basis, pose_basis)
        )
        progress.message(f"{path.name} is in {name}: it is read in metres.")
    if not (arrays.keys() & WEIGHTS) or expression_basis.shape[2] == 0:
        progress.message(
            f"{path.name} has identity only (no expressions or no skinning): "
            "it can be fitted to a person but not animated."
        )
    uv, uv_faces = _unwrap(template, faces)
    landmark_faces, landmark_barycentric = _landmarks(arrays, path, read_beside)
    return HeadModel(
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


class _Shape(ValueError):
    """An array of a shape that no FLAME file has; the message continues "… is not a FLAME head model: "."""


def _refuse_others(arrays: Mapping[Any, Any], path: Path) -> None:
    """Names the well-known models of bodies and hands, whose files have the same names of arrays."""
    kind: Kind | None = kind_of_model_keys({str(key).encode("utf-8", "replace") for key in arrays})
    if kind is None and "v_template" in arrays:
        vertices = len(np.atleast_1d(np.asarray(arrays["v_template"])))
        table = arrays.get("kintree_table")
        joints = 0 if table is None else np.atleast_1d(np.asarray(table)).shape[-1]
        pose = arrays.get("posedirs")
        kind = kind_of_counts(vertices, joints, 0 if pose is None else np.atleast_1d(np.asarray(pose)).shape[-1])
    if kind is not None:
        raise EffigyError(f"{path} is {kind.name}, where a head model is needed: {kind.advice}.")


def _unit(template: np.ndarray) -> tuple[str, float] | None:
    """The unit of a template (N, 3) and its length in metres, told by the size that a head then has; None for metres,
    and where no unit gives a head's size.
    """
    extent = float(np.ptp(template, axis=0).max())
    low, high = HEAD_EXTENT
    if low <= extent <= high:
        return None
    return next(((name, metres) for name, metres in UNITS.items() if low <= extent * metres <= high), None)


def _directions(values: Any, template: np.ndarray, name: str) -> np.ndarray:
    """Directions of displacement as (N, 3, K), from that, (3 N, K) or (K, 3 N)."""
    made, count = np.asarray(values, np.float32), len(template)
    if made.ndim == 2 and made.shape[0] == 3 * count:
        made = made.reshape(count, 3, -1)
    elif made.ndim == 2 and made.shape[1] == 3 * count:
        made = made.T.reshape(count, 3, -1)
    if made.ndim != 3 or made.shape[:2] != (count, 3):
        raise _Shape(f"{name} is {made.shape}, which does not fit its {count} vertices")
    return made


def _split(
    arrays: Mapping[Any, Any],
    directions: np.ndarray,
    template: np.ndarray,
    path: Path,
    expression_count: int | None,
    is_known: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Identity (N, 3, S) and expressions (N, 3, E)."""
    count = directions.shape[2]
    name = next((name for name in EXPRESSION_NAMES if name in arrays), None)
    if name is not None:
        expressions = _directions(arrays[name], template, name)
        tail = expressions.shape[2]
        if expression_count is not None and expression_count != tail:
            raise _Shape(f"its {name} hold {tail} expressions, and not {expression_count}")
        # Some files keep the whole of shapedirs beside.
        repeated = 0 < tail < count and np.array_equal(directions[..., -tail:], expressions)
        if count == FLAME_COUNT and not repeated:
            return directions[..., :FLAME_IDENTITY_COUNT], expressions
        return directions[..., : count - tail] if repeated else directions, expressions
    if expression_count is not None:
        if not 0 <= expression_count <= count:
            raise _Shape(f"it has {count} components, of which {expression_count} cannot be expressions")
        return directions[..., : count - expression_count], directions[..., count - expression_count :]
    is_rigid = not (arrays.keys() & WEIGHTS)
    if count == FLAME_COUNT or is_known or (is_rigid and count <= FLAME_IDENTITY_COUNT):
        return directions[..., :FLAME_IDENTITY_COUNT], directions[..., FLAME_IDENTITY_COUNT:]
    raise EffigyError(
        f"{path} has {count} components of shape, where FLAME has 300 of identity and 100 of expression, and does not "
        f"say which are which: {ASK}."
    )


def _skinning(arrays: Mapping[Any, Any], template: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Skinning weights (N, 5) and joint regressor (5, N).

    A file with identity components only has neither. The whole head is then bound rigidly to the neck joint, and all
    joints lie at the centre of the neck's open edge, so that head poses have the same meaning as for other heads.
    """
    key = next((key for key in sorted(WEIGHTS, reverse=True) if key in arrays), None)
    if key is not None and "J_regressor" in arrays:
        table = arrays.get("kintree_table")
        if table is not None:
            parents = np.atleast_2d(np.asarray(table))[0]
            if len(parents) != len(PARENTS):
                raise _Shape(f"it has {len(parents)} joints, where FLAME has {len(PARENTS)}")
            # FLAME stores the missing parent of the root as 2^32 - 1.
            if tuple(parents[1:]) != PARENTS[1:]:
                raise _Shape("its joints hang together in another way than FLAME's")
        weights, regressor = (np.ascontiguousarray(arrays[name], np.float32) for name in (key, "J_regressor"))
        if regressor.shape == (len(template), len(PARENTS)):
            regressor = np.ascontiguousarray(regressor.T)
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


def _landmarks(
    arrays: Mapping[Any, Any], path: Path, read_beside: Callable[[Path], Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """FLAME's own embedding of the detector's landmarks, from the file itself or from the one beside it."""
    faces, barycentric = np.full(LANDMARK_COUNT, -1, np.int32), np.zeros((LANDMARK_COUNT, 3), np.float32)
    keys = ("lmk_face_idx", "lmk_b_coords", "landmark_indices")
    beside = path.with_name(LANDMARK_FILE)
    if any(key not in arrays for key in keys):
        arrays = read_beside(beside) if beside.is_file() else {}
    if all(key in arrays for key in keys):
        points = np.asarray(arrays["landmark_indices"], np.int64)
        faces[points] = arrays["lmk_face_idx"]
        barycentric[points] = arrays["lmk_b_coords"]
    return faces, barycentric
