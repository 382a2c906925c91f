"""The outline of the person's matte as evidence for where the head is.

Landmarks lie on the front of the head alone, so they tell its pitch and yaw by small differences; a degree of pitch moves
the crown by five pixels at 512. The outline sees exactly that. It is hair's and not skin's, so a shell is fitted first: one
offset along the normal for every place of the head, the same in all frames, found on the training part. Then the posed
shell's rim is compared with the outline, across it, in every frame.

Where the outline is a shoulder, hair that hangs down or the picture's border it says nothing of the head; only directions
from the middle of the skull that are not too far from its crown are looked at, and outliers lose their weight as
landmarks do.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ...formats.capture import Capture, read_matte
from ...head.forward import vertex_normals
from ...head.mesh_graph import mesh_hierarchy
from ...head.model import HeadModel
from ..model.camera import project, project_derivative
from ..model.frame_state import FrameState, cross_matrix
from .landmarks import Evidence

RAYS = 96
"""Directions of the picture in which the outline is looked for."""
_STEP = 2 * np.pi / RAYS
REACH = 0.2
"""Metres from the middle of the skull within which it is looked for."""
NEAREST = 0.05
"""Metres from the middle of the skull that are head for certain; a hole in a matte is no outline."""
FROM_CROWN = np.deg2rad(112.0)
"""Directions farther from the crown's meet jaw, neck and shoulders."""
OUTLINE_SIGMA = 4.0
"""Pixels at 512, of one ray. Mattes err by one or two, but neighbours together."""
HALVING = 3.0
_STEEPEST = 1.5
"""Tangent of the angle between outline and circle beyond which a ray sees the outline jump and not run."""
_WINDOW = 0.09
"""Radians to either side of a ray in which the shell's rim is looked for."""
_GRID = 0.007
"""Metres between the shell's places: finer ones only cost time."""
_MATTE_SIZE = 256
_MIDDLE = np.array((0.0, 0.02, -0.08), np.float32)
"""Metres from the landmarks' pivot to the middle of the skull."""
_CHUNK = 32

HAIR_SIGMA = 0.03
SKIN_SIGMA = 0.002
"""Metres that hair stands off the skull, and that a face differs from what identity made of it."""
BEND_SIGMA = 0.006
"""Metres by which the shell's offset differs from the mean of its neighbours' on the coarse mesh."""


@dataclass(frozen=True)
class Outline:
    """What was seen: F frames, K rays."""

    points: Tensor
    """(F, K, 2) pixels; zero where nothing was seen."""
    normals: Tensor
    """(F, K, 2) unit vectors across the outline, outwards."""
    centres: Tensor
    """(F, 2) pixels: where the middle of the skull was taken to be, from which ray k goes out at k steps of a full turn."""
    trust: Tensor
    """(F, K)"""

    def __getitem__(self, index: slice | Tensor) -> Outline:
        return Outline(*(value[index] for value in vars(self).values()))


@dataclass(frozen=True)
class Shell:
    """M places on the head of one person, C coarse offsets."""

    places: Tensor
    """(M, 3) metres from the pivot."""
    normals: Tensor
    """(M, 3)"""
    spread: Tensor
    """(M, C): from coarse offsets to the places' own."""
    precision: Tensor
    """(C, C): the prior on the coarse offsets."""
    offsets: Tensor
    """(C,) metres along the normal."""

    @property
    def points(self) -> Tensor:
        return self.places + (self.spread @ self.offsets).unsqueeze(-1) * self.normals


def make_shell(model: HeadModel, identity: np.ndarray, pivot: Tensor) -> Shell:
    """The shell of a person, lying on the skin."""
    vertices = model.template + model.shape_basis @ identity
    hairy = np.zeros(len(vertices), bool)
    hairy[np.concatenate([model.regions["scalp"], model.regions["ears"]])] = True
    skin = hairy.copy()
    skin[model.regions["face"]] = True
    for region in ("mouth_inside", "eyes", "lids", "lips", "neck", "boundary"):
        if region in model.regions:
            skin[model.regions[region]] = False
    chosen = np.flatnonzero(skin)
    _, first = np.unique(np.floor(vertices[chosen] / _GRID).astype(int), axis=0, return_index=True)
    chosen = chosen[np.sort(first)]

    graph = mesh_hierarchy(model)
    coarse = graph.vertices[-1]
    identity_matrix = torch.eye(len(coarse))
    spread = graph.ups[0](graph.ups[1](identity_matrix))[chosen]
    neighbours = -graph.laplacians[-1](identity_matrix)
    share = neighbours / neighbours.sum(1, keepdim=True).clamp_min(1e-6)
    bend = (identity_matrix - share) / BEND_SIGMA
    sigma = torch.where(torch.as_tensor(hairy[coarse]), HAIR_SIGMA, SKIN_SIGMA)
    normals = vertex_normals(
        torch.as_tensor(vertices, dtype=torch.float32)[None], torch.as_tensor(model.faces.astype(np.int64))
    )[0][chosen]
    device = pivot.device
    places = torch.as_tensor(vertices[chosen], dtype=torch.float32, device=device) - pivot
    return Shell(
        places,
        normals.to(device),
        spread.to(device),
        (torch.diag(sigma**-2) + bend.T @ bend).to(device),
        torch.zeros(len(coarse), device=device),
    )


