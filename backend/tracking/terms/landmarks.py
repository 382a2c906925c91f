"""The landmark term: distances between the detector's landmarks and the posed head's surface points in the image.

Residuals are in standard deviations, which are stated in pixels at 512. There are two kinds: the landmarks themselves,
and the differences of landmark pairs across eyelids and lips (`landmark_sets.PAIRS`), in which errors common to both
landmarks cancel. The detector's bias for the current head pose is subtracted, and landmarks on the side of the head
that faces away get little weight, because the detector only guesses them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ...correspondence.landmark_sets import JAW_LINE, PAIRS, point_weights
from ...head.model import LANDMARK_COUNT
from ..detector.pose_bias import bias_coefficients, bias_in_pixels
from ..model.camera import Camera
from ..model.frame_state import FrameState
from ..model.landmark_surface import LandmarkSurface
from ..model.prediction import linearise, predict
from .term import NormalEquations, Term, robust

POINT_SIGMA = 3.5
"""Pixels at 512. The detector errs by about 1.5, but its 478 errors are far from independent: neighbours err together,
so each counts for a fraction of an observation."""
PAIR_SIGMA = 1.5
"""Pixels at 512, of the difference of a pair's errors."""
JAW_LINE_WEIGHT = 0.5
"""Weight of the jaw line's landmarks in a frontal view."""
JAW_LINE_FADE = 0.3
"""Radians of head rotation at which the jaw line's weight has fallen to 1/e."""
INITIAL_ROBUST_SCALE = 5.0
"""s of `term.robust` until `reweighted` sets it."""
_CHUNK = 48
"""Frames whose Jacobians are held at a time: about 12 MB, which fits the processor's cache and does not grow with the
clip."""


