"""ARKit's 52 blendshapes on any head model, in the model's own expression coefficients and jaw rotation.

The open head has the 52 shapes themselves. A FLAME head has statistical components instead, so the open head is
registered to it: landmarks that both heads have define a smooth warp W of space (biharmonic, `r` as the kernel), every
vertex of the other skin gets its closest point p on the warped open head, and a shape that moves p by d moves the
vertex by W(p + d) - W(p). Because positions are warped and not displacements, contacts are kept: eyelids that meet on
one head meet on the other. The model's own components are then fitted to these displacements by least squares; what
they cannot reproduce is reported as an error.

jawOpen, jawLeft and jawRight become rotations of the jaw joint, as in every track (`head.jaw`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from scipy.spatial.transform import Rotation

from ..array_files import read_arrays
from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..head.closest_point import closest_on_mesh
from ..head.formats import has_expressions, load_head
from ..head.forward import Head
from ..head.jaw import JAW_SHAPES, jaw_rotations_of_shapes
from ..head.model import JAW, HeadModel
from ..head.regions import align_heads
from ..head.registry import user_folder
from ..head.rigid_alignment import fit_rotation
from ..head.rotations import axis_angle_to_matrix
from ..progress import SILENT, Progress
from ..reading import reading
from ..storage import write_beside
from .landmark_embedding import embed_landmarks
from .landmark_sets import FACE_OVAL, SURFACE_COUNT

ARKIT_NAMES: Final = SCORE_NAMES
SCHEMA: Final = 1
EMBEDDING_LANDMARKS: Final = 80
"""Landmarks that a model's own embedding must have; with fewer they are embedded from renders. FLAME's has 105, around
brows, eyes, nose and mouth; cheeks and chin are projected onto the surface."""
MIN_LANDMARKS: Final = 20
"""Landmarks that both heads must have in common."""
PROJECTED_POINTS: Final = 350
"""Further points of the warped head that are projected onto the other head's surface."""
PROJECTIONS: Final = 2
"""Times that this is repeated."""
MOUTH_OPENING: Final = 0.16
"""Radians by which both mouths are opened while closest points are searched: on closed lips a point of the upper lip is
also close to the lower one."""
MAX_DISTANCE: Final = 0.012
"""Metres between a vertex and its closest point on the warped head from which on the two do not correspond."""
SMOOTHING: Final = 1e-3
"""Metres: the warp may miss the landmarks by about the accuracy of their embedding."""
RIDGE: Final = 3e-4
"""Share of the components' mean square: keeps the fit from using components that cancel each other."""
FEATURE_WEIGHT: Final = 3.0
"""The weight of eyelids and lips against the rest of the face."""
INVERSE_ITERATIONS: Final = 300
_MOST_CACHE: Final = 16 * 2**20
"""Bytes; the map of a head with 100 components has 50 kB."""


