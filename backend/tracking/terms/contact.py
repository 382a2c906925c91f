"""Closed is closed: lids and lips whose edges are seen to meet also meet on the mesh, and lips do not pass through each
other.

Landmarks cannot say it. A millimetre between two edges is a pixel or two, no more than a point's error, and the points
of the pairs lie beside the edges. But whether a gap is shut stands out in the clip's own distribution of gaps: an eye
that is open most of the time is seen with a tenth of its gap during a blink. So each gap is measured by the person's
own open and shut one, and the mesh's gap, along the head's up axis and in millimetres, is drawn to contact where it is
seen shut.

What lies beyond contact cannot be seen. A lid that is pulled farther than shut is left alone; lips that cross are
pushed apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...correspondence.landmark_sets import LID_PAIRS, LIP_PAIRS
from ...head.rotations import axis_angle_to_matrix
from ..model.frame_state import FrameState, hidden_eyes, joint_derivatives, joint_vectors
from ..model.landmark_surface import LandmarkSurface, pose_points
from .landmarks import Evidence

SIGMA = 0.0003
"""Metres: how exactly a gap that is seen shut is shut."""
_PARTS = (LID_PAIRS["left"][:3], LID_PAIRS["right"][:3], LIP_PAIRS[:5])
"""The middle pairs, which open the widest."""
_LIPS = 2
_LIDS_OPEN_AT = 0.75
"""Quantile of a clip's gaps between lids that is the open eye's: blinks and glances down are rare."""
_LIDS_SHUT, _LIDS_AJAR = 0.20, 0.36
"""Shares of the open gap: shut for certain up to the first, open from the second on."""
_LID_OVERLAP = 0.001
"""Metres by which a shut upper lid's points lie below the lower lid's."""
_LIPS_SHUT, _LIPS_AJAR = 0.0009, 0.0020
"""Metres of gap, the same for lips."""
_LOWEST_AT = 0.02
"""Quantile of a clip's gaps that is the shut one's, if it is shut at all: the detector seldom sees nothing."""


@dataclass(frozen=True)
class Contact:
    """F frames of three gaps: left lids, right lids, lips."""

    surface: LandmarkSurface
    """Of the person, at the pairs' points; L of them."""
    mix: Tensor
    """(3, L): a gap is so much of each point's height."""
    rest: Tensor
    """(3,) metres of gap on the mesh at contact; between lips that of the mouth at rest, for their points lie beside
    the rim."""
    shut: Tensor
    """(F, 3) in [0, 1]: how surely the gap was seen shut."""

    def __getitem__(self, index: slice | Tensor) -> Contact:
        return replace(self, shut=self.shut[index])

    def openings(self, state: FrameState) -> Tensor:
        """(F, 3) metres: 0 at contact."""
        points = pose_points(self.surface, state.face[:, :-7], axis_angle_to_matrix(joint_vectors(state.face)))[0]
        return points[..., 1] @ self.mix.T - self.rest

    def energy(self, state: FrameState, evidence: Evidence | None = None) -> Tensor:
        """(F,); millimetres on the mesh, whatever the camera saw."""
        opening = self.openings(state)
        return 0.5 * (self._trust(opening) * (opening / SIGMA) ** 2).sum(1)

    def normal(self, state: FrameState, evidence: Evidence | None = None) -> tuple[Tensor, Tensor]:
        """Gauss-Newton's gradient (F, P) and Hessian (F, P, P); a pose opens nothing."""
        opening, slopes = self._slopes(state)
        trust = self._trust(opening)
        gradient = torch.einsum("fk,fkp->fp", trust * opening / SIGMA**2, slopes)
        scaled = slopes * (trust.sqrt() / SIGMA).unsqueeze(-1)
        return pad(gradient, (0, 6)), pad(scaled.transpose(1, 2) @ scaled, (0, 6, 0, 6))

    def _trust(self, opening: Tensor) -> Tensor:
        """(F, 3): an opening counts where it was seen shut, a crossing counts between lips and always."""
        crossing = torch.zeros_like(opening)
        crossing[:, _LIPS] = 1
        return torch.where(opening > 0, self.shut, crossing)

    def _slopes(self, state: FrameState) -> tuple[Tensor, Tensor]:
        """Openings (F, 3) and their derivatives (F, 3, E + 7)."""
        vectors = joint_vectors(state.face)
        matrices = axis_angle_to_matrix(vectors)
        points, arms, turns = pose_points(self.surface, state.face[:, :-7], matrices)
        expression = self.surface.anchor.expression[:, 1] + torch.einsum(
            "flc,lce->fle", turns[:, :, 1], self.surface.arm.expression
        )
        joints = joint_derivatives(self.surface, vectors, matrices, arms, turns)[:, :, 1]
        return points[..., 1] @ self.mix.T - self.rest, self.mix @ torch.cat((expression, joints), -1)


