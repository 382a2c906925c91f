"""The silhouette term: the outline of the posed hair shell lies on the detected silhouette.

Landmarks lie on the front of the head, where pitch and yaw move them little; a degree of pitch moves the crown by five
pixels at 512. The detected silhouette is sampled on K rays, image directions from the projected centre of the skull
(`observe.silhouette_detection`). On each ray, the correspondence is the *rim point*: of the shell's points near the
ray, the one that lies farthest along the silhouette's outward normal. The residual is the signed distance of the
projected rim point from the silhouette along that normal (point to line). Outliers are weighted down by the function of
`term.robust`.
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
from .term import ROBUST_SCALE, NormalEquations, Term, robust

SILHOUETTE_SIGMA = 4.0
"""Pixels at 512: standard deviation of one ray's residual. Mattes err by one or two pixels, but the errors of
neighbouring rays are correlated, so each ray counts for less."""
_RIM_WINDOW = 0.09
"""Radians to either side of a ray in which its rim point is searched."""
_CHUNK = 32
"""Frames whose rim points are searched at a time, so that memory does not grow with the clip."""


@dataclass(frozen=True)
class SilhouetteTerm(Term):
    """The silhouette energy of F frames on K rays. It is used with a fixed person, so it has no shared blocks."""

    per_frame: ClassVar = ("silhouette", "rim_index", "rim")

    silhouette: Silhouette
    """As detected in the images."""
    shell: HairShell
    """The head's surface including hair, which moves rigidly with the head pose."""
    rim_index: Tensor
    """(F, K) int64: index of each ray's rim point in `shell.points`, from `reweighted`."""
    rim: Tensor
    """(F, K, 3) metres in head space, from the pivot: the rim points."""

    @classmethod
    def unmatched(cls, silhouette: Silhouette, shell: HairShell) -> SilhouetteTerm:
        """The term without correspondences: `rim_index` is a placeholder until `reweighted` has searched the rim
        points.
        """
        index = torch.zeros_like(silhouette.weights, dtype=torch.long)
        return cls(silhouette, shell, index, shell.points[index])

    def reweighted(self, state: FrameState, camera: Camera, robust_scale: float) -> Self:
        """The term with the rim points of the current poses. The robust scale is always ROBUST_SCALE."""
        index = find_rim(self.silhouette, self.shell, state, camera)
        return replace(self, rim_index=index, rim=self.shell.points[index])

    def residual(self, state: FrameState, camera: Camera) -> tuple[Tensor, Tensor]:
        """Residuals (F, K) in standard deviations, positive outside the silhouette, and the rim points in camera space
        (F, K, 3) metres.
        """
        rotated = self.rim @ state.rotation.transpose(1, 2)
        in_camera = rotated + state.translation[:, None]
        error = ((camera.project(in_camera) - self.silhouette.points) * self.silhouette.normals).sum(-1)
        return error / (SILHOUETTE_SIGMA * camera.pixel), in_camera

    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        residual, _ = self.residual(state, camera)
        return robust(residual.unsqueeze(-1), self.silhouette.weights, ROBUST_SCALE)[0]

    def derivatives(self, state: FrameState, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals (F, K), their robust weights (F, K), and the residuals' derivatives by the rim points in camera
        space (F, K, 3).
        """
        residual, in_camera = self.residual(state, camera)
        _, weight = robust(residual.unsqueeze(-1), self.silhouette.weights, ROBUST_SCALE)
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
    """The rim point of every ray, (F, K) int64 indices into `shell.points`.

    It is the point of the posed shell, among those within _RIM_WINDOW of the ray, that lies farthest along the
    silhouette's outward normal; index 0 where no point is that near. Each point is compared only with its few
    neighbouring rays, not with all K.
    """
    near = int(np.ceil(_RIM_WINDOW / RAY_ANGLE))
    points = shell.points
    found = []
    for start in range(0, len(state), _CHUNK):
        part = slice(start, start + _CHUNK)
        detected = silhouette[part]
        in_camera = points @ state.rotation[part].transpose(1, 2) + state.translation[part, None]
        from_skull = camera.project(in_camera) - detected.centres[:, None]
        angle = torch.atan2(from_skull[..., 1], from_skull[..., 0])
        nearest = (angle / RAY_ANGLE).round().long()
        neighbours = torch.arange(-near, near + 1, device=angle.device)
        ray = nearest.unsqueeze(-1) + neighbours
        close = (angle.unsqueeze(-1) - ray * RAY_ANGLE).abs() < _RIM_WINDOW
        ray = (ray % RAYS).flatten(1)
        normals = detected.normals.gather(1, ray.unsqueeze(-1).expand(-1, -1, 2)).unflatten(1, close.shape[1:])
        distance = (from_skull.unsqueeze(-2) * normals).sum(-1).masked_fill(~close, -torch.inf).flatten(1)
        farthest = torch.full_like(detected.weights, -torch.inf).scatter_reduce(1, ray, distance, "amax")
        wins = (distance == farthest.gather(1, ray)) & close.flatten(1)
        point_index = torch.arange(len(points), device=ray.device).repeat_interleave(len(neighbours)).expand_as(ray)
        none = torch.zeros_like(detected.weights, dtype=torch.long)
        found.append(none.scatter_reduce(1, ray, torch.where(wins, point_index, 0), "amax"))
    return torch.cat(found)