@dataclass(frozen=True)
class ArkitMap:
    """K = 52 ARKit shapes on a head model with E expression coefficients."""

    expression: np.ndarray
    """(K, E): the model's coefficients for each shape at 1."""
    jaw: np.ndarray
    """(K, 3): axis-angle of the jaw joint for each shape at 1; zero except for the three jaw shapes."""
    wanted: np.ndarray
    """(K, K) square metres: inner products of the shapes' displacements on this head. The names of this field and the
    next are those of the stored file."""
    meets: np.ndarray
    """(K, E) square metres: inner products of the shapes' displacements with the model's components."""
    size_mm: np.ndarray
    """(K,): the root mean square displacement of the vertices that a shape moves."""
    error_mm: np.ndarray
    """(K,): the root mean square error of the model's coefficients there."""

    def applied(self, channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Channels (F, K) -> expression (F, E) and jaw axis-angle (F, 3)."""
        return channels @ self.expression, channels @ self.jaw

    def read(self, expression: np.ndarray, jaw: np.ndarray) -> np.ndarray:
        """The channels (F, K) that best reproduce expressions (F, E) and jaw rotations (F, 3).

        Non-negative least squares over the face, by accelerated projected gradients (Nesterov 1983). The opening of the
        jaw may be negative.
        """
        free = np.array([name not in JAW_SHAPES for name in ARKIT_NAMES])
        matrix = self.wanted[np.ix_(free, free)]
        matrix = matrix + 1e-3 * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
        target = expression @ self.meets[free].T
        step = 1 / np.linalg.eigvalsh(matrix)[-1]
        value = ahead = np.zeros_like(target)
        for index in range(INVERSE_ITERATIONS):
            last, value = value, np.clip(ahead - step * (ahead @ matrix - target), 0, None)
            ahead = value + index / (index + 3) * (value - last)
        channels = np.zeros((len(expression), len(ARKIT_NAMES)))
        channels[:, free] = value
        # Three channels for two degrees of freedom: left and right are opposites, and only one of them is used.
        open_, left, right = (self.jaw[ARKIT_NAMES.index(name)] for name in ("jawOpen", "jawLeft", "jawRight"))
        parts = jaw @ np.linalg.pinv(np.stack((open_, (left - right) / 2)))
        channels[:, ARKIT_NAMES.index("jawOpen")] = parts[:, 0]
        channels[:, ARKIT_NAMES.index("jawLeft")] = np.clip(parts[:, 1], 0, None)
        channels[:, ARKIT_NAMES.index("jawRight")] = np.clip(-parts[:, 1], 0, None)
        return channels


def shapes_of(model: HeadModel, mapping: ArkitMap) -> np.ndarray:
    """(K, N, 3) metres: the displacements of the resting model by each channel at 1."""
    joint = model.joint_regressor[JAW].astype(np.float64) @ model.template
    levers, bound = model.template - joint, model.skinning[:, JAW][:, None]
    rotations = axis_angle_to_matrix(torch.as_tensor(mapping.jaw)).numpy()
    by_jaw = np.stack([bound * (levers @ rotation.T - levers) for rotation in rotations])
    return np.einsum("nce,ke->knc", model.expression_basis, mapping.expression) + by_jaw


def arkit_names_of(model: HeadModel) -> tuple[str, ...]:
    """The ARKit names among the names of the model's own expressions."""
    return tuple(name for name in model.expression_names if name in ARKIT_NAMES)


def arkit_map(model: HeadModel, progress: Progress = SILENT) -> ArkitMap:
    """The map of a head model. For a FLAME file it is derived once, in some seconds, and cached in the user's
    folder.
    """
    if not has_expressions(model):
        raise EffigyError(
            f'The head model "{model.name}" has no expressions, so no expression can be transferred to it.'
        )
    if set(model.expression_names) == set(ARKIT_NAMES):
        return _map_of_named(model)
    return _cached(model.fingerprint) or _derived_map(model, progress)


def _map_of_named(model: HeadModel) -> ArkitMap:
    count = len(ARKIT_NAMES)
    expression, jaw = np.zeros((count, count)), np.zeros((count, 3))
    rotations = jaw_rotations_of_shapes(model)
    for row, name in enumerate(ARKIT_NAMES):
        if name in JAW_SHAPES:
            jaw[row] = rotations[name]
        else:
            expression[row, model.expression_names.index(name)] = 1
    # Every channel is one of the model's own shapes, so the inverse is the same permutation.
    unit = np.eye(count)
    return ArkitMap(expression, jaw, unit, expression.copy(), np.zeros(count), np.zeros(count))


def _derived_map(model: HeadModel, progress: Progress) -> ArkitMap:
    try:
        deltas, weights = transferred_shapes(with_landmarks(model, progress))
    except np.linalg.LinAlgError as error:
        raise EffigyError(
            f'The open head cannot be registered to the head model "{model.name}", so ARKit\'s names do not work on it.'
        ) from error
    root = np.sqrt(weights)[:, None, None]
    wanted = (root * deltas).reshape(-1, len(ARKIT_NAMES))
    basis = (root * model.expression_basis.astype(np.float64)).reshape(-1, model.expression_basis.shape[2])
    gram, meets = basis.T @ basis, wanted.T @ basis
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    expression = np.linalg.solve(gram, meets.T).T
    jaw = np.zeros((len(ARKIT_NAMES), 3))
    moved = np.linalg.norm(deltas, axis=1)
    remaining = np.linalg.norm(deltas - np.einsum("vce,ke->vck", model.expression_basis, expression), axis=1)
    for row, name in enumerate(ARKIT_NAMES):
        if name in JAW_SHAPES:
            expression[row] = 0
            jaw[row], remaining[:, row] = _fit_jaw(model, deltas[..., row], weights)
    there = (weights[:, None] > 0) & (moved > 0.25 * moved.max(0).clip(1e-9))
    rms = [
        1e3 * np.sqrt((np.where(there, values, 0) ** 2).sum(0) / there.sum(0).clip(1)) for values in (moved, remaining)
    ]
    made = ArkitMap(expression, jaw, wanted.T @ wanted, meets, *rms)
    with suppress(EffigyError):
        _store(model.fingerprint, made)
    return made


def with_landmarks(model: HeadModel, progress: Progress = SILENT) -> HeadModel:
    """The model with enough landmarks; they are embedded from renders if its file has too few."""
    if (model.landmark_faces[:SURFACE_COUNT] >= 0).sum() >= EMBEDDING_LANDMARKS:
        return model
    faces, barycentric = embed_landmarks(model, progress=progress)
    return replace(model, landmark_faces=faces, landmark_barycentric=barycentric)


def transferred_shapes(model: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """The open head's shapes on another model: displacements (N, 3, 52) in metres, and each vertex's weight (N,)."""
    source = load_head()
    scale, rotation, shift = align_heads(source, model)
    aligned = lambda points: scale * points @ rotation.T + shift
    shared = (source.landmark_faces >= 0) & (model.landmark_faces >= 0)
    shared[SURFACE_COUNT:], shared[FACE_OVAL] = False, False
    if shared.sum() < MIN_LANDMARKS:
        raise EffigyError(
            f'No face was found on the head model "{model.name}", so ARKit\'s names cannot be used on it.'
        )

    faces, can_open = source.faces[_skin_faces(source)], bool((model.skinning[:, JAW] > 0.5).any())
    opened_source, opened = (_opened(head, MOUTH_OPENING if can_open else 0.0) for head in (source, model))
    theirs = model.faces[_skin_faces(model)]
    # Correspondences are searched with open mouths; displacements are transferred between closed ones.
    opening = _warp_onto(
        aligned(opened_source),
        aligned(_points(source, opened_source, shared)),
        _points(model, opened, shared),
        source,
        opened[theirs],
    )
    resting = _warp_onto(
        aligned(source.template.astype(np.float64)),
        aligned(_points(source, source.template, shared)),
        _points(model, model.template, shared),
        source,
        model.template[theirs].astype(np.float64),
    )
    used = np.unique(faces)
    warped = np.zeros_like(opened_source)
    warped[used] = opening(aligned(opened_source[used]))
    vertices = np.setdiff1d(np.unique(theirs), model.regions["boundary"])
    best, barycentric = closest_on_mesh(opened[vertices], warped[faces])
    corners = faces[best]
    distance = np.linalg.norm((warped[corners] * barycentric[..., None]).sum(1) - opened[vertices], axis=1)

    def at_closest(values: np.ndarray) -> np.ndarray:
        return (values[corners] * barycentric[..., None]).sum(1)

    positions = aligned(at_closest(source.template.astype(np.float64)))
    base = resting(positions)
    deltas = np.zeros((len(model.template), 3, len(ARKIT_NAMES)))
    for column, name in enumerate(ARKIT_NAMES):
        shape = (
            at_closest(source.expression_basis[..., source.expression_names.index(name)].astype(np.float64))
            * scale
            @ rotation.T
        )
        moving = np.linalg.norm(shape, axis=1) > 1e-5
        deltas[vertices[moving], :, column] = resting(positions[moving] + shape[moving]) - base[moving]
    weights = np.zeros(len(model.template))
    weights[vertices] = np.clip(2 - distance / (MAX_DISTANCE / 2), 0, 1)
    weights[np.union1d(model.regions["lids"], model.regions["lips"])] *= FEATURE_WEIGHT
    return deltas * (weights > 0)[:, None, None], weights


def _fit_jaw(model: HeadModel, delta: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The jaw's axis-angle (3,) that best reproduces displacements (N, 3), and the remaining distance of each vertex
    (N,).
    """
    joint = model.joint_regressor[JAW].astype(np.float64) @ model.template
    bound = model.skinning[:, JAW].astype(np.float64)
    levers = model.template - joint
    rows = (weights > 0) & (bound > 0.9)
    if not rows.any():
        return np.zeros(3), np.linalg.norm(delta, axis=1)
    jaw = fit_rotation(levers[rows], (levers + delta)[rows])
    remaining = np.linalg.norm(delta - bound[:, None] * (levers @ jaw.T - levers), axis=1)
    return Rotation.from_matrix(jaw).as_rotvec(), remaining


def _warp_onto(
    vertices: np.ndarray, landmarks: np.ndarray, theirs: np.ndarray, source: HeadModel, triangles: np.ndarray
) -> RBFInterpolator:
    """The warp that takes the aligned source head to another head.

    It takes `landmarks` (L, 3) of the source, whose vertices are `vertices` (N, 3), to the other head's landmarks
    `theirs` (L, 3), and the source's face onto the other head's surface `triangles` (T, 3, 3).
    """
    warp = RBFInterpolator(landmarks, theirs, kernel="linear", degree=1, smoothing=SMOOTHING)
    face = np.setdiff1d(
        source.regions["face"], np.concatenate([source.regions[name] for name in ("lids", "lips", "mouth_inside")])
    )
    face = face[np.linalg.norm(vertices[face][:, None] - landmarks[None], axis=-1).min(1) > 0.01]
    chosen = vertices[face[np.linspace(0, len(face) - 1, min(PROJECTED_POINTS, len(face))).round().astype(int)]]
    for _ in range(PROJECTIONS):
        moved = warp(chosen)
        best, barycentric = closest_on_mesh(moved, triangles)
        projected = (triangles[best] * barycentric[..., None]).sum(1)
        near = np.linalg.norm(projected - moved, axis=1) < MAX_DISTANCE
        warp = RBFInterpolator(
            np.concatenate((landmarks, chosen[near])),
            np.concatenate((theirs, projected[near])),
            kernel="linear",
            degree=1,
            smoothing=SMOOTHING,
        )
    return warp


def _points(model: HeadModel, vertices: np.ndarray, which: np.ndarray) -> np.ndarray:
    corners = vertices[model.faces[model.landmark_faces[which]]]
    return (corners * model.landmark_barycentric[which][..., None]).sum(1).astype(np.float64)


def _opened(model: HeadModel, angle: float) -> np.ndarray:
    head, rotations = Head(model), torch.zeros(1, 5, 3)
    rotations[0, JAW, 0] = angle
    with torch.no_grad():
        posed = head(torch.zeros(1, head.identity_size), torch.zeros(1, head.expression_size), rotations)
    return posed.vertices[0].numpy().astype(np.float64)


def _skin_faces(model: HeadModel) -> np.ndarray:
    """(F,) bool: the triangles outside eyeballs and mouth."""
    other = np.zeros(len(model.template), bool)
    other[np.concatenate((model.regions["eyes"], model.regions["mouth_inside"]))] = True
    return ~np.all(other[model.faces], axis=1) & (model.faces < model.own_count).all(1)


def _file(fingerprint: str) -> Path:
    return user_folder() / "arkit" / f"{fingerprint}.npz"


@lru_cache(maxsize=4)
def _read(fingerprint: str, stamp: int) -> ArkitMap | None:
    # A cache that cannot be read is derived again.
    with suppress(EffigyError), reading(_file(fingerprint), "cache", "delete it"):
        arrays = read_arrays(_file(fingerprint), "cache", "delete it", _MOST_CACHE)
        if int(arrays["schema"]) == SCHEMA:
            return ArkitMap(**{name: arrays[name] for name in ArkitMap.__dataclass_fields__})
    return None


def _cached(fingerprint: str) -> ArkitMap | None:
    path = _file(fingerprint)
    return _read(fingerprint, path.stat().st_mtime_ns) if path.is_file() else None


def _store(fingerprint: str, made: ArkitMap) -> None:
    with write_beside(_file(fingerprint), durable=False) as temporary, open(temporary, "wb") as file:
        np.savez(file, schema=np.int64(SCHEMA), **vars(made))
