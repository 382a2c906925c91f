"""How far the detector's landmarks follow a person's shape and expression: less far than they should.

The detector was trained on what faces usually look like and draws every face a little nearer to the mean face, each
landmark in its own way. A solver that takes the landmarks for points on the skin finds a face that is too average, and
rotates and bends the head to make up for the rest. `assets/derive/landmark_bias.py` measures on rendered people how
much farther or less far than its point on the skin each landmark moves with identity, expression and jaw. These
responses are added to the bases of the surface that the solver compares with the landmarks, so that the solver predicts
what the detector reports. The mesh that is drawn, its gaps and its silhouette stay unchanged. Where the detector does
not respond at all, the detected surface does not move either, and the priors decide.

The responses were measured on the open head. Another head's shape is expressed as the most similar mixture of the open
head's shapes, and the detector is taken to respond to both alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from ...assets import asset_path
from ...head.formats import load_head
from ...head.model import JAW, LANDMARK_COUNT, HeadModel
from ..model.landmark_surface import MOVING_JOINTS, LandmarkSurface, landmark_surface

_MIXTURE_SIGMA = 0.0005
"""Metres by which points of another head's shape may lie beside the mixture of the open head's shapes."""
_JAW_OPENING = 9 * MOVING_JOINTS.index(JAW) + np.array((5, 7))
"""The entries of the flattened R - I in which a small jaw rotation about x appears: with minus and with plus."""


@dataclass(frozen=True)
class ShapeResponse:
    """Metres in head space by which landmarks move beyond their points on the skin, per unit of each parameter."""

    shape: np.ndarray
    """(478, 3, S)"""
    expression: np.ndarray
    """(478, 3, E)"""
    joints: np.ndarray
    """(478, 3, 27): by the flattened R - I of jaw, left eye and right eye."""

    def displacement(self, identity: np.ndarray, expression: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        """(F, 478, 3) metres for an identity (S,), expressions (F, E) and rotations (F, 3, 3, 3) of jaw and eyes."""
        features = (matrices - np.eye(3)).reshape(len(expression), -1)
        # Not -1: a head may have no expressions at all.
        by_expression = expression @ self.expression.reshape(3 * LANDMARK_COUNT, expression.shape[1]).T
        moved = by_expression + features @ self.joints.reshape(-1, 27).T
        return (self.shape @ identity) + moved.reshape(-1, LANDMARK_COUNT, 3)


def detected_surface(surface: LandmarkSurface, model: HeadModel) -> LandmarkSurface:
    """The surface of all landmarks, before `of_person`, with its points where the detector reports them.

    The points of the mean face, and the levers of jaw and eyes, stay unchanged.
    """
    response, position = shape_response(model), surface.position

    def plus(basis: torch.Tensor, more: np.ndarray) -> torch.Tensor:
        return basis + torch.as_tensor(more, dtype=basis.dtype, device=basis.device)

    return replace(
        surface,
        position=replace(
            position,
            shape=plus(position.shape, response.shape),
            expression=plus(position.expression, response.expression),
            corrective=plus(position.corrective, response.joints),
        ),
    )


def shape_response(model: HeadModel) -> ShapeResponse:
    """The detector's response to a head model's parameters; zero for points that have no position on this head."""
    shape, expression, joints = _measured_responses()
    own, open_head = landmark_surface(model), _open_head_surface()
    both = torch.as_tensor(own.valid & open_head.valid)

    def transferred(basis: torch.Tensor, open_basis: torch.Tensor, responses: np.ndarray) -> np.ndarray:
        """The responses to each column of `basis`, as the most similar mixture of the open head's columns."""
        source = open_basis[both].double().flatten(0, 1) / _MIXTURE_SIGMA
        target = basis[both].double().flatten(0, 1) / _MIXTURE_SIGMA
        gram = source.T @ source + torch.eye(source.shape[1], dtype=source.dtype)
        mixture = torch.linalg.solve(gram, source.T @ target).numpy()
        return np.where(both.numpy()[:, None, None], responses @ mixture, 0).astype(np.float32)

    return ShapeResponse(
        transferred(own.position.shape, open_head.position.shape, shape),
        transferred(own.position.expression, open_head.position.expression, expression),
        np.where(both.numpy()[:, None, None], joints, 0).astype(np.float32),
    )


@cache
def _open_head_surface() -> LandmarkSurface:
    return landmark_surface(load_head())


@cache
def _measured_responses() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses to the open head's identity (478, 3, S) and expression (478, 3, E) and to R - I (478, 3, 27),
    metres.
    """
    surface = _open_head_surface()
    sizes = surface.position.shape.shape[-1], surface.position.expression.shape[-1]
    with np.load(asset_path("models/landmark_bias.npz"), allow_pickle=False) as archive:
        causes, responses = archive["causes"], archive["millimetres"].astype(np.float64) / 1000
        identities = int(archive["identities"])
    everything = np.zeros((LANDMARK_COUNT, 3, identities + sizes[1] + 1))
    everything[..., causes] = responses
    shape = np.zeros((LANDMARK_COUNT, 3, sizes[0]))
    shape[..., :identities] = everything[..., :identities]
    joints = np.zeros((LANDMARK_COUNT, 3, 27))
    joints[..., _JAW_OPENING] = everything[..., -1:] * (-0.5, 0.5)
    return shape, everything[..., identities:-1], joints
