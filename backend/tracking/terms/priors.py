"""The prior term: plausible values of a face's parameters, independent of its landmarks.

The parameters are ordered as in `model.parameter_layout`. The expression's mean are the detector's blendshape scores.
In a track the jaw joint carries the mouth's opening, and the shapes jawOpen, jawLeft and jawRight stay at zero;
`head.jaw` says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np
import torch
from torch import Tensor

from ...correspondence.arkit import ARKIT_NAMES, arkit_map
from ...errors import EffigyError
from ...head.jaw import JAW_SHAPES, TRACKING_LIMITS, jaw_rotations_of_shapes
from ...head.model import HeadModel
from ..model.camera import Camera
from ..model.frame_state import Bounds, FrameState
from ..model.parameter_layout import ParameterLayout
from .term import NormalEquations, Term

_DEGREE = np.pi / 180

_SCORE_SIGMA: Final = {"eyeBlink": 0.2, "eyeLook": 0.15, "cheek": 0.15, "tongueOut": 0.02, "noseSneer": 0.2}
_SCORE_SIGMA_OTHERS: Final = 0.25
"""Standard deviation of a coefficient around the detector's score. Cheeks, tongue and the eyelids' following of the
gaze hardly show in the landmarks, so their scores get a firmer prior."""

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

MIN_UNNAMED_SIGMA: Final = 0.2
"""The least standard deviation of an expression component without an ARKit name."""

_UPPER_BOUND: Final = {"brow": 1.6}
"""Brows rise higher than the shapes' authors thought, and a person's neutral brows may lie lower than identity
shows."""

_JAW_SIGMA = np.array((6, 3, 2)) * _DEGREE
_EYES_SIGMA = np.array((12, 15, 12, 15)) * _DEGREE
_JOINTS_LOWER = np.concatenate((TRACKING_LIMITS.jaw_lower, -TRACKING_LIMITS.gaze, -TRACKING_LIMITS.gaze))
_JOINTS_UPPER = np.concatenate((TRACKING_LIMITS.jaw_upper, TRACKING_LIMITS.gaze, TRACKING_LIMITS.gaze))
"""Bounds of jaw (3) and eyes (4)."""
_JOINTS_ACCELERATION = np.array((1.5, 0.5, 0.2, 5, 5, 5, 5)) * _DEGREE
_POSE_ACCELERATION = np.concatenate((np.full(3, 0.2 * _DEGREE), (0.00024, 0.00024, 0.0008)))
"""Radians and metres. These are the firmest that a lively face allows. With half of them, and half of the face's,
rendered people jitter by 0.51 px instead of 0.61, but woman_frontal's landmarks are 1.58 px off instead of 1.48, and
her avatar loses 0.5 dB. For heads that move faster the prior yields (`smoothness.CAUCHY_SCALE`)."""
_VERGENCE_SIGMA = np.array((1.5, 4)) * _DEGREE
"""Standard deviation of the left eye's angle minus the right eye's: vertical, horizontal."""


@dataclass(frozen=True)
class Priors:
    """The prior of a clip over a frame's P = E + 13 parameters; float32 arrays."""

    mean: np.ndarray
    """(F, E + 7): expression, jaw, eyes. The head pose has no mean."""
    precision: np.ndarray
    """(E + 7,): one over the variance around the mean."""
    acceleration_precision: np.ndarray
    """(P,): one over the variance of the second difference."""
    lower: np.ndarray
    """(E + 7,)"""
    upper: np.ndarray
    """(E + 7,)"""
    fixed: np.ndarray
    """(P,) bool: held at the mean (the jaw's shapes)."""
    vergence_precision: np.ndarray
    """(2,): one over the variance of left minus right eye, about x (vertical gaze) and y (horizontal gaze)."""

    def term(self, device: torch.device | str = "cpu") -> PriorTerm:
        tensors = (self.mean, self.precision, self.vergence_precision)
        return PriorTerm(*(torch.as_tensor(value, device=device) for value in tensors))

    def bounds(self, device: torch.device | str = "cpu") -> Bounds:
        tensors = (self.lower, self.upper, self.fixed)
        return Bounds(*(torch.as_tensor(value, device=device) for value in tensors))


