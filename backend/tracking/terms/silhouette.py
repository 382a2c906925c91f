"""The silhouette term: the posed hair shell's rim lies on the silhouette that was detected in the image.

Landmarks lie on the front of the head, so they show its pitch and yaw by small differences only, while a degree of
pitch moves the crown by five pixels at 512. For every ray, the shell's point that reaches farthest across the
silhouette is the rim; its distance from the detected silhouette, across it, is the residual. Outliers lose their weight
as landmarks do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..model.camera import Camera
from ..model.frame_state import FrameState
from ..model.hair_shell import HairShell
from ..model.prediction import cross_matrix
from ..observe.silhouette_detection import RAY_ANGLE, RAYS, Silhouette
from .term import ROBUST_SCALE, NormalEquations, Term

SILHOUETTE_SIGMA = 4.0
"""Pixels at 512, of one ray. Mattes are off by one or two, but neighbouring rays together."""
_RIM_WINDOW = 0.09
"""Radians to either side of a ray in which the shell's rim is searched."""
_CHUNK = 32


@dataclass(frozen=True)
class SilhouetteTerm(Term):
    """F frames, K rays."""

    per_frame: ClassVar = ("silhouette", "rim_index", "rim")

    silhouette: Silhouette
    shell: HairShell
    rim_index: Tensor
    """(F, K) int64: the shell's point that is the rim at each ray, from `reweighted`."""
    rim: Tensor
    """(F, K, 3) metres from the pivot: those points."""

    @classmethod
    def unmatched(cls, silhouette: Silhouette, shell: HairShell) -> SilhouetteTerm:
        """Before the rim is known; `reweighted` finds it for the current poses."""
        index = torch.zeros_like(silhouette.weights, dtype=torch.long)
        return cls(silhouette, shell, index, shell.points[index])

    def with_shell(self, shell: HairShell) -> SilhouetteTerm:
        return SilhouetteTerm.unmatched(self.silhouette, shell)

    def reweighted(self, state: FrameState, camera: Camera, robust_scale: float) -> Self:
        index = find_rim(self.silhouette, self.shell, state, camera)
        return replace(self, rim_index=index, rim=self.shell.points[index])

    def residual(self, state: FrameState, camera: Camera) -> tuple[Tensor, Tensor]:
        """(F, K) in standard deviations, and the rim in camera space (F, K, 3)."""
        rotated = self.rim @ state.rotation.transpose(1, 2)
        in_camera = rotated + state.translation[:, None]
        error = ((camera.project(in_camera) - self.silhouette.points) * self.silhouette.normals).sum(-1)
        return error / (SILHOUETTE_SIGMA * camera.pixel), in_camera

    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        squared = self.residual(state, camera)[0] ** 2
        limit = ROBUST_SCALE**2
        return 0.5 * (self.silhouette.weights * squared * limit / (limit + squared)).sum(1)

    def derivatives(self, state: FrameState, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
        """Residual (F, K), its robust weight (F, K), and its derivative by the rim's camera-space point (F, K, 3)."""
        residual, in_camera = self.residual(state, camera)
        limit = ROBUST_SCALE**2
        weight = self.silhouette.weights * (limit / (limit + residual**2)) ** 2
        slope = (self.silhouette.normals.unsqueeze(-2) @ camera.projection_jacobian(in_camera)).squeeze(-2)
        return residual, weight, slope / (SILHOUETTE_SIGMA * camera.pixel)

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        residual, weight, slope = self.derivatives(state, camera)
        rotated = self.rim @ state.rotation.transpose(1, 2)
        by_rotation = (slope.unsqueeze(-2) @ -cross_matrix(rotated)).squeeze(-2)
        jacobian = torch.cat((by_rotation, slope), -1)
        weighted = jacobian * weight.unsqueeze(-1)
        gradient = (weighted * residual.unsqueeze(-1)).sum(1)
        hessian = weighted.transpose(1, 2) @ jacobian
        # Only the head pose moves the shell.
        face = state.layout.face_size
        return NormalEquations(self.energy(state, camera), pad(gradient, (face, 0)), pad(hessian, (face, 0, face, 0)))


def find_rim(silhouette: Silhouette, shell: HairShell, state: FrameState, camera: Camera) -> Tensor:
    """(F, K) int64: for every ray the point of the posed shell that reaches farthest across the silhouette, near the
    ray.

    A point is near few rays, so each point is compared with those alone.
    """
    near = int(np.ceil(_RIM_WINDOW / RAY_ANGLE))
    points = shell.points
    found = []
    for start in range(0, len(state), _CHUNK):
        part = slice(start, start + _CHUNK)
        detected = silhouette[part]
        in_camera = points @ state.rotation[part].transpose(1, 2) + state.translation[part, None]
        from_centre = camera.project(in_camera) - detected.centres[:, None]
        angle = torch.atan2(from_centre[..., 1], from_centre[..., 0])
        nearest = (angle / RAY_ANGLE).round().long()
        offsets = torch.arange(-near, near + 1, device=angle.device)
        ray = nearest.unsqueeze(-1) + offsets
        close = (angle.unsqueeze(-1) - ray * RAY_ANGLE).abs() < _RIM_WINDOW
        ray = (ray % RAYS).flatten(1)
        normals = detected.normals.gather(1, ray.unsqueeze(-1).expand(-1, -1, 2)).unflatten(1, close.shape[1:])
        reach = (from_centre.unsqueeze(-2) * normals).sum(-1).masked_fill(~close, -torch.inf).flatten(1)
        farthest = torch.full_like(detected.weights, -torch.inf).scatter_reduce(1, ray, reach, "amax")
        wins = (reach == farthest.gather(1, ray)) & close.flatten(1)
        owner = torch.arange(len(points), device=ray.device).repeat_interleave(len(offsets)).expand_as(ray)
        none = torch.zeros_like(detected.weights, dtype=torch.long)
        found.append(none.scatter_reduce(1, ray, torch.where(wins, owner, 0), "amax"))
    return torch.cat(found)