def see_contact(
    landmarks: np.ndarray, surface: LandmarkSurface, state: FrameState, focal: Tensor, known: slice
) -> Contact | None:
    """From a capture's landmarks (F, 478, 3), NaN without a face, for heads that stand as `state` says. `surface` is of
    the person and of any points; the person's open and shut gaps are taken from the frames `known`. None for a head
    that has no places for the pairs."""
    points, index = np.unique(np.concatenate(_PARTS), return_inverse=True)
    row = {point: place for place, point in enumerate(surface.points) if surface.valid[place]}
    if not all(point in row for point in points):
        return None
    pairs = surface.of_points(np.array([row[point] for point in points]))
    device = state.face.device
    mix = torch.zeros(len(_PARTS), len(points), device=device)
    for part, ends in enumerate(np.split(index.reshape(-1, 2), np.cumsum([len(part) for part in _PARTS])[:-1])):
        mix[part, ends[:, 0]] = 1 / len(ends)
        mix[part, ends[:, 1]] = -1 / len(ends)
    rest = mix @ pairs.anchor.rest[:, 1]
    rest[:_LIPS] = -_LID_OVERLAP
    scale = (state.translation[:, 2] / focal).cpu().numpy()
    shut = np.stack(
        [_shut(part == _LIPS, seen_gap(landmarks, ends) * scale, known) for part, ends in enumerate(_PARTS)], 1
    )
    # The eye that is turned away is taken to blink with the other.
    shut[:, :_LIPS] = np.maximum(shut[:, :_LIPS], hidden_eyes(state).cpu().numpy() * shut[:, 1::-1])
    return Contact(pairs, mix, rest, torch.as_tensor(shut, dtype=torch.float32, device=device))


def seen_gap(landmarks: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(F,) pixels: the median distance between pairs (K, 2) of the detector's points (F, 478, 3)."""
    return np.median(np.linalg.norm(landmarks[:, pairs[:, 0], :2] - landmarks[:, pairs[:, 1], :2], axis=-1), axis=1)


def _shut(lips: bool, gaps: np.ndarray, known: slice) -> np.ndarray:
    """(F,) in [0, 1] from metres of gap (F,), NaN where nothing was seen."""
    seen = gaps[known][np.isfinite(gaps[known])]
    if not len(seen):
        return np.zeros(len(gaps))
    lowest = np.quantile(seen, _LOWEST_AT)
    unit = 1.0 if lips else max(np.quantile(seen, _LIDS_OPEN_AT), 1e-6)
    shut, ajar = (_LIPS_SHUT, _LIPS_AJAR) if lips else (_LIDS_SHUT, _LIDS_AJAR)
    # Where the clip's smallest gaps are not zero, but too small to be open, they are this person's shut ones.
    shift = float(np.clip(lowest / unit - shut / 2, 0, shut)) if lowest / unit < ajar else 0.0
    return np.nan_to_num((ajar + shift - gaps / unit) / (ajar - shut)).clip(0, 1)
