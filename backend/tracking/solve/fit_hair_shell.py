"""Fitting the hair shell's offsets to the silhouettes of some frames of the training part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..model.camera import Camera
from ..model.frame_state import Bounds, FrameState
from ..model.hair_shell import HairShell
from ..observe.silhouette_detection import Silhouette
from ..terms.silhouette import SilhouetteTerm
from ..terms.term import ROBUST_SCALE, Term
from .fit_frames import fit_frames

_ROUNDS = 3
"""Times that shell and poses are fitted, alternately."""
_SHELL_ITERATIONS = 5
_POSE_ITERATIONS = 3
_INDEPENDENT_FRAMES = 12
"""A matte errs in the same way in every frame, so many frames together count as no more than this many."""


def fit_shell_and_poses(
    terms: Sequence[Term],
    silhouette: Silhouette,
    shell: HairShell,
    state: FrameState,
    camera: Camera,
    bounds: Bounds,
) -> HairShell:
    """The shell of some frames, taken as independent of each other. The frames' poses are fitted to the silhouettes in
    turn with the shell, as all frames' poses will be; `terms` are the frames' other energies.
    """
    for _ in range(_ROUNDS - 1):
        shell = fit_hair_shell(shell, silhouette, state, camera)
        silhouette_term = SilhouetteTerm.unmatched(silhouette, shell)
        state, _ = fit_frames([*terms, silhouette_term], camera, state, bounds, iterations=_POSE_ITERATIONS)
    return fit_hair_shell(shell, silhouette, state, camera)


def fit_hair_shell(
    shell: HairShell, silhouette: Silhouette, state: FrameState, camera: Camera, iterations: int = _SHELL_ITERATIONS
) -> HairShell:
    """The offsets that explain the silhouettes of frames whose poses are held, by Gauss-Newton."""
    share = 1 / max(len(state) / _INDEPENDENT_FRAMES, 1)
    for _ in range(iterations):
        matched = SilhouetteTerm.unmatched(silhouette, shell).reweighted(state, camera, ROBUST_SCALE)
        residual, weight, slope = matched.derivatives(state, camera)
        along_normal = (slope @ state.rotation * shell.normals[matched.rim_index]).sum(-1)
        rows = (along_normal * weight.sqrt()).flatten().unsqueeze(-1) * shell.interpolation[matched.rim_index.flatten()]
        gradient = share * rows.T @ (residual * weight.sqrt()).flatten() + shell.precision @ shell.offsets
        hessian = share * rows.T @ rows + shell.precision
        step = torch.linalg.solve(hessian.double(), gradient.double()).float()
        shell = replace(shell, offsets=shell.offsets - step)
    return shell