def see_outline(capture: Capture, state: FrameState, evidence: Evidence) -> Outline:
    """Look for the outline along rays from the middle of the skull, where `state` has it."""
    device = state.face.device
    middle = state.rotation @ torch.as_tensor(_MIDDLE, device=device) + state.translation
    up = state.rotation[:, :, 1] * 0.1 + middle
    centres = project(middle, evidence.focal, evidence.centre).cpu().numpy()
    crown = project(up, evidence.focal, evidence.centre).cpu().numpy() - centres
    scale = (evidence.focal / middle[:, 2]).cpu().numpy()
    sighted = (evidence.weights.sum(1) > 0).cpu().numpy()
    steps = _STEP * np.arange(RAYS)
    bins = 192
    radii = np.zeros((len(state), RAYS), np.float32)

    def look(frame: int) -> None:
        if not sighted[frame]:
            return
        matte = read_matte(capture, frame, _MATTE_SIZE)
        factor = _MATTE_SIZE / capture.size
        # OpenCV counts from the centre of the first pixel, we from its corner.
        centre = tuple(float(value) for value in centres[frame] * factor - 0.5)
        reach = REACH * scale[frame] * factor
        polar = cv2.warpPolar(matte, (bins, RAYS), centre, float(reach), cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS)
        polar = polar.astype(np.float32) / 255
        polar[:, : int(bins * NEAREST / REACH)] = 1
        outside = polar < 0.5
        crossing = outside.argmax(1)
        before, after = polar[np.arange(RAYS), crossing - 1], polar[np.arange(RAYS), crossing]
        place = crossing - 1 + (before - 0.5) / np.maximum(before - after, 1e-3)
        # warpPolar samples bin k at radius k / bins of the reach.
        radii[frame] = np.where(outside.any(1), place / bins * reach / factor, 0)

    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        list(pool.map(look, range(len(state))))
    directions = np.stack((np.cos(steps), np.sin(steps)), -1).astype(np.float32)
    points = centres[:, None] + radii[..., None] * directions
    tangent = np.roll(points, -1, 1) - np.roll(points, 1, 1)
    normals = np.stack((tangent[..., 1], -tangent[..., 0]), -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True).clip(1e-6)
    steepness = (normals * directions).sum(-1)
    crown_angle = np.arctan2(crown[:, 1], crown[:, 0])
    from_crown = np.abs((steps[None] - crown_angle[:, None] + np.pi) % (2 * np.pi) - np.pi)
    inside = ((points > 0.012 * capture.size) & (points < 0.988 * capture.size)).all(-1)
    seen = (radii > 0) & (np.roll(radii, 1, 1) > 0) & (np.roll(radii, -1, 1) > 0)
    trust = seen & inside & (from_crown < FROM_CROWN) & (steepness > 1 / np.hypot(1, _STEEPEST))
    arrays = (np.nan_to_num(points), np.nan_to_num(normals), centres, trust)
    return Outline(*(torch.as_tensor(array, dtype=torch.float32, device=device) for array in arrays))


