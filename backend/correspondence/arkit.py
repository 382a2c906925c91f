"""ARKit's names on any head: what each of the 52 shapes is in a model's own expressions and jaw.

The open head has the 52 shapes themselves. A FLAME head has statistical components instead, so the open head is
registered to it: landmarks that both have give a smooth warp W of space (biharmonic, `r` as the kernel), every vertex
of the other skin finds its place p on the warped open head, and a shape that moves p by d moves the vertex by
W(p + d) - W(p). A warp of places, not of displacements, keeps contacts: a lid that meets the other lid on one head does
so on the other. Then the model's own components are fitted to these displacements by least squares; what they cannot do
is told as a residual.

jawOpen, jawLeft and jawRight become rotations of the jaw joint, as in every track (`priors`).
"""

from __future__ import annotations

import zipfile
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator

from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..head.formats import has_expressions, load_head
from ..head.forward import Head
from ..head.jaw import JAW_SHAPES, jaw_rotations_of_shapes
from ..head.model import JAW, HeadModel
from ..head.regions import align_heads
from ..head.registry import user_folder
from ..head.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from ..progress import SILENT, Progress
from ..storage import write_beside
from .landmark_embedding import FACE_OVAL, SURFACE_COUNT, embed_landmarks, nearest_on_triangles

ARKIT_NAMES: Final = SCORE_NAMES
SCHEMA: Final = 1
ENOUGH_LANDMARKS: Final = 80
"""FLAME's own embedding has 105, around brows, eyes, nose and mouth; cheeks and chin are drawn onto the surface."""
FEWEST_LANDMARKS: Final = 20
DRAWN: Final = 350
"""Further places of the warped head that are drawn onto the other's surface, `DRAWS` times."""
DRAWS: Final = 2
OPENING: Final = 0.16
"""Radians by which both mouths are opened while places are looked for: on closed lips an upper place lies at a lower
one."""
FARTHEST: Final = 0.012
"""Metres between a vertex and its place on the warped head, from which on the two have nothing to do with each
other."""
SMOOTHING: Final = 1e-3
"""Of the warp, metres: it may miss the landmarks by the millimetre or so to which their places are known."""
TIGHTNESS: Final = 3e-4
"""Of the mean square of a component: keeps the fit from using components that cancel out."""
EMPHASIS: Final = 3.0
"""Lids and lips count so much more than the rest of the face."""
INVERSE_ROUNDS: Final = 300


