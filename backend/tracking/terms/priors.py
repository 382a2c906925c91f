"""What is believed of a face before its landmarks are looked at: one table over a frame's parameters.

A frame's parameters are, in this order, expression (E), jaw (3), eyes (4: left x, left y, right x, right y; an eye does
not roll), head rotation (3, a left tangent) and head translation (3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ...correspondence.arkit import ARKIT_NAMES, arkit_map
from ...errors import EffigyError
from ...head.jaw import JAW_SHAPES, TRACKING_LIMITS, jaw_rotations_of_shapes
from ...head.model import HeadModel

EXTRA: Final = 13
"""Parameters of a frame besides expression."""

_DEGREE = np.pi / 180
_SCORE_SIGMA: Final = {"eyeBlink": 0.2, "eyeLook": 0.15, "cheek": 0.15, "tongueOut": 0.02, "noseSneer": 0.2}
_SCORE_SIGMA_OTHERS: Final = 0.25
"""Standard deviation of a coefficient around the detector's score. Cheeks, tongue and the lids' following of the gaze
leave little trace in the landmarks, so the scores are believed more there."""

_ACCELERATION: Final = {
    "eyeBlink": 0.4,
    "eyeLook": 0.1,
    "eyeSquint": 0.1,
    "eyeWide": 0.1,
    "mouth": 0.12,
    "brow": 0.06,
    "cheek": 0.04,
    "noseSneer": 0.04,
    "tongueOut": 0.02,
}
"""Standard deviation of a coefficient's second difference between frames at 30 frames a second."""

LEAST_SIGMA: Final = 0.2
"""Of a nameless component."""

_HIGHEST: Final = {"brow": 1.6}
"""Brows rise higher than the shapes' makers thought, and a person's neutral brows may lie lower than identity can tell."""


@dataclass(frozen=True)
class Priors:
    """Over a frame's P = E + 13 parameters; float32 arrays."""

    mean: np.ndarray
    """(F, E + 7): expression, jaw, eyes. Pose has no mean."""
    precision: np.ndarray
    """(P,) one over the variance around the mean; zero for the pose."""
    acceleration: np.ndarray
    """(P,) one over the variance of the second difference."""
    lower: np.ndarray
    """(E + 7,)"""
    upper: np.ndarray
    """(E + 7,)"""
    fixed: np.ndarray
    """(P,) bool: held at the mean (the jaw's shapes, see above)."""
    vergence: tuple[float, float]
    """One over the variance of left minus right eye, about x (vertical gaze) and y (horizontal)."""


def has_named_shapes(model: HeadModel, score_names: tuple[str, ...]) -> bool:
    return tuple(model.expression_names) == tuple(score_names)


def priors_for(model: HeadModel, scores: np.ndarray, score_names: tuple[str, ...], fps: float) -> Priors:
    """The table for one clip. `scores` (F, 52) in [0, 1], NaN where there was no face."""
    frames, size = len(scores), model.expression_basis.shape[2]
    scores = np.nan_to_num(scores).astype(np.float64)
    mean = np.zeros((frames, size + 7))
    named = has_named_shapes(model, score_names)

    if named:
        mean[:, :size] = scores
        sigma = np.array([_first_match(_SCORE_SIGMA, name, _SCORE_SIGMA_OTHERS) for name in model.expression_names])
        swing = np.array([_first_match(_ACCELERATION, name, 0.1) for name in model.expression_names])
        low, high = np.zeros(size), np.array([_first_match(_HIGHEST, name, 1.0) for name in model.expression_names])
    else:
        low, high = np.full(size, float(model.expression_range[0])), np.full(size, float(model.expression_range[1]))
        mean[:, :size], sigma = _by_map(model, scores, score_names)
        swing = np.full(size, 0.3)
    fixed = np.zeros(size + EXTRA, bool)
    for index, name in enumerate(model.expression_names):
        if name in JAW_SHAPES:
            mean[:, index], fixed[index] = 0, True

    jaw = jaw_rotations_of_shapes(model)
    for name in JAW_SHAPES:
        mean[:, size : size + 3] += scores[:, [score_names.index(name)]] * jaw[name]

    sigma = np.concatenate((sigma, np.array((6, 3, 2)) * _DEGREE, np.array((12, 15, 12, 15)) * _DEGREE))
    # A second difference shrinks with the square of the frame rate; faces are not filmed outside these bounds. The pose's are
    # the firmest that a lively face bears: with half of them, and half of the face's, rendered people tremble by 0.51 px in
    # place of 0.61, but woman_frontal's landmarks are 1.58 px off in place of 1.48, and her avatar loses 0.5 dB. Heads that are
    # quicker are let go (`solver.QUICK`).
    pace = float(np.clip(30 / fps, 0.25, 2.5)) ** 2
    swing = pace * np.concatenate(
        (
            swing,
            np.array((1.5, 0.5, 0.2)) * _DEGREE,
            np.full(4, 5 * _DEGREE),
            np.full(3, 0.2 * _DEGREE),
            np.array((0.00024, 0.00024, 0.0008)),
        )
    )
    gaze = np.tile(TRACKING_LIMITS.gaze, 2)
    lower = np.concatenate((low, TRACKING_LIMITS.jaw_lower, -gaze))
    upper = np.concatenate((high, TRACKING_LIMITS.jaw_upper, gaze))
    return Priors(
        mean=np.clip(mean, lower, upper).astype(np.float32),
        precision=np.concatenate((sigma**-2, np.zeros(6))).astype(np.float32),
        acceleration=(swing**-2).astype(np.float32),
        lower=lower.astype(np.float32),
        upper=upper.astype(np.float32),
        fixed=fixed,
        vergence=((1.5 * _DEGREE) ** -2, (4 * _DEGREE) ** -2),
    )


def _by_map(model: HeadModel, scores: np.ndarray, score_names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What the scores say of components without names, (F, E), and how far they are believed, (E,).

    On the open head with its shapes mixed into nameless ones the rendered people's faces are off by 1.5 mm so (root mean
    square of what expression moves), and by 2.0 mm if only the size of the coefficients is believed, which in FLAME are
    standard deviations of its training scans.
    """
    size = model.expression_basis.shape[2]
    try:
        told = arkit_map(model)
    except EffigyError:
        return np.zeros((len(scores), size)), np.ones(size)
    sigma = np.array([_first_match(_SCORE_SIGMA, name, _SCORE_SIGMA_OTHERS) for name in ARKIT_NAMES])
    expression, _ = told.applied(scores[:, [score_names.index(name) for name in ARKIT_NAMES]])
    # Where no shape uses a component, nothing is known of it but that it is small.
    return expression, np.clip(np.sqrt((told.expression**2).T @ sigma**2), LEAST_SIGMA, 1.0)


def _first_match(table: dict[str, float], name: str, otherwise: float) -> float:
    return next((value for prefix, value in table.items() if name.startswith(prefix)), otherwise)
