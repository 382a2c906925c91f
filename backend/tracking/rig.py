"""Several cameras that saw the same moments: one head pose for each moment, seen from every camera.

The calibration gives each camera's place up to the unit of length. The first fits of every camera on its own give the
unit, because the size of the head is known to the person's fit: with t_i = R t_0 + s e, the pivot's positions t_0 and
t_i in two cameras and the calibration's rotation R and translation e determine the scale s. They also show whether the
calibration belongs to the footage, and whether frame n is the same moment in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import EffigyError
from ..formats.calibration import CUT_ALIKE, CalibratedCamera
from ..head.rotations import matrix_to_axis_angle
from ..progress import Progress
from .model.camera import Camera
from .model.frame_state import FrameState
from .model.viewpoint import Viewpoint
from .prepared_clip import PreparedClip
from .terms.priors import PriorTerm
from .terms.seen_from import SeenFrom
from .terms.smoothness import SmoothnessTerm
from .terms.term import Term

MOST_DEGREES = 20.0
"""Median difference between the head's rotations in two cameras beyond which the calibration is not that of the
footage. Each camera's own rotations are a few degrees off."""
MOST_SHIFT = 25
"""Frames by which two cameras are tried against each other."""
SHIFT_GAIN = 2.0
"""Degrees by which another shift must fit better to be told: rotations that hardly change fit at every shift."""
MOST_SPREAD = 0.3
"""Of the scale: the median deviation of single frames from it."""
METRE = 0.15
"""A scale that differs from 1 by less is a calibration in metres; the head's size is known to a few percent."""


@dataclass(frozen=True)
class View:
    """One capture of some moments: the only one, or one of a rig's."""

    clip: PreparedClip
    index: int
    """The clip's number among those that the person was fitted to."""
    camera: Camera
    viewpoint: Viewpoint | None = None
    """None for the only camera, and for the first of a rig: the frames' parameters are the head's pose in it."""

    def seen(self, state: FrameState) -> FrameState:
        return state if self.viewpoint is None else self.viewpoint.seen(state)

    def term(self, term: Term) -> Term:
        """A term of this view's own parameters, as one of the first camera's."""
        return term if self.viewpoint is None else SeenFrom(term, self.camera, self.viewpoint)


def find_viewpoints(
    views: Sequence[View], states: Sequence[FrameState], cameras: Sequence[CalibratedCamera], progress: Progress
) -> list[View]:
    """The views with their viewpoints, from the calibration and each view's frames as fitted on their own.

    Raises an `EffigyError` where the calibration does not fit the footage.
    """
    first = cameras[0].world_to_camera
    motions = [camera.world_to_camera @ np.linalg.inv(first) for camera in cameras]
    found = [view.clip.landmarks.face_found for view in views]
    scales, spreads = [], []
    for view, state, motion, seen in zip(views[1:], states[1:], motions[1:], found[1:], strict=True):
        both = seen & found[0]
        if not both.any():
            raise EffigyError(
                f"No frame shows the face to both {view.clip.capture.folder} and {views[0].clip.capture.folder}: track "
                "them without --cameras."
            )
        turned = torch.as_tensor(motion[:3, :3], dtype=torch.float32) @ states[0].rotation
        _check_rotations(views[0], view, turned, state.rotation, both)
        baseline = torch.as_tensor(motion[:3, 3])
        if float(baseline.norm()) < 1e-9:
            continue
        rotated = states[0].translation.double() @ torch.as_tensor(motion[:3, :3]).T
        apart = state.translation.double() - rotated
        each = ((apart @ baseline) / baseline.dot(baseline))[both]
        scales.append(each)
        spreads.append((each - each.median()).abs())
    scale = 1.0
    if scales:
        scale = float(torch.cat(scales).median())
        if scale <= 0 or float(torch.cat(spreads).median()) > MOST_SPREAD * scale:
            raise EffigyError(
                "The distances between the cameras do not fit the head's positions in the footage: check that every "
                "camera has its own entry, and that frame n is the same moment in all captures."
            )
    if abs(scale - 1) > METRE:
        progress.message(
            f"The unit of length of the cameras is taken for {100 * scale:.3g} cm, by the size of the head."
        )
    return [views[0]] + [
        replace(
            view,
            viewpoint=Viewpoint(
                *(torch.as_tensor(part, dtype=torch.float32) for part in (motion[:3, :3], scale * motion[:3, 3]))
            ),
        )
        for view, motion in zip(views[1:], motions[1:], strict=True)
    ]


