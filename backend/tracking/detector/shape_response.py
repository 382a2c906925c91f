"""How the face detector answers to a person: less than it should.

It has learned what faces are like, and draws every face a little nearer to the mean one, in its own way for each of its points.
A solver that takes its points for the face's places finds a face that is too ordinary, and turns and bends the head for what is
missing. `assets/derive/landmark_bias.py` measures on rendered people how much farther or less far than its place on the skin
each point goes with identity, expression and jaw. Added to the bases of the surface that the solver compares with the
points, it makes the solver see as the detector sees; the mesh that is drawn, its gaps and its outline know nothing of it. Where
the detector does not answer at all, the surface does not move either, and what is believed beforehand decides.

It was measured on the open head. Another head's shapes move the landmarks in some way that the open head's shapes can repeat,
more or less; the detector is taken to answer to both alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from ...assets import asset_path
from ...head.formats import load_head
from ...head.model import JAW, LANDMARK_COUNT, HeadModel
from ..model.landmark_surface import MOVERS, LandmarkSurface, landmark_surface

_UNLIKE = 0.0005
"""Metres by which points of another head's shape may lie beside what the open head's shapes make of it."""
_NOD = 9 * MOVERS.index(JAW) + np.array((5, 7))
"""Where a small turn of the jaw about x is found in the flattened R - I: with minus and with plus."""


@dataclass(frozen=True)
class Response:
    """Metres in head space by which the detector's points go beyond their places on the skin, for each unit of a cause."""

    shape: np.ndarray
    """(478, 3, S)"""
    expression: np.ndarray
    """(478, 3, E)"""
    joints: np.ndarray
    """(478, 3, 27): on the flattened R - I of jaw, left eye, right eye."""

    def displacement(self, identity: np.ndarray, expression: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        """(F, 478, 3) metres for an identity (S,), expressions (F, E) and rotations (F, 3, 3, 3) of jaw and eyes."""
        features = (matrices - np.eye(3)).reshape(len(expression), -1)
        # Not -1: a head may have no expressions at all.
        bent = expression @ self.expression.reshape(3 * LANDMARK_COUNT, expression.shape[1]).T
        moved = bent + features @ self.joints.reshape(-1, 27).T
        return (self.shape @ identity) + moved.reshape(-1, LANDMARK_COUNT, 3)


def as_detected(surface: LandmarkSurface, model: HeadModel) -> LandmarkSurface:
    """A surface of all points, not yet of a person, whose points go where the detector takes them. Where the mean face has
    its points, and what jaw and eyes carry along, stays."""
    response, anchor = response_of(model), surface.anchor

    def plus(basis: torch.Tensor, more: np.ndarray) -> torch.Tensor:
        return basis + torch.as_tensor(more, dtype=basis.dtype, device=basis.device)

    return replace(
        surface,
        anchor=replace(
            anchor,
            shape=plus(anchor.shape, response.shape),
            expression=plus(anchor.expression, response.expression),
            corrective=plus(anchor.corrective, response.joints),
        ),
    )


def response_of(model: HeadModel) -> Response:
    """Zero for points that have no place on this head."""
    shape, expression, joints = _measured()
    own, known = landmark_surface(model), _open_surface()
    both = torch.as_tensor(own.valid & known.valid)

    def answered(basis: torch.Tensor, of_open: torch.Tensor, answers: np.ndarray) -> np.ndarray:
        """Answers to other shapes: to the open head's mixture, as a shape of it would be drawn, that is most like each."""
        seen, wanted = of_open[both].double().flatten(0, 1) / _UNLIKE, basis[both].double().flatten(0, 1) / _UNLIKE
        mixture = torch.linalg.solve(
            seen.T @ seen + torch.eye(seen.shape[1], dtype=seen.dtype), seen.T @ wanted
        ).numpy()
        return np.where(both.numpy()[:, None, None], answers @ mixture, 0).astype(np.float32)

    return Response(
        answered(own.anchor.shape, known.anchor.shape, shape),
        answered(own.anchor.expression, known.anchor.expression, expression),
        np.where(both.numpy()[:, None, None], joints, 0).astype(np.float32),
    )


@cache
def _open_surface() -> LandmarkSurface:
    return landmark_surface(load_head())


@cache
def _measured() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers to the open head's identity (478, 3, S) and expression (478, 3, E) and to R - I (478, 3, 27), metres."""
    surface = _open_surface()
    sizes = surface.anchor.shape.shape[-1], surface.anchor.expression.shape[-1]
    with np.load(asset_path("models/landmark_bias.npz"), allow_pickle=False) as archive:
        causes, answers = archive["causes"], archive["millimetres"].astype(np.float64) / 1000
        identities = int(archive["identities"])
    everything = np.zeros((LANDMARK_COUNT, 3, identities + sizes[1] + 1))
    everything[..., causes] = answers
    shape = np.zeros((LANDMARK_COUNT, 3, sizes[0]))
    shape[..., :identities] = everything[..., :identities]
    joints = np.zeros((LANDMARK_COUNT, 3, 27))
    joints[..., _NOD] = everything[..., -1:] * (-0.5, 0.5)
    return shape, everything[..., identities:-1], joints
