"""How far every parameter of every frame can be trusted: standard deviations from the solver's covariances.

A parameter errs for three reasons. What was seen of the frame, its neighbours and what is believed of faces leave it some
freedom: `blocks.variances_in_time`. Identity and focal length, which all frames share, err themselves and bend every frame
by how the frame's best parameters follow them, J = -V^-1 W (Triggs et al. 2000, section 6.1): a lens that is too long turns
wide turns too little. And the detector's points err together and not by chance, of which no covariance knows; that was
measured on rendered people, whose truth is known, and stands here as a factor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.frame_state import FrameState
from ..model.landmark_surface import LandmarkSurface
from ..terms.landmarks import Evidence, landmark_normal
from .fit_frames import Beliefs

EYES_ERR, POSE_ERRS = 2.5, 2.0
"""How many times farther than the covariances say eyes, and the head's turn and place, are off in two thirds of the frames of
`bench.tracking`'s rendered people; expression and jaw 0.7 to 1.2 times, which stay as they are."""
_EVERY = 8
"""What is shared bends a frame as its neighbours, so it is reckoned for every eighth and interpolated."""
_CHUNK = 48
"""Of these at a time."""


def standard_deviations(
    own: Tensor, covariance: Tensor, surface: LandmarkSurface, evidence: Evidence, beliefs: Beliefs, state: FrameState
) -> Tensor:
    """(F, P) from the frames' `own` variances (F, P) and the shared parameters' `covariance` (S + 1, S + 1), which is of
    identity and log focal length. `evidence` is weighted as the solver last saw it."""
    # A frame without a face follows its neighbours, and so does how it is bent.
    seen = torch.nonzero(evidence.weights.sum(1) > 0).flatten()
    if not len(seen):
        seen = torch.arange(len(state), device=own.device)
    looked = seen[
        torch.linspace(0, len(seen) - 1, max(2, -(-len(seen) // _EVERY)), device=own.device).round().long().unique()
    ]
    # What never moves follows nothing; the others are held a little, should nothing at all have been seen of them.
    held = torch.diag(torch.where(beliefs.fixed, 1e12, 1e-3).double())
    parts = []
    for part in looked.split(_CHUNK):
        normal = landmark_normal(surface, evidence[part], state[part], shared=True)
        follows = torch.linalg.solve((normal.hessian + beliefs.hessian()).double() + held, normal.cross.double())
        # A longer lens also makes the frame back off (`FrameState.zoomed`); what follows is what is taken back.
        follows[:, -1, -1] -= state.translation[part, 2].double()
        parts.append(torch.einsum("fpk,kl,fpl->fp", follows, covariance.double(), follows).clamp_min(0).float())
    bent = torch.cat(parts)
    if len(looked) > 1:
        place = torch.arange(len(state), device=own.device)
        after = torch.searchsorted(looked, place).clamp(1, len(looked) - 1)
        share = ((place - looked[after - 1]) / (looked[after] - looked[after - 1])).clamp(0, 1).unsqueeze(1).to(bent)
        bent = torch.lerp(bent[after - 1], bent[after], share)
    factor = (~beliefs.fixed).to(own)
    factor[-10:-6], factor[-6:] = EYES_ERR, POSE_ERRS
    return factor * (own + bent).sqrt()
