"""All frames of a clip, or of the clips of a rig's cameras, with the person known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..formats.calibration import CalibratedCamera
from ..formats.capture import FrameFlag
from ..formats.track import Track
from ..head.model import HeadModel
from ..progress import Progress
from .after.assemble_track import assemble_track
from .after.residuals import flag_frames, landmark_error
from .model.frame_state import FrameState
from .model.hair_shell import make_hair_shell
from .model.landmark_surface import LandmarkSurface
from .model.limbus_surface import limbus_surface
from .observe.gap_closure import closure_confidence
from .observe.iris_detection import detect_irises
from .observe.silhouette_detection import detect_silhouette
from .photometric_stage import ALIGNMENTS, LANDMARK_WEIGHT, PhotometricModel
from .rig import View, find_viewpoints, joint_prior, joint_smoothness, joint_start
from .solve.fit_frames import FittedClip, fit_windows, warm_start_robust_scale
from .solve.fit_hair_shell import fit_shell_and_poses
from .solve.person import Person
from .solve.uncertainty import standard_deviations
from .terms.contact import ContactTerm
from .terms.iris import IrisTerm
from .terms.landmarks import LandmarkTerm
from .terms.priors import PriorTerm
from .terms.silhouette import SilhouetteTerm
from .terms.term import Term

FIRST_ITERATIONS = 2
"""Iterations of fitting all frames to landmarks alone."""
ITERATIONS = 3
"""Iterations of fitting all frames with silhouette and the other terms."""


@dataclass(frozen=True)
class TrackedPerson:
    """The results of fitting a person, which are the input of fitting all frames of their clips."""

    model: HeadModel
    person: Person
    skin: LandmarkSurface
    """The chosen landmarks on the person's skin."""
    appearance: PhotometricModel | None

    def landmarks_of(self, view: View) -> LandmarkTerm:
        return view.clip.landmarks.of_person(self.person.identity)

    def first_fit(self, view: View, progress: Progress) -> FrameState:
        """The frames of a view on their own, fitted to landmarks alone."""
        start = view.clip.initial_state(self.person.identity, view.camera, torch.arange(view.clip.capture.frame_count))
        terms = [self.landmarks_of(view), view.clip.prior, view.clip.smoothness]
        return _fitted(view, terms, start, FIRST_ITERATIONS, progress).state


def track_clip(view: View, tracked: TrackedPerson, progress: Progress) -> Track:
    """Fit all frames of one clip and assemble its track."""
    return _track_views([view], tracked.first_fit(view, progress), tracked, progress)[0]


def track_rig(
    views: Sequence[View], cameras: Sequence[CalibratedCamera], tracked: TrackedPerson, progress: Progress
) -> list[Track]:
    """Fit one pose, expression, jaw and gaze for every moment to the clips of all `cameras`, one for each view.

    A frame without a face in one view, whose pose another view determines, loses its flag NO_FACE: it shows the head
    from the side or from behind.
    """
    own = [tracked.first_fit(view, progress) for view in views]
    views = find_viewpoints(views, own, cameras, progress)
    return _track_views(views, joint_start(views, own), tracked, progress)


def _fitted(
    view: View, terms: Sequence[Term], state: FrameState, iterations: int, progress: Progress, *, last: bool = False
) -> FittedClip:
    capture = view.clip.capture

    def on_frames(done: int) -> None:
        progress.update("frames", done, capture.frame_count)
        progress.raise_if_cancelled()

    return fit_windows(
        terms,
        view.camera,
        state,
        view.clip.bounds,
        training_count=capture.training_count,
        iterations=iterations,
        with_variances=last,
        on_frames=on_frames,
    )


def _track_views(views: Sequence[View], state: FrameState, tracked: TrackedPerson, progress: Progress) -> list[Track]:
    """The tracks of clips that show the same moments. `state` is fitted to the landmarks already, which is accurate
    enough to measure silhouette, closed gaps and irises near the head.
    """
    first, appearance = views[0], tracked.appearance
    prior, smoothness = joint_prior(views), joint_smoothness(views)
    landmarks, others = [], []
    for view in views:
        own, more = _observed(view, view.seen(state), prior, tracked, progress)
        landmarks.append(own)
        others += [view.term(term) for term in more]

    def joint(terms: Sequence[LandmarkTerm]) -> list[Term]:
        return [view.term(term) for view, term in zip(views, terms, strict=True)]

    terms = [*joint(landmarks), prior, smoothness, *others]
    result = _fitted(first, terms, state, ITERATIONS, progress, last=appearance is None)
    if appearance is not None:
        landmarks = [term.with_person_bias(appearance.landmark_bias).scaled(LANDMARK_WEIGHT) for term in landmarks]
        for alignment in range(ALIGNMENTS):
            patches = [
                view.term(
                    appearance.align(
                        view.index,
                        view.clip.capture,
                        view.seen(result.state),
                        view.camera,
                        term.face_found,
                        progress,
                    )
                )
                for view, term in zip(views, landmarks, strict=True)
            ]
            terms = [*joint(landmarks), prior, smoothness, *others, *patches]
            result = _fitted(first, terms, result.state, ITERATIONS, progress, last=alignment == ALIGNMENTS - 1)
    sigma = _parameter_sigma(first, landmarks[0], prior, result, tracked.person.covariance_of(first.index))
    return _assembled(views, result.state, sigma, smoothness.linked, tracked)


