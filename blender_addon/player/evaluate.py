"""A pose and a viewpoint → the splats of an avatar in the world: the formulas of `backend.avatar.graph_avatar` for
Gaussian blendshapes, and of `backend.service.posing`, in numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from ..errors import EffigyError
from ..rig.rotations import matrix_to_quaternion, quaternion_rows
from .baked_file import BakedAvatar, BakedBust, Layer
from .conditions import face_conditions, face_of, view_condition, within_views
from .filmed import beyond_limits, distance
from .harmonics import C0, colors_from, taken_at
from .head import EYE_L, EYE_R, JAW, NECK, HeadDeltas, PosedHead, blend_rotations, pose_head

OFFSET_UNIT: Final = np.float32(0.01)
SCALE_CEILING: Final = np.float32(0.02)
"""Metres; both as in `backend.avatar`."""
SOLID_LOGIT: Final = np.float32(3.0)
"""As in `backend.avatar.anchors`."""
FARTHEST: Final = 10.0
"""Metres from the head; nothing that belongs to one is further."""
UNFILMED: Final = 2.5
"""Distance of a face from the filmed ones from which on the artist is told. A face with all sliders at 0 is at 1.9,
because nobody's resting face is the template's; visemes are below 2.5, and sneers and grimaces that nobody made
above."""
ORTHOGRAPHIC_DISTANCE: Final = 100.0
"""Metres from which an orthographic view sees the head, as in `backend.service.posing`."""
_JOINTS: Final = ("neck", "jaw", "eye_L", "eye_R")


@dataclass(frozen=True)
class Player:
    """An avatar that can be evaluated, on a rig's head."""

    baked: BakedAvatar
    deltas: HeadDeltas

    def __post_init__(self) -> None:
        n = self.baked.vertices.shape[1]
        if self.deltas.expression.shape != (len(self.baked.jaw), 3, n) or self.deltas.corrective.shape[1:] != (3, n):
            raise EffigyError(
                "The avatar's head model has other vertices or expressions than the rig: add the avatar without a rig "
                "selected, to get a rig of its own."
            )

    def splats(self, pose: Mapping[str, np.ndarray], view: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the worker's `avatar.splats` answers: means (G, 3), quaternions (G, 4), scales (G, 3), opacities (G,)
        and colors (G, 3), in the world with the axes of head space.

        The Gaussians of the bust come last, if `pose` says where the torso is. `pose` is
        `RigPose.message()`, `view` is `Viewpoint.message()`: a position `view` (3,) or a `direction` (3,).
        """
        return self._evaluated(pose, view)[0]

    def splats_and_harmonics(
        self, pose: Mapping[str, np.ndarray], view: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """`splats`, and the harmonics ((degree + 1)², 3, N) of the N anchors, whose Gaussians come first: a direction
        in the world, with the axes of head space, from the viewpoint to a Gaussian, gives 0.5 + the sum of harmonics
        and their functions (`harmonics.functions`). The other Gaussians look alike from everywhere.
        From sides that the training images do not show, the anchors look as from the nearest that they show.
        """
        answer, own, to_canonical = self._evaluated(pose, view)
        return answer, taken_at(own, lambda seen: within_views(to_canonical @ seen, self.baked.views))

    def _evaluated(
        self, pose: Mapping[str, np.ndarray], view: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """`splats`, the anchors' own harmonics ((degree + 1)², 3, N), and the matrix (3, 3) that rotates the world,
        with the axes of head space, into the canonical head's frame, in which the harmonics take directions.
        """
        baked = self.baked
        expression, rotations = self._without_jaw_shapes(pose)
        scale, turn, place = _parts(np.asarray(pose["root"], np.float64))
        head = pose_head(baked.vertices, baked.joints, baked.skinning, self.deltas, expression, rotations, baked.turns)
        if "direction" in view:
            direction = np.asarray(view["direction"], np.float64)
            eyes = baked.joints[EYE_L : EYE_R + 1].mean(0)
            eye = eyes - ORTHOGRAPHIC_DISTANCE * (turn.T @ (direction / max(float(np.linalg.norm(direction)), 1e-12)))
        else:
            eye = turn.T @ (np.asarray(view["view"], np.float64) - place) / scale
        face = face_of(expression, rotations)
        seen, to_view = view_condition(head, eye, baked.views)
        attributes = self._attributes(face, seen)
        directions = to_view.astype(np.float32) @ (head.vertices - eye[:, None].astype(np.float32))
        directions /= np.maximum(_length(directions), 1e-12)
        gaussians = self._gaussians(head, attributes, directions)
        if baked.bust is not None and "torso" in pose:
            bust = self._bust(baked.bust, head, np.asarray(pose["torso"], np.float64))
            gaussians = tuple(np.concatenate(pair) for pair in zip(gaussians, bust, strict=True))
        means, quaternions, scales, opacities, colors = gaussians
        rows = (scale * turn).astype(np.float32)
        answer = {
            "means": means @ rows.T + place.astype(np.float32),
            "quaternions": quaternions @ _left_product(matrix_to_quaternion(turn)).T,
            "scales": np.float32(scale) * scales,
            "opacities": opacities,
            "colors": colors,
        }
        return answer, self._harmonics(attributes), (turn @ head.turns[NECK]).T

    def _harmonics(self, attributes: np.ndarray) -> np.ndarray:
        """((degree + 1)², 3, N) of the anchors, in the frame in which directions of view are taken."""
        count = (self.baked.sh_degree + 1) ** 2
        return attributes[11 : 11 + 3 * count].reshape(count, 3, -1)

    def distance(self, pose: Mapping[str, np.ndarray]) -> float:
        """How far the face of a pose is from those that the avatar's clip has filmed: 1 is the furthest of these."""
        return distance(face_of(*self._without_jaw_shapes(pose)), self.baked.filmed)

    def is_near(self) -> bool:
        """Whether all numbers of the Gaussians are finite, and none is further than `FARTHEST`, with the jaw open."""
        rest = {name: np.zeros(3) for name in _JOINTS} | {
            "expression": np.zeros(len(self.baked.jaw)),
            "root": np.eye(4),
        }
        with np.errstate(all="ignore"):
            splats = self.splats(rest | {"jaw": np.array((0.2, 0, 0))}, {"view": np.array((0, 0, 0.7))})
        finite = all(bool(np.isfinite(part).all()) for part in splats.values())
        return finite and float(np.abs(splats["means"]).max()) < FARTHEST

    def is_unfilmed(self, pose: Mapping[str, np.ndarray]) -> bool:
        return self.distance(pose) > UNFILMED

    def _bust(self, bust: BakedBust, head: PosedHead, torso: np.ndarray) -> tuple[np.ndarray, ...]:
        """As `_gaussians`: the bust's in head space. `torso` (4, 4) is the torso's motion from rest there."""
        turns = np.stack((np.eye(3), head.turns[NECK], torso[:3, :3]))
        shifts = np.stack((np.zeros(3), head.joints[NECK] - head.turns[NECK] @ self.baked.joints[NECK], torso[:3, 3]))
        places = np.einsum("jab,mb->mja", turns.astype(np.float32), bust.means) + shifts.astype(np.float32)
        own = _product(blend_rotations(turns, bust.weights.T), _unit(bust.quaternions.T)).T
        means = np.einsum("mj,mja->ma", bust.weights, places)
        return means, own.astype(np.float32), bust.scales, bust.opacities, bust.colors

    @cached_property
    def vertices_of_gaussians(self) -> np.ndarray:
        """(G,) the vertex to which each Gaussian belongs: of the anchors, of those that each spawns, and of the bust,
        whose Gaussians belong to the nearest one. Without the bust there are as many fewer at the end.
        """
        baked = self.baked
        anchors = np.arange(baked.vertices.shape[1])
        means = np.zeros((0, 3), np.float32) if baked.bust is None else baked.bust.means
        # Row by row, because all distances at once would take a hundred megabytes.
        nearest = [((baked.vertices - mean[:, None]) ** 2).sum(0).argmin() for mean in means]
        return np.concatenate((anchors, np.repeat(anchors, baked.spawned), np.array(nearest, np.int64)))

    def _without_jaw_shapes(self, pose: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (E,) and rotations (5, 3) of a pose. The shapes that open the jaw become a rotation of its joint
        (see `backend.head.jaw`).
        """
        expression, rotations = np.array(pose["expression"], np.float64), np.zeros((5, 3))
        if expression.shape != (len(self.baked.jaw),):
            raise EffigyError("The avatar has other expressions than the rig: add the avatar again.")
        for joint, name in enumerate(_JOINTS, 1):
            rotations[joint] = pose[name]
        rotations[JAW] += expression @ self.baked.jaw
        expression[self.baked.jaw.any(1)] = 0
        return expression, rotations

    def _attributes(self, face: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """A face (E + 9,) and view condition (3,) -> (O, N): mean + sum of the shapes by their weights, and the rig's
        materials where the mouth shows what the clip never did.
        """
        baked, beyond = self.baked, beyond_limits(face, self.baked.performed)
        if baked.regions is None:
            mixed = self._mixed(face_conditions(face, baked.performed, baked.filmed), seen)
            attributes = baked.mean + mixed @ baked.features
        else:
            attributes = baked.mean.copy()
            own = baked.regions.faces_for(np.clip(face, *baked.performed).astype(np.float32))
            for near, vertices, features in zip(own, baked.regions.vertices, self._features, strict=True):
                attributes[:, vertices] += self._mixed(near, seen) @ features
        if (most := float((beyond * baked.reveals).max())) > 0:
            shown = np.flatnonzero(baked.materials[3])
            share = np.float32(most**2 * (3 - 2 * most)) * baked.materials[3, shown]
            attributes[:, shown] += share * (self._of_the_rig(shown) - attributes[:, shown])
        return attributes

    @cached_property
    def _features(self) -> list[np.ndarray]:
        """(F, n) of each region's n vertices, by how far they belong to it."""
        regions = self.baked.regions
        return [
            self.baked.features[:, own] * share[own]
            for own, share in zip(regions.vertices, regions.shares, strict=True)
        ]

    def _mixed(self, face: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """A face (E + 9,) as the network gets it and the view condition (3,) -> (O, F)."""
        weights = _mix(self.baked.mix, np.concatenate((face, seen)).astype(np.float32))
        return np.tensordot(np.clip(weights, *self.baked.weight_limits), self.baked.shapes, 1)

    def _of_the_rig(self, anchors: np.ndarray) -> np.ndarray:
        """(O, A) of some anchors: solid, of the rig's materials, on the surface, without spawned Gaussians."""
        baked = self.baked
        attributes = np.zeros((len(baked.mean), len(anchors)), np.float32)
        attributes[6] = 1
        attributes[10] = SOLID_LOGIT
        attributes[11:14] = (baked.materials[:3, anchors] - np.float32(0.5)) / np.float32(C0)
        for index in range(baked.spawned):
            attributes[11 * index + 7 - 11 * baked.spawned] = 1
        return attributes

    def _gaussians(self, head: PosedHead, attributes: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, ...]:
        """Means, quaternions, scales, opacities and colours in head space, the N anchors first, then k of each."""
        baked, n, k = self.baked, self.baked.vertices.shape[1], self.baked.spawned
        count = n * (1 + k)
        sizes = {"means": 3, "quaternions": 4, "scales": 3, "opacities": 1, "colors": 3}
        made = {name: np.empty((count, size), np.float32) for name, size in sizes.items()}

        def put(name: str, index: int | None, rows: np.ndarray) -> None:
            """Stores rows (C, N) of the anchors, or of the spawned Gaussian `index` of each."""
            target = made[name][:n] if index is None else made[name][n:].reshape(n, k, -1)[:, index]
            target[...] = rows.T

        offsets = OFFSET_UNIT * attributes[:3]
        scales = np.minimum(baked.base_scale * np.exp(attributes[3:6]), SCALE_CEILING)
        rotation = quaternion_rows(head.quaternions)
        put("means", None, head.vertices + _rotated(rotation, offsets))
        put("quaternions", None, _product(head.quaternions, _unit(attributes[6:10])))
        put("scales", None, scales)
        put("opacities", None, _sigmoid(attributes[10:11]))
        put("colors", None, colors_from(directions, self._harmonics(attributes)))
        for index, own in enumerate(attributes[11 + 3 * (baked.sh_degree + 1) ** 2 :].reshape(k, 11, n)):
            put("opacities", index, np.maximum(np.tanh(own[:1]), 0))
            put("colors", index, _sigmoid(own[1:4]))
            put("scales", index, scales * (2 * _sigmoid(own[4:7])))
            put("quaternions", index, _product(head.quaternions, _unit(own[7:11])))
            put("means", index, head.vertices + _rotated(rotation, offsets + baked.positions[index] * scales))
        made["opacities"] = made["opacities"][:, 0]
        return tuple(made.values())


def _parts(root: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation (3, 3) and translation (3,) of a similarity (4, 4)."""
    scale = float(np.cbrt(np.linalg.det(root[:3, :3])))
    if not scale > 1e-6:
        raise EffigyError(
            "The avatar's root is mirrored or has no size, which Gaussians cannot follow: apply its scale."
        )
    return scale, root[:3, :3] / scale, root[:3, 3]


def _mix(layers: tuple[Layer, ...], conditions: np.ndarray) -> np.ndarray:
    """Conditions (C,) -> weights (K,)."""
    x = conditions
    for layer in layers[:-1]:
        x = layer.weight @ x + layer.bias
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return layers[-1].weight @ x + layers[-1].bias


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.tanh(0.5 * x) + np.float32(0.5)


def _length(rows: np.ndarray) -> np.ndarray:
    """(C, N) -> (N,)."""
    return np.sqrt(np.einsum("cn,cn->n", rows, rows))


def _unit(quaternions: np.ndarray) -> np.ndarray:
    """(4, N) of unit length."""
    return quaternions / np.maximum(_length(quaternions), 1e-12)


def _rotated(rotation: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(3, 3, N) and (3, N) -> (3, N)."""
    return rotation[:, 0] * points[0] + rotation[:, 1] * points[1] + rotation[:, 2] * points[2]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Quaternions (4, N) and (4, N): the rotation `b` followed by `a`."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return np.array(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        )
    )


def _left_product(quaternion: np.ndarray) -> np.ndarray:
    """(4, 4) matrix that multiplies a quaternion by this one (4,) from the left."""
    w, x, y, z = quaternion
    return np.array(((w, -x, -y, -z), (x, w, -z, y), (y, z, w, -x), (z, -y, x, w)), np.float32)
