"""What the fit of a person takes and gives: frames of every clip, and what all of them share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.camera import Camera
from ..model.frame_state import Bounds, FrameState
from ..terms.landmarks import LandmarkTerm
from ..terms.priors import PriorTerm
from ..terms.skin_patches import SkinPatchTerm

FOCAL_SIGMA = 0.3
"""Standard deviation of the log focal length around the initial guess: webcams and phones have fields of view of 80 to
50 degrees, portrait lenses 25."""


@dataclass(frozen=True)
class ClipFrames:
    """The frames of one clip that the person is fitted to, with their terms and initial parameters."""

    landmarks: LandmarkTerm
    prior: PriorTerm
    bounds: Bounds
    camera: Camera
    """With the initial guess of the focal length."""
    state: FrameState
    skin: SkinPatchTerm | None = None
    """Present in all clips, or in none."""
    focal_known: bool = False
    """Whether the camera's focal length is no guess and stays."""


@dataclass(frozen=True)
class Person:
    """The shared parameters of all frames of a person, with C clips and K skin patches."""

    identity: Tensor
    """(S,)"""
    focals: Tensor
    """(C,) pixels: the focal length of every clip."""
    patch_offsets: Tensor
    """(K, 3) metres: offsets of the skin patches from their positions on the head model, in the coordinates of
    `Skin.bases`; K = 0 without skin patches."""
    covariance: Tensor
    """(S + C, S + C) float64: covariance of identity and log focal lengths, with everything else marginalised."""

    def focal_sigma(self, clip: int) -> float:
        """Standard deviation of a clip's log focal length; near FOCAL_SIGMA means that the clip does not determine
        it.
        """
        return min(float(self.covariance[len(self.identity) + clip, len(self.identity) + clip].sqrt()), FOCAL_SIGMA)

    def covariance_of(self, clip: int) -> Tensor:
        """The covariance (S + 1, S + 1) of identity and one clip's log focal length."""
        size = len(self.identity)
        own = torch.cat((torch.arange(size), torch.tensor([size + clip]))).to(self.covariance.device)
        return self.covariance[own[:, None], own]