@dataclass(frozen=True)
class MatchedOutline:
    """The outline with, for every ray, the place of the shell that makes the rim there."""

    outline: Outline
    evidence: Evidence
    points: Tensor
    """(F, K, 3) metres from the pivot."""
    place: Tensor
    """(F, K) int64, which place of the shell."""

    def residual(self, state: FrameState) -> tuple[Tensor, Tensor]:
        """(F, K) in standard deviations, and (F, K, 3) the rim in the camera."""
        turned = self.points @ state.rotation.transpose(1, 2)
        in_camera = turned + state.translation[:, None]
        pixels = project(in_camera, self.evidence.focal, self.evidence.centre)
        error = ((pixels - self.outline.points) * self.outline.normals).sum(-1)
        return error / (OUTLINE_SIGMA * self.evidence.pixel), in_camera

    def energy(self, state: FrameState) -> Tensor:
        """(F,)"""
        squared = self.residual(state)[0] ** 2
        return 0.5 * (self.outline.trust * squared * HALVING**2 / (HALVING**2 + squared)).sum(1)

    def slopes(self, state: FrameState) -> tuple[Tensor, Tensor, Tensor]:
        """Residual (F, K), its robust weight (F, K), and its derivative by the rim's place in the camera (F, K, 3)."""
        residual, in_camera = self.residual(state)
        weight = self.outline.trust * (HALVING**2 / (HALVING**2 + residual**2)) ** 2
        slope = (self.outline.normals.unsqueeze(-2) @ project_derivative(in_camera, self.evidence.focal)).squeeze(-2)
        return residual, weight, slope / (OUTLINE_SIGMA * self.evidence.pixel)

    def normal(self, state: FrameState) -> tuple[Tensor, Tensor, Tensor]:
        """Energy (F,), gradient (F, 6) and Hessian (F, 6, 6) over rotation and translation."""
        residual, weight, slope = self.slopes(state)
        turned = self.points @ state.rotation.transpose(1, 2)
        turn = (slope.unsqueeze(-2) @ -cross_matrix(turned)).squeeze(-2)
        jacobian = torch.cat((turn, slope), -1)
        weighted = jacobian * weight.unsqueeze(-1)
        return (self.energy(state), (weighted * residual.unsqueeze(-1)).sum(1), weighted.transpose(1, 2) @ jacobian)


def match(outline: Outline, shell: Shell, evidence: Evidence, state: FrameState) -> MatchedOutline:
    """For every ray the place of the posed shell that reaches farthest across the outline, near the ray.

    A place is near few rays, so each is thrown into those alone.
    """
    near = int(np.ceil(_WINDOW / _STEP))
    points = shell.points
    places = []
    for start in range(0, len(state), _CHUNK):
        part = slice(start, start + _CHUNK)
        seen = outline[part]
        in_camera = points @ state.rotation[part].transpose(1, 2) + state.translation[part, None]
        arms = project(in_camera, evidence.focal, evidence.centre) - seen.centres[:, None]
        angle = torch.atan2(arms[..., 1], arms[..., 0])
        first = (angle / _STEP).round().long()
        offsets = torch.arange(-near, near + 1, device=angle.device)
        ray = first.unsqueeze(-1) + offsets
        close = (angle.unsqueeze(-1) - ray * _STEP).abs() < _WINDOW
        ray = (ray % RAYS).flatten(1)
        normals = seen.normals.gather(1, ray.unsqueeze(-1).expand(-1, -1, 2)).unflatten(1, close.shape[1:])
        reach = (arms.unsqueeze(-2) * normals).sum(-1).masked_fill(~close, -torch.inf).flatten(1)
        nothing = torch.full_like(seen.trust, -torch.inf)
        best = nothing.scatter_reduce(1, ray, reach, "amax")
        wins = (reach == best.gather(1, ray)) & close.flatten(1)
        owner = torch.arange(len(points), device=ray.device).repeat_interleave(len(offsets)).expand_as(ray)
        none = torch.zeros_like(seen.trust, dtype=torch.long)
        places.append(none.scatter_reduce(1, ray, torch.where(wins, owner, 0), "amax"))
    place = torch.cat(places)
    return MatchedOutline(outline, evidence, points[place], place)


def fit_shell(shell: Shell, outline: Outline, evidence: Evidence, state: FrameState, iterations: int = 5) -> Shell:
    """The offsets that explain the outline of some frames whose poses are held."""
    # As with landmarks: a matte errs in the same way in every frame.
    share = 1 / max(len(state) / 12, 1)
    for _ in range(iterations):
        matched = match(outline, shell, evidence, state)
        residual, weight, slope = matched.slopes(state)
        across = (slope @ state.rotation * shell.normals[matched.place]).sum(-1)
        rows = (across * weight.sqrt()).flatten().unsqueeze(-1) * shell.spread[matched.place.flatten()]
        right = rows.T @ (residual * weight.sqrt()).flatten()
        hessian = share * rows.T @ rows + shell.precision
        step = torch.linalg.solve(hessian.double(), (share * right + shell.precision @ shell.offsets).double()).float()
        shell = replace(shell, offsets=shell.offsets - step)
    return shell