@dataclass(frozen=True)
class PriorTerm(Term):
    """A Gaussian prior on expression, jaw and eyes of F frames, and on the eyes looking the same way."""

    per_frame: ClassVar = ("mean",)

    mean: Tensor
    """(F, E + 7)"""
    precision: Tensor
    """(E + 7,)"""
    vergence_precision: Tensor
    """(2,)"""

    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        offset = state.face - self.mean
        vergence = self._vergence(state)
        return 0.5 * (self.precision * offset**2).sum(1) + 0.5 * (self.vergence_precision * vergence**2).sum(1)

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        layout = state.layout
        gradient = torch.zeros(len(state), layout.size, dtype=self.mean.dtype, device=self.mean.device)
        gradient[:, layout.face] = self.precision * (state.face - self.mean)
        pull = self.vergence_precision * self._vergence(state)
        gradient[:, layout.left_eye] += pull
        gradient[:, layout.right_eye] -= pull
        return NormalEquations(self.energy(state, camera), gradient, self.hessian().expand(len(state), -1, -1))

    def hessian(self) -> Tensor:
        """(P, P): the same for every frame."""
        layout = ParameterLayout.of_face(self.precision)
        precision = self.precision.new_zeros(layout.size)
        precision[layout.face] = self.precision
        result = torch.diag(precision)
        for axis in range(2):
            left, right = layout.left_eye.start + axis, layout.right_eye.start + axis
            for first, second, sign in ((left, left, 1), (right, right, 1), (left, right, -1), (right, left, -1)):
                result[first, second] += sign * self.vergence_precision[axis]
        return result

    def _vergence(self, state: FrameState) -> Tensor:
        """(F, 2): the left eye's angles minus the right eye's."""
        return state.face[:, state.layout.left_eye] - state.face[:, state.layout.right_eye]

    @staticmethod
    def concatenated(parts: list[PriorTerm]) -> PriorTerm:
        """The prior of the frames of all parts, which have the head model and so all but the mean in common."""
        return replace(parts[0], mean=torch.cat([part.mean for part in parts]))


def has_named_shapes(model: HeadModel, score_names: tuple[str, ...]) -> bool:
    """Whether the head model's expressions are the detector's blendshapes themselves."""
    return tuple(model.expression_names) == tuple(score_names)


def priors_for(model: HeadModel, scores: np.ndarray, score_names: tuple[str, ...], fps: float) -> Priors:
    """The prior of one clip from the detector's scores (F, 52) in [0, 1], NaN where there was no face."""
    frames, size = len(scores), model.expression_basis.shape[2]
    layout = ParameterLayout(size)
    scores = np.nan_to_num(scores).astype(np.float64)
    mean = np.zeros((frames, layout.face_size))

    if has_named_shapes(model, score_names):
        mean[:, layout.expression] = scores
        sigma = np.array([_first_match(_SCORE_SIGMA, name, _SCORE_SIGMA_OTHERS) for name in model.expression_names])
        acceleration = np.array([_first_match(_ACCELERATION, name, 0.1) for name in model.expression_names])
        low, high = np.zeros(size), np.array([_first_match(_UPPER_BOUND, name, 1.0) for name in model.expression_names])
    else:
        low, high = np.full(size, float(model.expression_range[0])), np.full(size, float(model.expression_range[1]))
        mean[:, layout.expression], sigma = _unnamed_expression(model, scores, score_names)
        acceleration = np.full(size, 0.3)
    fixed = np.zeros(layout.size, bool)
    for index, name in enumerate(model.expression_names):
        if name in JAW_SHAPES:
            mean[:, index], fixed[index] = 0, True

    jaw = jaw_rotations_of_shapes(model)
    for name in JAW_SHAPES:
        mean[:, layout.jaw] += scores[:, [score_names.index(name)]] * jaw[name]

    sigma = np.concatenate((sigma, _JAW_SIGMA, _EYES_SIGMA))
    # A second difference shrinks with the square of the frame rate; faces are not filmed outside these bounds.
    pace = float(np.clip(30 / fps, 0.25, 2.5)) ** 2
    acceleration = pace * np.concatenate((acceleration, _JOINTS_ACCELERATION, _POSE_ACCELERATION))
    lower, upper = np.concatenate((low, _JOINTS_LOWER)), np.concatenate((high, _JOINTS_UPPER))
    return Priors(
        mean=np.clip(mean, lower, upper).astype(np.float32),
        precision=(sigma**-2).astype(np.float32),
        acceleration_precision=(acceleration**-2).astype(np.float32),
        lower=lower.astype(np.float32),
        upper=upper.astype(np.float32),
        fixed=fixed,
        vergence_precision=(_VERGENCE_SIGMA**-2).astype(np.float32),
    )


def _unnamed_expression(
    model: HeadModel, scores: np.ndarray, score_names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The mean (F, E) and standard deviation (E,) of expression components without names, from the scores.

    On the open head with its shapes mixed into unnamed ones, rendered people's faces are off by 1.5 mm with this prior
    (root mean square of what expression moves), and by 2.0 mm with a prior on the size of the coefficients alone, which
    in FLAME are in standard deviations of its training scans.
    """
    size = model.expression_basis.shape[2]
    try:
        mapping = arkit_map(model)
    except EffigyError:
        return np.zeros((len(scores), size)), np.ones(size)
    sigma = np.array([_first_match(_SCORE_SIGMA, name, _SCORE_SIGMA_OTHERS) for name in ARKIT_NAMES])
    expression, _ = mapping.applied(scores[:, [score_names.index(name) for name in ARKIT_NAMES]])
    # Of a component that no ARKit shape uses, only the size is known: it is small.
    return expression, np.clip(np.sqrt((mapping.expression**2).T @ sigma**2), MIN_UNNAMED_SIGMA, 1.0)


def _first_match(table: dict[str, float], name: str, otherwise: float) -> float:
    return next((value for prefix, value in table.items() if name.startswith(prefix)), otherwise)