def _check_rotations(first: View, view: View, expected: Tensor, seen: Tensor, both: Tensor) -> None:
    """Compare the head's rotations (F, 3, 3) as the calibration expects and as a camera saw them."""

    def degrees(shift: int) -> float:
        """Median difference if the camera is `shift` frames late."""
        count = len(seen) - abs(shift)
        late, early = max(shift, 0), max(-shift, 0)
        use = both[late : late + count] & both[early : early + count]
        if not use.any():
            return float("inf")
        apart = seen[late : late + count][use] @ expected[early : early + count][use].transpose(1, 2)
        return float(torch.rad2deg(matrix_to_axis_angle(apart).norm(dim=-1)).median())

    now, names = degrees(0), (view.clip.capture.folder, first.clip.capture.folder)
    most = min(MOST_SHIFT, len(seen) // 4)
    best = min(range(-most, most + 1), key=lambda shift: (degrees(shift), abs(shift)))
    if degrees(best) < min(now - SHIFT_GAIN, 0.6 * now):
        raise EffigyError(
            f"{names[0]} and {names[1]} are not synchronised: the head turns {abs(best)} frames "
            f"{'later' if best > 0 else 'earlier'} in the first. {CUT_ALIKE}"
        )
    if now > MOST_DEGREES:
        raise EffigyError(
            f"The cameras do not fit the footage: the head in {names[0]} is turned {now:.0f} degrees away from where "
            f"it should be by {names[1]}. Check that every capture has its own camera, and that transform_matrix is "
            "camera to world with OpenGL's axes."
        )


def joint_start(views: Sequence[View], states: Sequence[FrameState]) -> FrameState:
    """The frames' parameters in the first camera: from the first view in which the face was found."""
    start = states[0]
    known = views[0].clip.landmarks.face_found.clone()
    for view, state in zip(views[1:], states[1:], strict=True):
        assert view.viewpoint is not None
        taken = view.clip.landmarks.face_found & ~known
        back = view.viewpoint.inverse().seen(state)
        start = FrameState(
            *(
                torch.where(taken.reshape(-1, *[1] * (mine.ndim - 1)), other, mine)
                for mine, other in zip(vars(start).values(), vars(back).values(), strict=True)
            )
        )
        known |= taken
    return start


def joint_prior(views: Sequence[View]) -> PriorTerm:
    """The prior by the detector's scores in all views that show the face: their mean."""
    first = views[0].clip
    if len(views) == 1:
        return first.prior
    found = torch.stack([view.clip.landmarks.face_found for view in views]).float()
    # Without a face in any view every view counts.
    weights = torch.where(found.sum(0) > 0, found, 1.0)
    means = torch.stack([view.clip.prior.mean for view in views])
    return replace(first.prior, mean=(weights[..., None] * means).sum(0) / weights.sum(0)[:, None])


def joint_smoothness(views: Sequence[View]) -> SmoothnessTerm:
    """Smoothness between frames that belong to one shot in every view."""
    first = views[0].clip.smoothness
    if len(views) == 1:
        return first
    terms = [view.clip.smoothness for view in views]
    return replace(
        first,
        linked=torch.stack([term.linked for term in terms]).all(0),
        face_found=torch.stack([term.face_found for term in terms]).any(0),
    )
