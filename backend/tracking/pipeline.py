"""Capture → Track: fits the person and the focal lengths to the training part first, then all frames of each clip.

`track_captures` calls the steps in order; the package's docstring explains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..correspondence.landmark_sets import reported_points, solved_points
from ..errors import EffigyError
from ..formats.calibration import CalibratedCamera, check_synchronised, crop_intrinsics
from ..formats.capture import Capture
from ..formats.track import Track
from ..head.model import HeadModel
from ..progress import SILENT, Progress
from .clip_tracking import TrackedPerson, track_clip, track_rig
from .detector.shape_response import detected_surface
from .model.landmark_surface import LandmarkSurface, landmark_surface
from .photometric_stage import fit_photometric_model
from .prepared_clip import PreparedClip
from .rig import View
from .solve.fit_person import fit_person
from .solve.person import FOCAL_SIGMA

SOLVED_POINTS = 240
"""How many of the detector's 478 landmarks the solver uses; see `landmark_sets.solved_points`."""
PERSON_FRAMES = 48
"""Frames that identity and focal length are fitted on, spread over the training part: more hardly change the person."""
PERSON_ITERATIONS = 14
"""The largest number of iterations of fitting the person to landmarks."""
_MIN_LANDMARKS = 60
"""The smallest number of landmarks that a head model must have positions for."""


def track_capture(
    capture: Capture,
    model: HeadModel,
    *,
    photometric: bool = False,
    progress: Progress = SILENT,
    device: str = "cpu",
) -> Track:
    """Fit the head model to a capture. Frames without a face follow from their neighbours by the smoothness term and
    keep their flag.

    With `photometric` the frames are also aligned to the person's own skin (`photometric_stage`), which takes three
    times as long.
    """
    return track_captures([capture], model, photometric=photometric, progress=progress, device=device)[0]


def track_captures(
    captures: Sequence[Capture],
    model: HeadModel,
    *,
    photometric: bool = False,
    cameras: Sequence[CalibratedCamera] | None = None,
    progress: Progress = SILENT,
    device: str = "cpu",
) -> list[Track]:
    """Fit the head model to several captures of one person, clips or photographs.

    All captures share one identity; each has its own focal length and track, in the order of `captures`. Shot cuts are
    detected, and nothing is smoothed across them. With `cameras`, one for each capture, all captures show the same
    moments: the cameras' places and focal lengths are known, and the tracks share poses and expressions. Raises an
    `EffigyError` where `cameras` do not fit the footage.
    """
    if cameras is not None:
        check_synchronised(captures)
        captures = [
            replace(capture, intrinsics=crop_intrinsics(camera, capture))
            for capture, camera in zip(captures, cameras, strict=True)
        ]
    skin, detected = _surfaces(model, device)
    clips = [
        PreparedClip(capture, model, detected, count, focal_known=cameras is not None)
        for capture, count in zip(captures, _person_frames(captures), strict=True)
    ]

    for clip in clips:
        if len(clip.cuts):
            progress.message(_cuts_sentence(clip.capture, clip.cuts))

    def on_iteration(iteration: int) -> None:
        progress.update("person", iteration, PERSON_ITERATIONS)
        progress.raise_if_cancelled()

    on_iteration(0)
    chosen = [clip.person_frames() for clip in clips]
    person, states = fit_person(chosen, PERSON_ITERATIONS, on_iteration)
    appearance = None
    if photometric:
        frames = [clip.chosen.cpu().numpy() for clip in clips]
        appearance = fit_photometric_model(model, chosen, captures, frames, person, states, progress)
        person = appearance.person
    tracked = TrackedPerson(model, person, skin.of_person(person.identity), appearance)
    views = [View(clip, index, clip.camera.with_focal(person.focals[index])) for index, clip in enumerate(clips)]
    if cameras is not None:
        return track_rig(views, cameras, tracked, progress)
    tracks = []
    for index, view in enumerate(views):
        progress.message(_focal_sentence(view.clip.capture, float(person.focals[index]), person.focal_sigma(index)))
        tracks.append(track_clip(view, tracked, progress))
    return tracks


def _surfaces(model: HeadModel, device: str) -> tuple[LandmarkSurface, LandmarkSurface]:
    """The surface points of the landmarks that the solver uses: on the skin, and where the detector reports them
    (`shape_response.detected_surface`).
    """
    all_points = landmark_surface(model, device)
    if (all_points.valid & reported_points()).sum() < _MIN_LANDMARKS:
        raise EffigyError(
            f'The head model "{model.name}" has no positions for the detector\'s landmarks: embed them first '
            "(`backend.correspondence.landmark_embedding`), or use the bundled open head."
        )
    chosen = solved_points(all_points.position.rest.cpu().numpy(), all_points.valid, SOLVED_POINTS)
    return all_points.of_points(chosen), detected_surface(all_points, model).of_points(chosen)


def _person_frames(captures: Sequence[Capture]) -> list[int]:
    """How many frames of each capture the person is fitted to: equal shares of PERSON_FRAMES, and longer captures make
    up for those that are shorter than their share.
    """
    counts, remaining = [0] * len(captures), PERSON_FRAMES
    for rank, index in enumerate(sorted(range(len(captures)), key=lambda index: captures[index].training_count)):
        counts[index] = max(1, min(captures[index].training_count, remaining // (len(captures) - rank)))
        remaining -= counts[index]
    return counts


def _cuts_sentence(capture: Capture, cuts: np.ndarray) -> str:
    frames = ", ".join(map(str, cuts[:12])) + (" …" if len(cuts) > 12 else "")
    return f"{capture.source_name} is cut before frame {frames}: each shot is tracked on its own."


def _focal_sentence(capture: Capture, focal: float, sigma: float) -> str:
    guess = (capture.intrinsics[0, 0] + capture.intrinsics[1, 1]) / 2
    uncertainty = f"guess {guess:.0f} px, uncertain by {100 * sigma:.0f} %"
    found = f"Focal length of {capture.source_name}: {focal:.0f} px ({uncertainty})"
    if sigma > 0.6 * FOCAL_SIGMA:
        return f"{found}; the face's perspective does not determine it, so it stays near the guess."
    return f"{found}; determined by the face's perspective."
