"""Capture → Track: fits the person and the focal lengths to the training part first, then all frames of each clip.

`track_captures` and `_track_clip` call the steps in order; the package's docstring explains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..correspondence.landmark_sets import reported_points, solved_points
from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..formats.capture import Capture
from ..formats.track import Track
from ..head.model import HeadModel
from ..progress import SILENT, Progress
from .after.assemble_track import assemble_track
from .after.residuals import flag_frames, landmark_error
from .detector.shape_response import detected_surface
from .model.camera import Camera
from .model.frame_state import FrameState
from .model.hair_shell import make_hair_shell
from .model.landmark_surface import LandmarkSurface, landmark_surface
from .model.limbus_surface import limbus_surface
from .observe.gap_closure import closure_confidence
from .observe.iris_detection import detect_irises
from .observe.shot_cuts import find_cuts
from .observe.silhouette_detection import detect_silhouette
from .photometric_stage import ALIGNMENTS, LANDMARK_WEIGHT, PhotometricModel, fit_photometric_model
from .solve.fit_frames import FittedClip, fit_windows, warm_start_robust_scale
from .solve.fit_hair_shell import fit_shell_and_poses
from .solve.fit_person import FOCAL_SIGMA, ClipFrames, Person, fit_person
from .solve.initial_state import initial_state
from .solve.uncertainty import standard_deviations
from .terms.contact import ContactTerm
from .terms.iris import IrisTerm
from .terms.landmarks import LandmarkTerm
from .terms.priors import priors_for
from .terms.silhouette import SilhouetteTerm
from .terms.smoothness import SmoothnessTerm
from .terms.term import Term

SOLVED_POINTS = 240
"""How many of the detector's 478 landmarks the solver uses; see `landmark_sets.solved_points`."""
PERSON_FRAMES = 48
"""Frames that identity and focal length are fitted on, spread over the training part: more hardly change the person."""
PERSON_ITERATIONS = 14
"""The largest number of iterations of fitting the person to landmarks."""
FIRST_ITERATIONS = 2
"""Iterations of fitting all frames to landmarks alone."""
ITERATIONS = 3
"""Iterations of fitting all frames with silhouette and the other terms."""
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
    progress: Progress = SILENT,
    device: str = "cpu",
) -> list[Track]:
    """Fit the head model to several captures of one person, clips or photographs.

    All captures share one identity; each has its own focal length and track, in the order of `captures`. Shot cuts are
    detected, and nothing is smoothed across them.
    """
    skin, detected = _surfaces(model, device)
    clips = [
        _PreparedClip(capture, model, detected, count)
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
    tracked = _TrackedPerson(model, person, skin.of_person(person.identity), appearance)
    tracks = []
    for index, clip in enumerate(clips):
        progress.message(_focal_sentence(clip.capture, float(person.focals[index]), person.focal_sigma(index)))
        tracks.append(_track_clip(clip, index, tracked, progress))
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


class _PreparedClip:
    """A capture prepared for the solver: its camera, landmark term, prior term and smoothness term."""

    def __init__(self, capture: Capture, model: HeadModel, surface: LandmarkSurface, person_frames: int) -> None:
        """`surface` holds the solved landmarks where the detector reports them, of the mean person. `person_frames` is
        the number of frames that the person is fitted to.
        """
        self.capture = capture
        self.camera = Camera.from_intrinsics(capture.intrinsics, capture.size, surface.face_centre())
        device = self.camera.pivot.device
        self.detected = capture.landmarks.astype(np.float32, copy=False)
        found = np.asarray(np.isfinite(self.detected).all((1, 2)))
        self.reliable = found & (capture.flags == 0)
        training = np.flatnonzero(self.reliable[: capture.training_count])
        if len(training) == 0:
            training = np.flatnonzero(found[: capture.training_count])
        if len(training) == 0:
            raise EffigyError(
                f"No training frame of {capture.folder} shows a face: there is nothing to track. Choose other footage."
            )
        self.training = training
        spread = np.linspace(0, len(training) - 1, min(person_frames, len(training))).round().astype(int)
        self.chosen = torch.as_tensor(training[spread])
        """Indices of the frames that the person is fitted to."""
        priors = priors_for(model, capture.scores, SCORE_NAMES, float(capture.fps))
        self.prior, self.bounds = priors.term(device), priors.bounds(device)
        self.landmarks = LandmarkTerm.from_detections(self.detected, surface, self.camera)
        self.cuts = find_cuts(capture)
        linked = np.diff(capture.frame_numbers) == 1
        linked[self.cuts - 1] = False
        self.shot_starts = np.flatnonzero(~linked) + 1
        """First frames of all shots but the first: after a cut, and after missing frames."""
        acceleration = torch.as_tensor(priors.acceleration_precision, device=device)
        self.smoothness = SmoothnessTerm(
            acceleration, torch.as_tensor(linked, device=device), self.landmarks.face_found
        )

    def initial_state(self, identity: Tensor, camera: Camera, frames: Tensor) -> FrameState:
        """The initial parameters of the frames with the indices `frames`, for the person with this identity (S,)."""
        landmarks = self.landmarks.of_person(identity)
        detected = torch.as_tensor(self.detected[:, landmarks.surface.points], device=camera.pivot.device)
        return initial_state(landmarks, self.prior, detected, camera, frames, self.capture.training_count)

    def person_frames(self) -> ClipFrames:
        """The frames that the person is fitted to, with initial parameters for the mean person."""
        mean_person = torch.zeros(
            self.landmarks.generic_surface.position.shape.shape[-1], device=self.camera.pivot.device
        )
        state = self.initial_state(mean_person, self.camera, self.chosen)
        return ClipFrames(self.landmarks[self.chosen], self.prior[self.chosen], self.bounds, self.camera, state)


@dataclass(frozen=True)
class _TrackedPerson:
    """The results of fitting a person, which are the input of fitting all frames of one of their clips."""

    model: HeadModel
    person: Person
    skin: LandmarkSurface
    """The chosen landmarks on the person's skin."""
    appearance: PhotometricModel | None


def _track_clip(clip: _PreparedClip, index: int, tracked: _TrackedPerson, progress: Progress) -> Track:
    """Fit all frames of the person's clip number `index` and assemble its track."""
    person, model, capture = tracked.person, tracked.model, clip.capture
    camera = clip.camera.with_focal(person.focals[index])
    identity = person.identity.cpu().numpy()
    landmarks = clip.landmarks.of_person(person.identity)
    state = clip.initial_state(person.identity, camera, torch.arange(capture.frame_count))

    def fitted(terms: Sequence[Term], state: FrameState, iterations: int, *, last: bool) -> FittedClip:
        def on_frames(done: int) -> None:
            progress.update("frames", done, capture.frame_count)
            progress.raise_if_cancelled()

        return fit_windows(
            terms,
            camera,
            state,
            clip.bounds,
            training_count=capture.training_count,
            iterations=iterations,
            with_variances=last,
            on_frames=on_frames,
        )

    # Landmarks alone give a track that is accurate enough to measure silhouette, closed gaps and irises near the head.
    terms: list[Term] = [landmarks, clip.prior, clip.smoothness]
    state = fitted(terms, state, FIRST_ITERATIONS, last=False).state

    progress.update("outline", 0, 1)
    progress.raise_if_cancelled()
    silhouette = detect_silhouette(capture, state, camera, landmarks.face_found)
    shell = fit_shell_and_poses(
        [landmarks[clip.chosen], clip.prior[clip.chosen]],
        silhouette[clip.chosen],
        make_hair_shell(model, identity, camera.pivot),
        state[clip.chosen],
        camera,
        clip.bounds,
    )
    others: list[Term] = [SilhouetteTerm.unmatched(silhouette, shell)]
    closed = closure_confidence(clip.detected, state, camera.focal, slice(capture.training_count))
    if (contact := ContactTerm.from_closure(tracked.skin, closed)) is not None:
        others.append(contact)
    if (limbus := limbus_surface(model, camera.pivot.device)) is not None:
        limbus, found = limbus.of_person(person.identity), landmarks.face_found.cpu().numpy()
        irises = detect_irises(capture, limbus, state, camera, found, clip.training, progress)
        iris_term = IrisTerm.from_detection(limbus, irises, camera.pivot.device)
        landmarks = iris_term.replace_landmarks(landmarks)
        others.append(iris_term)
    appearance = tracked.appearance
    terms = [landmarks, clip.prior, clip.smoothness, *others]
    result = fitted(terms, state, ITERATIONS, last=appearance is None)

    if appearance is not None:
        landmarks = landmarks.with_person_bias(appearance.landmark_bias).scaled(LANDMARK_WEIGHT)
        for alignment in range(ALIGNMENTS):
            patches = appearance.align(index, capture, result.state, camera, landmarks.face_found, progress)
            terms = [landmarks, clip.prior, clip.smoothness, *others, patches]
            result = fitted(terms, result.state, ITERATIONS, last=alignment == ALIGNMENTS - 1)

    sigma = _parameter_sigma(clip, landmarks, result, person.covariance_of(index), camera)
    track = assemble_track(capture, model, identity, camera, result.state, sigma, clip.reliable, clip.shot_starts)
    residual = landmark_error(track, capture, model)
    return replace(track, residual=residual, flags=flag_frames(track.flags, residual, capture.size))


def _parameter_sigma(
    clip: _PreparedClip, landmarks: LandmarkTerm, fitted: FittedClip, shared: Tensor, camera: Camera
) -> Tensor:
    """Standard deviations (F, P) of the frames' parameters, which include the uncertainty of identity and log focal
    length with the covariance `shared` (S + 1, S + 1).
    """
    state, variances, count = fitted.state, fitted.required_variances(), clip.capture.training_count
    current = landmarks.reweighted(state, camera, warm_start_robust_scale(ITERATIONS - 1))
    # Computed separately, so that held-out frames do not influence the standard deviations of training frames.
    parts = [part for part in (slice(count), slice(count, None)) if len(state[part])]
    return torch.cat(
        [
            standard_deviations(
                variances[part], shared, current[part], clip.prior[part], clip.bounds, state[part], camera
            )
            for part in parts
        ]
    )


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