@dataclass(frozen=True)
class ArkitMap:
    """K = 52 shapes on a model of E expressions."""

    expression: np.ndarray
    """(K, E): coefficients of the model for a shape at 1."""
    jaw: np.ndarray
    """(K, 3): axis-angle of the jaw joint for a shape at 1; zero but for the jaw's three."""
    wanted: np.ndarray
    """(K, K): inner products of the shapes' displacements on this head, square metres."""
    meets: np.ndarray
    """(K, E): inner products of the shapes with the model's components."""
    size_mm: np.ndarray
    """(K,): how far a shape moves what it moves, root mean square."""
    error_mm: np.ndarray
    """(K,): how far the model stays off there."""

    def applied(self, channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Channels (F, K) -> expression (F, E) and jaw axis-angle (F, 3)."""
        return channels @ self.expression, channels @ self.jaw

    def read(self, expression: np.ndarray, jaw: np.ndarray) -> np.ndarray:
        """The channels (F, K) that look most like expression (F, E) and jaw (F, 3): least squares over the face with no
        channel below zero, by accelerated projected gradients (Nesterov 1983). The jaw's three may be negative.
        """
        free = np.array([name not in JAW_SHAPES for name in ARKIT_NAMES])
        matrix = self.wanted[np.ix_(free, free)]
        matrix = matrix + 1e-3 * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
        aim = expression @ self.meets[free].T
        step = 1 / np.linalg.eigvalsh(matrix)[-1]
        value = ahead = np.zeros_like(aim)
        for index in range(INVERSE_ROUNDS):
            last, value = value, np.clip(ahead - step * (ahead @ matrix - aim), 0, None)
            ahead = value + index / (index + 3) * (value - last)
        channels = np.zeros((len(expression), len(ARKIT_NAMES)))
        channels[:, free] = value
        # Three sliders for two ways: left and right are each other's negative, and only one of them is used.
        open_, left, right = (self.jaw[ARKIT_NAMES.index(name)] for name in ("jawOpen", "jawLeft", "jawRight"))
        parts = jaw @ np.linalg.pinv(np.stack((open_, (left - right) / 2)))
        channels[:, ARKIT_NAMES.index("jawOpen")] = parts[:, 0]
        channels[:, ARKIT_NAMES.index("jawLeft")] = np.clip(parts[:, 1], 0, None)
        channels[:, ARKIT_NAMES.index("jawRight")] = np.clip(-parts[:, 1], 0, None)
        return channels


def shapes_of(model: HeadModel, told: ArkitMap) -> np.ndarray:
    """(K, N, 3): what each channel at 1 moves on the model at rest, as its own components and its jaw do it."""
    joint = model.joint_regressor[JAW].astype(np.float64) @ model.template
    arms, bound = model.template - joint, model.skinning[:, JAW][:, None]
    turns = axis_angle_to_matrix(torch.as_tensor(told.jaw)).numpy()
    swung = np.stack([bound * (arms @ turn.T - arms) for turn in turns])
    return np.einsum("nce,ke->knc", model.expression_basis, told.expression) + swung


def arkit_names_of(model: HeadModel) -> tuple[str, ...]:
    """The ARKit names that the model's own expressions bear."""
    return tuple(name for name in model.expression_names if name in ARKIT_NAMES)


def arkit_map(model: HeadModel, progress: Progress = SILENT) -> ArkitMap:
    """The map of a head model. A FLAME file's is derived once, in some seconds, and kept in the user's folder."""
    if not has_expressions(model):
        raise EffigyError(f'The head model "{model.name}" has no expressions, so that nothing can be put on its face.')
    if set(model.expression_names) == set(ARKIT_NAMES):
        return _of_named(model)
    return _kept(model.fingerprint) or _derived(model, progress)


def _of_named(model: HeadModel) -> ArkitMap:
    count = len(ARKIT_NAMES)
    expression, jaw = np.zeros((count, count)), np.zeros((count, 3))
    turns = jaw_rotations_of_shapes(model)
    for row, name in enumerate(ARKIT_NAMES):
        if name in JAW_SHAPES:
            jaw[row] = turns[name]
        else:
            expression[row, model.expression_names.index(name)] = 1
    # A channel is its own best likeness: the inverse is the same permutation.
    unit = np.eye(count)
    return ArkitMap(expression, jaw, unit, expression.copy(), np.zeros(count), np.zeros(count))


def _derived(model: HeadModel, progress: Progress) -> ArkitMap:
    try:
        deltas, weights = transferred_shapes(with_landmarks(model, progress))
    except np.linalg.LinAlgError as error:
        raise EffigyError(
            f'The open head cannot be laid over the head model "{model.name}", so it keeps its own names only.'
        ) from error
    root = np.sqrt(weights)[:, None, None]
    wanted = (root * deltas).reshape(-1, len(ARKIT_NAMES))
    basis = (root * model.expression_basis.astype(np.float64)).reshape(-1, model.expression_basis.shape[2])
    gram, meets = basis.T @ basis, wanted.T @ basis
    gram += TIGHTNESS * np.trace(gram) / len(gram) * np.eye(len(gram))
    expression = np.linalg.solve(gram, meets.T).T
    jaw = np.zeros((len(ARKIT_NAMES), 3))
    moved = np.linalg.norm(deltas, axis=1)
    left_over = np.linalg.norm(deltas - np.einsum("vce,ke->vck", model.expression_basis, expression), axis=1)
    for row, name in enumerate(ARKIT_NAMES):
        if name in JAW_SHAPES:
            expression[row] = 0
            jaw[row], left_over[:, row] = _turn_of(model, deltas[..., row], weights)
    there = (weights[:, None] > 0) & (moved > 0.25 * moved.max(0).clip(1e-9))
    rms = [
        1e3 * np.sqrt((np.where(there, values, 0) ** 2).sum(0) / there.sum(0).clip(1)) for values in (moved, left_over)
    ]
    made = ArkitMap(expression, jaw, wanted.T @ wanted, meets, *rms)
    with suppress(EffigyError):
        _keep(model.fingerprint, made)
    return made


def with_landmarks(model: HeadModel, progress: Progress = SILENT) -> HeadModel:
    """The model with enough of the detector's points; they are looked for where its file does not tell them."""
    if (model.landmark_faces[:SURFACE_COUNT] >= 0).sum() >= ENOUGH_LANDMARKS:
        return model
    faces, barycentric = embed_landmarks(model, progress=progress)
    return replace(model, landmark_faces=faces, landmark_barycentric=barycentric)


def transferred_shapes(model: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """What the open head's shapes move on a model: displacements (N, 3, 52), metres, and how much each vertex counts
    (N,).
    """
    source = load_head()
    scale, rotation, shift = align_heads(source, model)
    laid = lambda points: scale * points @ rotation.T + shift
    shared = (source.landmark_faces >= 0) & (model.landmark_faces >= 0)
    shared[SURFACE_COUNT:], shared[FACE_OVAL] = False, False
    if shared.sum() < FEWEST_LANDMARKS:
        raise EffigyError(f'No face was found on the head model "{model.name}", so ARKit\'s names cannot be put on it.')

    faces, can_open = source.faces[_skin_faces(source)], bool((model.skinning[:, JAW] > 0.5).any())
    opened_source, opened = (_opened(head, OPENING if can_open else 0.0) for head in (source, model))
    theirs = model.faces[_skin_faces(model)]
    # Where a vertex belongs is looked for with open mouths, what it does is told from closed ones.
    opening = _warp_onto(
        laid(opened_source),
        laid(_points(source, opened_source, shared)),
        _points(model, opened, shared),
        source,
        opened[theirs],
    )
    resting = _warp_onto(
        laid(source.template.astype(np.float64)),
        laid(_points(source, source.template, shared)),
        _points(model, model.template, shared),
        source,
        model.template[theirs].astype(np.float64),
    )
    used = np.unique(faces)
    warped = np.zeros_like(opened_source)
    warped[used] = opening(laid(opened_source[used]))
    vertices = np.setdiff1d(np.unique(theirs), model.regions["boundary"])
    best, barycentric = nearest_on_triangles(opened[vertices], warped[faces])
    corners = faces[best]
    distance = np.linalg.norm((warped[corners] * barycentric[..., None]).sum(1) - opened[vertices], axis=1)

    def there(values: np.ndarray) -> np.ndarray:
        return (values[corners] * barycentric[..., None]).sum(1)

    places = laid(there(source.template.astype(np.float64)))
    base = resting(places)
    deltas = np.zeros((len(model.template), 3, len(ARKIT_NAMES)))
    for column, name in enumerate(ARKIT_NAMES):
        shape = (
            there(source.expression_basis[..., source.expression_names.index(name)].astype(np.float64))
            * scale
            @ rotation.T
        )
        moving = np.linalg.norm(shape, axis=1) > 1e-5
        deltas[vertices[moving], :, column] = resting(places[moving] + shape[moving]) - base[moving]
    weights = np.zeros(len(model.template))
    weights[vertices] = np.clip(2 - distance / (FARTHEST / 2), 0, 1)
    weights[np.union1d(model.regions["lids"], model.regions["lips"])] *= EMPHASIS
    return deltas * (weights > 0)[:, None, None], weights


def _turn_of(model: HeadModel, delta: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The jaw's axis-angle (3,) that moves what is bound to it most like displacements (N, 3), and what is left over
    (N,).
    """
    joint = model.joint_regressor[JAW].astype(np.float64) @ model.template
    bound = model.skinning[:, JAW].astype(np.float64)
    arms = model.template - joint
    rows = (weights > 0) & (bound > 0.9)
    if not rows.any():
        return np.zeros(3), np.linalg.norm(delta, axis=1)
    u, _, vt = np.linalg.svd((arms + delta)[rows].T @ arms[rows])
    turn = u @ np.diag((1, 1, np.sign(np.linalg.det(u @ vt)))) @ vt
    left_over = np.linalg.norm(delta - bound[:, None] * (arms @ turn.T - arms), axis=1)
    return matrix_to_axis_angle(torch.as_tensor(turn)[None])[0].numpy(), left_over


def _warp_onto(
    vertices: np.ndarray, landmarks: np.ndarray, theirs: np.ndarray, source: HeadModel, triangles: np.ndarray
) -> RBFInterpolator:
    """The warp of the laid head's `vertices` (N, 3) that takes its landmarks (L, 3) to `theirs` (L, 3), and its face
    onto the other's surface (T, 3, 3).
    """
    warp = RBFInterpolator(landmarks, theirs, kernel="linear", degree=1, smoothing=SMOOTHING)
    face = np.setdiff1d(
        source.regions["face"], np.concatenate([source.regions[name] for name in ("lids", "lips", "mouth_inside")])
    )
    face = face[np.linalg.norm(vertices[face][:, None] - landmarks[None], axis=-1).min(1) > 0.01]
    chosen = vertices[face[np.linspace(0, len(face) - 1, min(DRAWN, len(face))).round().astype(int)]]
    for _ in range(DRAWS):
        moved = warp(chosen)
        best, barycentric = nearest_on_triangles(moved, triangles)
        onto = (triangles[best] * barycentric[..., None]).sum(1)
        near = np.linalg.norm(onto - moved, axis=1) < FARTHEST
        warp = RBFInterpolator(
            np.concatenate((landmarks, chosen[near])),
            np.concatenate((theirs, onto[near])),
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
    """(F,) bool: no eyeballs, nothing inside the mouth."""
    other = np.zeros(len(model.template), bool)
    other[np.concatenate((model.regions["eyes"], model.regions["mouth_inside"]))] = True
    return ~np.all(other[model.faces], axis=1)


def _file(fingerprint: str) -> Path:
    return user_folder() / "arkit" / f"{fingerprint}.npz"


@lru_cache(maxsize=4)
def _read(fingerprint: str, stamp: int) -> ArkitMap | None:
    try:
        with np.load(_file(fingerprint), allow_pickle=False) as archive:
            if int(archive["schema"]) == SCHEMA:
                return ArkitMap(**{name: archive[name] for name in ArkitMap.__dataclass_fields__})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    # Derived again: it is kept only because it takes seconds.
    return None


def _kept(fingerprint: str) -> ArkitMap | None:
    path = _file(fingerprint)
    return _read(fingerprint, path.stat().st_mtime_ns) if path.is_file() else None


def _keep(fingerprint: str, made: ArkitMap) -> None:
    with write_beside(_file(fingerprint)) as temporary, open(temporary, "wb") as file:
        np.savez(file, schema=np.int64(SCHEMA), **vars(made))