def _observed(
    view: View, state: FrameState, prior: PriorTerm, tracked: TrackedPerson, progress: Progress
) -> tuple[LandmarkTerm, list[Term]]:
    """A view's landmarks, and the terms of what is measured in its images. `state`: the frames as it sees them."""
    clip, camera, model = view.clip, view.camera, tracked.model
    identity, landmarks = tracked.person.identity, tracked.landmarks_of(view)
    progress.update("outline", 0, 1)
    progress.raise_if_cancelled()
    silhouette = detect_silhouette(clip.capture, state, camera, landmarks.face_found)
    shell = fit_shell_and_poses(
        [landmarks[clip.chosen], prior[clip.chosen]],
        silhouette[clip.chosen],
        make_hair_shell(model, identity.cpu().numpy(), camera.pivot),
        state[clip.chosen],
        camera,
        clip.bounds,
    )
    others: list[Term] = [SilhouetteTerm.unmatched(silhouette, shell)]
    closed = closure_confidence(clip.detected, state, camera.focal, slice(clip.capture.training_count))
    if (contact := ContactTerm.from_closure(tracked.skin, closed)) is not None:
        others.append(contact)
    if (limbus := limbus_surface(model, camera.pivot.device)) is not None:
        limbus, found = limbus.of_person(identity), landmarks.face_found.cpu().numpy()
        irises = detect_irises(clip.capture, limbus, state, camera, found, clip.training, progress)
        iris_term = IrisTerm.from_detection(limbus, irises, camera.pivot.device)
        landmarks = iris_term.replace_landmarks(landmarks)
        others.append(iris_term)
    return landmarks, others


def _assembled(
    views: Sequence[View], state: FrameState, sigma: Tensor, linked: Tensor, tracked: TrackedPerson
) -> list[Track]:
    """A track for each view. The head's pose is split between body and neck once, in the first camera."""
    shots = np.flatnonzero(~linked.cpu().numpy()) + 1 if len(views) > 1 else views[0].clip.shot_starts
    reliable = np.asarray(np.stack([view.clip.reliable for view in views]).any(0))
    identity = tracked.person.identity.cpu().numpy()
    tracks: list[Track] = []
    for view in views:
        capture, seen = view.clip.capture, view.seen(state)
        track = assemble_track(
            capture, tracked.model, identity, view.camera, seen, _seen_sigma(view, sigma), reliable, shots
        )
        if view.viewpoint is not None:
            matrix = view.viewpoint.matrix().numpy()
            poses = (matrix @ tracks[0].head_to_camera.astype(np.float64)).astype(np.float32)
            track = replace(track, rotations=tracks[0].rotations, head_to_camera=poses)
        residual = landmark_error(track, capture, tracked.model)
        flags = flag_frames(track.flags, residual, capture.size)
        if len(views) > 1:
            flags = _flags_in_rig(view, seen, track.flags, flags, reliable)
        tracks.append(replace(track, residual=residual, flags=flags))
    return tracks


def _flags_in_rig(
    view: View, seen: FrameState, before: np.ndarray, flags: np.ndarray, reliable: np.ndarray
) -> np.ndarray:
    """A view's flags, without those of frames that show no face but a head whose pose other views determine."""
    clip, centre = view.clip, view.camera.project(seen.translation).cpu().numpy()
    inside = ((centre > 0) & (centre < clip.capture.size)).all(1) & (seen.translation[:, 2] > 0).cpu().numpy()
    only = (before == int(FrameFlag.NO_FACE)) & reliable & inside
    return np.where(only, 0, flags).astype(np.int32)


def _seen_sigma(view: View, sigma: Tensor) -> Tensor:
    """Standard deviations (F, P) of the first camera's parameters as those of a view's; correlations between the axes
    are left out.
    """
    if view.viewpoint is None:
        return sigma
    size = sigma.shape[1]
    squared = view.viewpoint.rotation.to(sigma) ** 2
    rotation, translation = slice(size - 6, size - 3), slice(size - 3, size)
    result = sigma.clone()
    for axes in (rotation, translation):
        result[:, axes] = (sigma[:, axes] ** 2 @ squared.T).sqrt()
    return result


def _parameter_sigma(
    view: View, landmarks: LandmarkTerm, prior: PriorTerm, fitted: FittedClip, shared: Tensor
) -> Tensor:
    """Standard deviations (F, P) of the frames' parameters, which include the uncertainty of identity and log focal
    length with the covariance `shared` (S + 1, S + 1).
    """
    clip, camera = view.clip, view.camera
    state, variances, count = fitted.state, fitted.required_variances(), clip.capture.training_count
    current = landmarks.reweighted(state, camera, warm_start_robust_scale(ITERATIONS - 1))
    # Computed separately, so that held-out frames do not influence the standard deviations of training frames.
    parts = [part for part in (slice(count), slice(count, None)) if len(state[part])]
    return torch.cat(
        [
            standard_deviations(variances[part], shared, current[part], prior[part], clip.bounds, state[part], camera)
            for part in parts
        ]
    )
