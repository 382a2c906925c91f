"""Standard deviations of every parameter of every frame, from the solver's covariances.

A parameter errs for three reasons. First, the frame's observations, its neighbours and the priors leave it some
freedom: `block_systems.variances_in_time`. Second, identity and focal length, which all frames share, err themselves
and displace every frame's optimum by J = -V^-1 W (Triggs et al. 2000, section 6.1): a focal length that is too long
makes large head rotations too small. Third, the detector's errors are correlated, which no covariance knows; that was
measured on rendered people, whose truth is known, and is applied as a factor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.camera import Camera
from ..model.frame_state import Bounds, FrameState
from ..terms.landmarks import LandmarkTerm
from ..terms.priors import PriorTerm

EYES_FACTOR, POSE_FACTOR = 2.5, 2.0
"""How many times farther than the covariances say eyes and head pose are off, in two thirds of the frames of
`bench.tracking`'s rendered people. Expression and jaw are off by 0.7 to 1.2 times and get no factor."""
_EVERY = 8
"""The influence of the shared parameters varies slowly, so it is computed for every eighth frame and interpolated."""
_CHUNK = 48


def standard_deviations(
    own_variances: Tensor,
    shared_covariance: Tensor,
    landmarks: LandmarkTerm,
    prior: PriorTerm,
    bounds: Bounds,
    state: FrameState,
    camera: Camera,
) -> Tensor:
    """(F, P) standard deviations.

    `own_variances` (F, P) have the person fixed. `shared_covariance` (S + 1, S + 1) is that of identity and log focal
    length. `landmarks` are reweighted as in the solver's last iteration.
    """
    # A frame without a face follows its neighbours, and so does its displacement.
    found = torch.nonzero(landmarks.face_found).flatten()
    if not len(found):
        found = torch.arange(len(state), device=own_variances.device)
    count = max(2, -(-len(found) // _EVERY))
    chosen = torch.linspace(0, len(found) - 1, count, device=own_variances.device).round().long()
    sampled = found[chosen.unique()]
    # Fixed parameters follow nothing. The others are held a little, for frames that nothing constrains.
    held = torch.diag(torch.where(bounds.fixed, 1e12, 1e-3).double())
    parts = []
    for part in sampled.split(_CHUNK):
        equations = landmarks[part].normal_equations(state[part], camera, shared=True)
        displaced = torch.linalg.solve(
            (equations.hessian + prior.hessian()).double() + held, equations.required_shared().cross.double()
        )
        # A longer focal length also moves the head away (`FrameState.dolly_zoomed`); the frame takes back part of that.
        displaced[:, -1, -1] -= state.translation[part, 2].double()
        variance = torch.einsum("fpk,kl,fpl->fp", displaced, shared_covariance.double(), displaced)
        parts.append(variance.clamp_min(0).float())
    by_shared = torch.cat(parts)
    if len(sampled) > 1:
        frames = torch.arange(len(state), device=own_variances.device)
        after = torch.searchsorted(sampled, frames).clamp(1, len(sampled) - 1)
        fraction = (frames - sampled[after - 1]) / (sampled[after] - sampled[after - 1])
        by_shared = torch.lerp(by_shared[after - 1], by_shared[after], fraction.clamp(0, 1).unsqueeze(1).to(by_shared))
    layout = state.layout
    factor = (~bounds.fixed).to(own_variances)
    factor[layout.eyes], factor[layout.pose] = EYES_FACTOR, POSE_FACTOR
    return factor * (own_variances + by_shared).sqrt()