@dataclass(frozen=True)
class LandmarkTerm(Term):
    """L landmarks in F frames."""

    per_frame: ClassVar = ("detected", "unbiased", "weights", "across")

    generic_surface: LandmarkSurface
    """The surface points of the mean person as the detector reports them (`shape_response.detected_surface`)."""
    surface: LandmarkSurface
    """The same for the current person."""
    view_directions: Tensor
    """(L, 3): see `LandmarkSurface.view_directions`."""
    detected: Tensor
    """(F, L, 2) pixels, as the detector gave them; zero where it found no face."""
    unbiased: Tensor
    """(F, L, 2) the same with the detector's bias for the current head poses subtracted (`reweighted`)."""
    bias: Tensor
    """(FEATURES, L, 2) metres: see `detector.pose_bias`."""
    weights: Tensor
    """(F, L); zero where no face was found."""
    across: Tensor
    """(F, C, 2) unit normals of the jaw line in the image. The detector's landmarks slide along the jaw line, so only
    the distance along its normal is compared."""
    jaw_line: Tensor
    """(C,) indices of the jaw line's landmarks among the L."""
    pairs: Tensor
    """(2, K) indices of the upper and the lower landmark of each pair among the L."""
    robust_scale: float = INITIAL_ROBUST_SCALE
    """s of `term.robust`."""

    @classmethod
    def from_detections(cls, landmarks: np.ndarray, surface: LandmarkSurface, camera: Camera) -> LandmarkTerm:
        """From a capture's landmarks (F, 478, 3) in pixels, NaN without a face. `surface` is the detected surface of
        the mean person (`shape_response.detected_surface`); its points are the landmarks that are used.
        """
        device = camera.pivot.device
        chosen = landmarks[:, surface.points, :2]
        weights = point_weights()[surface.points] * surface.valid * np.isfinite(chosen).all(-1)
        row = np.full(LANDMARK_COUNT, -1)
        row[surface.points] = np.arange(len(surface.points))
        outline = np.nan_to_num(landmarks[:, JAW_LINE, :2])
        along = np.gradient(outline, axis=1)
        along /= np.linalg.norm(along, axis=-1, keepdims=True).clip(1e-6)
        present = row[JAW_LINE] >= 0
        pairs = row[PAIRS]
        detected = torch.as_tensor(np.nan_to_num(chosen), device=device)
        return cls(
            generic_surface=surface,
            surface=surface,
            view_directions=surface.view_directions(),
            detected=detected,
            unbiased=detected,
            bias=bias_coefficients(surface.points, device),
            weights=torch.as_tensor(weights, dtype=torch.float32, device=device),
            across=torch.as_tensor(np.stack((-along[..., 1], along[..., 0]), -1)[:, present], device=device),
            jaw_line=torch.as_tensor(row[JAW_LINE][present], device=device),
            pairs=torch.as_tensor(pairs[(pairs >= 0).all(1)].T.copy(), device=device),
        )

    @property
    def face_found(self) -> Tensor:
        """(F,) bool: whether the detector found a face in a frame."""
        return self.weights.sum(1) > 0

    def scaled(self, factor: float) -> LandmarkTerm:
        """The term with all weights multiplied by a factor."""
        return replace(self, weights=factor * self.weights)

    def with_person_bias(self, bias: Tensor) -> LandmarkTerm:
        """The term with a person's own bias (FEATURES, L, 2) added to the detector's bias for everybody."""
        return replace(self, bias=self.bias + bias)

    def of_person(self, identity: Tensor, patch_offsets: Tensor | None = None) -> LandmarkTerm:
        return replace(self, surface=self.generic_surface.of_person(identity))

    def reweighted(self, state: FrameState, camera: Camera, robust_scale: float) -> Self:
        origin = state.translation - (state.rotation @ camera.pivot)
        return replace(
            self,
            unbiased=self.detected - bias_in_pixels(self.bias, state.rotation, origin, camera.focal),
            weights=self.weights * view_weights(self.view_directions, self.jaw_line, state),
            robust_scale=robust_scale,
        )

    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        energies = []
        for start in range(0, len(state), 4 * _CHUNK):
            part = slice(start, start + 4 * _CHUNK)
            pixels = predict(self.surface, state[part], camera)
            residual, weight = self[part]._residuals(pixels, camera.pixel)
            energies.append(robust(residual, weight, self.robust_scale)[0])
        return torch.cat(energies)

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        parts: list[NormalEquations] = []
        for start in range(0, len(state), _CHUNK):
            part = slice(start, start + _CHUNK)
            chunk = self[part]
            found = linearise(self.surface, state[part], camera, shared=shared)
            residual, weight = chunk._residuals(found.pixels, camera.pixel)
            energy, weight = robust(residual, weight, self.robust_scale)
            root = weight.sqrt()
            rows = chunk._whitened_rows(found.jacobian, root, camera.pixel)
            shared_rows = None
            if found.shared is not None:
                shared_rows = chunk._whitened_rows(found.shared.jacobian, root, camera.pixel)
            whitened = (residual * root.unsqueeze(-1)).flatten(1)
            parts.append(NormalEquations.of_rows(rows, whitened, energy, shared_rows))
        return NormalEquations.concatenated(parts)

    def _residuals(self, pixels: Tensor, pixel: float) -> tuple[Tensor, Tensor]:
        """Residuals (F, L + K, 2) in standard deviations, of the landmarks and then of the pairs, and their weights
        (F, L + K), for projected points (F, L, 2). `pixel` is `Camera.pixel`.
        """
        error = self._project_onto_normals((pixels - self.unbiased).unsqueeze(-1)).squeeze(-1)
        upper, lower = self.pairs
        pairs = (error[:, upper] - error[:, lower]) / (PAIR_SIGMA * pixel)
        pair_weights = torch.minimum(self.weights[:, upper], self.weights[:, lower]) / 2
        return torch.cat((error / (POINT_SIGMA * pixel), pairs), 1), torch.cat((self.weights, pair_weights), 1)

    def _whitened_rows(self, jacobian: Tensor, root: Tensor, pixel: float) -> Tensor:
        """Rows (F, 2 (L + K), P) in standard deviations, multiplied by the square roots of the weights, `root` (F, L +
        K), from the Jacobian (F, L, 2, P) of the projected points, which is changed in place.
        """
        count = jacobian.shape[1]
        upper, lower = self.pairs
        jacobian = self._project_onto_normals(jacobian)
        points = jacobian * (root[:, :count, None, None] / (POINT_SIGMA * pixel))
        pairs = jacobian[:, upper] - jacobian[:, lower]
        pairs *= root[:, count:, None, None] / (PAIR_SIGMA * pixel)
        return torch.cat((points, pairs), 1).flatten(1, 2)

    def _project_onto_normals(self, rows: Tensor) -> Tensor:
        """Errors or Jacobians (F, L, 2, D) with those of the jaw line projected onto the jaw line's normal n, n n' row.
        Changes `rows` in place.
        """
        normal = self.across.unsqueeze(-1)
        line = rows[:, self.jaw_line]
        rows[:, self.jaw_line] = normal * (normal * line).sum(2, keepdim=True)
        return rows


def view_weights(view_directions: Tensor, jaw_line: Tensor, state: FrameState) -> Tensor:
    """Weights of the landmarks for the current head poses, (F, L).

    A landmark loses weight as its direction from the centre of the skull (`view_directions`, (L, 3) unit vectors)
    rotates away from the camera. These directions replace surface normals, because lips and eyelids have normals in all
    directions although they are visible. The detector's jaw line (indices `jaw_line`) follows the outline of the face
    in the image, which is the same line on the skin only in a frontal view, so its weight fades as the head rotates.
    """
    to_camera = -torch.nn.functional.normalize(state.translation, dim=-1)
    cosine = ((view_directions @ state.rotation.transpose(1, 2)) * to_camera[:, None]).sum(-1)
    weights = ((cosine - 0.02) / 0.3).clamp(0.03, 1)
    front = (state.rotation[:, :, 2] * to_camera).sum(-1, keepdim=True).clamp(-1, 1)
    weights[:, jaw_line] = JAW_LINE_WEIGHT * torch.exp(-((torch.acos(front) / JAW_LINE_FADE) ** 2))
    return weights
