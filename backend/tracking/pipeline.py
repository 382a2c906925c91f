"""Capture -> Track: who it is and through which lens, from the training part; then what every frame does.

`solver` does the arithmetic; here the clip is prepared for it, cut into windows, and its result turned into the rig's own
parameters, measured on the mesh's surface and flagged where it cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..correspondence.landmark_sets import CONTOUR, reported_points, solved_points
from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..formats.capture import Capture
from ..formats.track import Track
from ..head.model import NECK, HeadModel
from ..head.rotations import axis_angle_to_matrix
from ..progress import SILENT, Progress
from .after.neck import split_neck
from .after.residuals import flag_frames, landmark_error
from .detector.shape_response import as_detected
from .model.camera import stand_head
from .model.frame_state import FrameState, concatenate, joint_vectors
from .model.landmark_surface import LandmarkSurface, landmark_surface, pose_points
from .observe.iris_detection import see_irises
from .photometric_stage import ALIGNMENTS, LANDMARK_SHARE, Likeness, learn_likeness
from .solve.block_systems import variances_in_time
from .solve.fit_frames import Beliefs, Term, as_last_seen, fit_frames, smoothness_of, velocity_of
from .solve.fit_person import FOCAL_SIGMA, ClipFrames, Person, fit_person
from .solve.uncertainty import standard_deviations
from .terms.contact import see_contact
from .terms.iris import limbus_surface
from .terms.landmarks import Evidence, gather_evidence
from .terms.priors import priors_for
from .terms.silhouette import Outline, Shell, fit_shell, make_shell, see_outline

SOLVED_POINTS = 240
"""Of the detector's 478 points; see `points.solved_points`."""
PERSON_FRAMES = 48
"""Frames that identity and focal length are fitted on, spread over the training part: more hardly change the person."""
PERSON_ITERATIONS = 14
FRAME_ITERATIONS = 2
OUTLINE_ITERATIONS = 3
HAIR_ROUNDS = 3
"""Shell and poses of the person's frames, in turn."""
WINDOW = 512
"""Frames solved at once: memory stays flat in the clip's length."""
LOOK_AHEAD = 16
"""Frames beyond a window that are solved with it and solved again in the next, so that a window's end is smooth too."""
_ANYWHERE = (1.0, 1.0, 1.0, 0.3, 0.3, 0.3)
"""Radians and metres: standard deviations of the pose of a head of which nothing is known."""
_SKULL_DEPTH = 0.09
"""Metres from the face's landmarks back to the middle of the skull."""


def track_capture(
    capture: Capture, model: HeadModel, *, photometric: bool = False, progress: Progress = SILENT, device: str = "cpu"
) -> Track:
    """Fit the head model to a capture. Frames without a face are bridged from their neighbours and keep their flag.

    With `photometric` the frames are also aligned to the person's own skin (`photometric`), which takes three times as long.
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
    """The same for several captures of one person, clips or photographs: one identity, a focal length and a track each."""
    everything = landmark_surface(model, device)
    if (everything.valid & reported_points()).sum() < 60:
        raise EffigyError(
            f'The head model "{model.name}" has no places for the detector\'s landmarks: embed them first '
            "(`backend.correspondence.landmark_embedding`), or use the bundled open head."
        )
    chosen = solved_points(everything.anchor.rest.cpu().numpy(), everything.valid, SOLVED_POINTS)
    skin, surface = everything.of_points(chosen), as_detected(everything, model).of_points(chosen)
    pivot, directions = _middle(surface)
    clips = [
        _Clip(capture, model, surface, pivot, share) for capture, share in zip(captures, _shares(captures), strict=True)
    ]

    def tell(done: int, energy: float) -> None:
        progress.update("person", done, PERSON_ITERATIONS, energy=energy)
        progress.raise_if_cancelled()

    nobody = torch.zeros(surface.anchor.shape.shape[-1], device=device)
    typical = [clip.typical_frames(nobody) for clip in clips]
    person, states = fit_person(surface, directions, typical, PERSON_ITERATIONS, tell)
    likeness = None
    if photometric:
        likeness = learn_likeness(
            model,
            surface,
            directions,
            typical,
            captures,
            [clip.typical.cpu().numpy() for clip in clips],
            person,
            states,
            progress,
        )
        person = likeness.person
    limbus = limbus_surface(model, device)
    who = _Person(
        model,
        person,
        surface.of_person(person.identity),
        skin.of_person(person.identity),
        None if limbus is None else limbus.of_person(person.identity),
        directions,
        likeness,
    )
    tracks = []
    for index, clip in enumerate(clips):
        progress.message(_focal_sentence(clip.capture, float(person.focals[index]), person.focal_sigma(index)))
        tracks.append(_track_clip(clip, index, who, progress))
    return tracks


def _shares(captures: Sequence[Capture]) -> list[int]:
    """How many frames of each capture speak for the person: what short ones have not, long ones give."""
    shares, left = [0] * len(captures), PERSON_FRAMES
    for rank, index in enumerate(sorted(range(len(captures)), key=lambda index: captures[index].training_count)):
        shares[index] = max(1, min(captures[index].training_count, left // (len(captures) - rank)))
        left -= shares[index]
    return shares


class _Clip:
    """A capture as the solver wants it."""

    def __init__(
        self, capture: Capture, model: HeadModel, surface: LandmarkSurface, pivot: Tensor, typical: int
    ) -> None:
        """`typical`: how many of its frames may speak for the person."""
        self.capture, self.surface, self.pivot = capture, surface, pivot
        self.seen = capture.landmarks.astype(np.float32, copy=False)
        found = np.isfinite(self.seen).all((1, 2))
        self.good = found & (capture.flags == 0)
        training = np.flatnonzero(self.good[: capture.training_count])
        if len(training) == 0:
            training = np.flatnonzero(found[: capture.training_count])
        if len(training) == 0:
            raise EffigyError(
                f"No training frame of {capture.folder} shows a face: there is nothing to track. Choose other footage."
            )
        self.training = training
        spread = np.linspace(0, len(training) - 1, min(typical, len(training))).round().astype(int)
        self.typical = torch.as_tensor(training[spread])
        self.beliefs = Beliefs.of(priors_for(model, capture.scores, SCORE_NAMES, float(capture.fps)), pivot.device)
        self.evidence = gather_evidence(self.seen, capture.intrinsics, capture.size, surface, pivot)

    def stand(self, surface: LandmarkSurface, evidence: Evidence, which: Tensor) -> FrameState:
        """A start for some frames, `surface` being of the person, as far as that is known."""
        seen = torch.as_tensor(self.seen[:, surface.points], device=self.pivot.device)
        return _stand(surface, evidence, self.beliefs, seen, which, self.capture.training_count)

    def typical_frames(self, nobody: Tensor) -> ClipFrames:
        """What speaks for the person."""
        begin = self.stand(self.surface.of_person(nobody), self.evidence, self.typical)
        return ClipFrames(self.evidence[self.typical], self.beliefs[self.typical], begin)


@dataclass(frozen=True)
class _Person:
    """All that is known of one person before a clip of theirs is fitted."""

    model: HeadModel
    person: Person
    surface: LandmarkSurface
    """As the detector sees it."""
    skin: LandmarkSurface
    """As it is."""
    limbus: LandmarkSurface | None
    directions: Tensor
    likeness: Likeness | None


def _track_clip(clip: _Clip, index: int, who: _Person, progress: Progress) -> Track:
    """The person's clip number `index`."""
    person, surface, directions, model = who.person, who.surface, who.directions, who.model
    capture, beliefs, focal = clip.capture, clip.beliefs, person.focals[index]
    identity = person.identity.cpu().numpy()
    evidence = replace(clip.evidence, focal=focal)
    state = clip.stand(surface, evidence, torch.arange(capture.frame_count))
    state, _ = _solve_windows(capture, surface, directions, evidence, beliefs, state, progress)
    outline = see_outline(capture, state, evidence)
    chosen = clip.typical
    shell = _fit_hair(
        make_shell(model, identity, clip.pivot),
        surface,
        directions,
        evidence[chosen],
        beliefs[chosen],
        state[chosen],
        outline[chosen],
    )
    contact = see_contact(clip.seen, who.skin, state, focal, slice(capture.training_count))
    terms: list[Term] = [] if contact is None else [contact]
    if who.limbus is not None:
        irises = see_irises(capture, who.limbus, state, evidence, clip.training, progress)
        evidence = irises.instead_of_points(evidence, surface.points)
        terms.append(irises)
    state, variances = _solve_windows(
        capture, surface, directions, evidence, beliefs, state, progress, (outline, shell), terms
    )
    if who.likeness is not None:
        evidence = replace(
            evidence, habits=evidence.habits + who.likeness.habits, weights=LANDMARK_SHARE * evidence.weights
        )
        for _ in range(ALIGNMENTS):
            patches = who.likeness.align(index, capture, state, evidence, progress)
            state, variances = _solve_windows(
                capture, surface, directions, evidence, beliefs, state, progress, (outline, shell), [*terms, patches]
            )
    evidence = as_last_seen(evidence, directions, state, OUTLINE_ITERATIONS)
    # Apart, for held-out frames have no say in what is said of training frames.
    parts = [part for part in (slice(capture.training_count), slice(capture.training_count, None)) if len(state[part])]
    sigma = torch.cat(
        [
            standard_deviations(
                variances[part], person.covariance_of(index), surface, evidence[part], beliefs[part], state[part]
            )
            for part in parts
        ]
    )
    track = _to_track(capture, model, identity, float(focal), state, sigma, clip.pivot, clip.good)
    residual = landmark_error(track, capture, model)
    return replace(track, residual=residual, flags=flag_frames(track.flags, residual, capture.size))


def _middle(surface: LandmarkSurface) -> tuple[Tensor, Tensor]:
    """The middle of the face's points (3,), and directions (L, 3) to the points from the middle of the skull."""
    inner = torch.as_tensor(surface.valid & ~np.isin(surface.points, CONTOUR), device=surface.mover.device)
    pivot = surface.anchor.rest[inner].mean(0)
    skull = pivot - torch.tensor((0.0, 0.0, _SKULL_DEPTH), device=pivot.device)
    return pivot, torch.nn.functional.normalize(surface.anchor.rest - skull, dim=-1)


def _stand(
    surface: LandmarkSurface, evidence: Evidence, beliefs: Beliefs, seen: Tensor, which: Tensor, training_count: int
) -> FrameState:
    """A start for some frames: face as the scores say, pose by aligning it to the detector's points in depth."""
    which = which.to(seen.device)
    face = beliefs.mean[which].clone()
    poses = []
    for part in torch.split(torch.arange(len(which), device=seen.device), WINDOW):
        points = (
            pose_points(surface, face[part, :-7], axis_angle_to_matrix(joint_vectors(face[part])))[0] - evidence.pivot
        )
        poses.append(
            stand_head(
                points,
                torch.nan_to_num(seen[which[part]]),
                evidence.weights[which[part]],
                evidence.focal,
                evidence.centre,
            )
        )
    rotation, translation = (torch.cat(parts) for parts in zip(*poses, strict=True))
    missing = (evidence.weights[which].sum(1) == 0).cpu().numpy()
    if missing.any() and not missing.all():
        # A frame without a face stands where the nearest one with a face stands; smoothness does the rest. Held-out frames
        # say nothing of training frames.
        there, lacking = np.flatnonzero(~missing), np.flatnonzero(missing)
        training = which.cpu().numpy() < training_count
        apart = np.abs(there[None] - lacking[:, None]) + len(which) * (
            training[lacking][:, None] & ~training[there][None]
        )
        nearest = there[apart.argmin(1)]
        gaps = torch.as_tensor(np.flatnonzero(missing), device=seen.device)
        source = torch.as_tensor(nearest, device=seen.device)
        face[gaps], rotation[gaps], translation[gaps] = face[source], rotation[source], translation[source]
    return FrameState(face, rotation, translation)


def _fit_hair(
    shell: Shell,
    surface: LandmarkSurface,
    directions: Tensor,
    evidence: Evidence,
    beliefs: Beliefs,
    state: FrameState,
    outline: Outline,
) -> Shell:
    """The shell of some frames of the training part, whose poses it bends as it will bend all frames'."""
    alone = torch.zeros(max(len(state) - 1, 0), dtype=torch.bool, device=state.face.device)
    for _ in range(HAIR_ROUNDS - 1):
        shell = fit_shell(shell, outline, evidence, state)
        state, _ = fit_frames(
            surface,
            directions,
            evidence,
            beliefs,
            state,
            alone,
            0,
            OUTLINE_ITERATIONS,
            lambda *_: None,
            (outline, shell),
        )
    return fit_shell(shell, outline, evidence, state)


def _solve_windows(
    capture: Capture,
    surface: LandmarkSurface,
    directions: Tensor,
    evidence: Evidence,
    beliefs: Beliefs,
    state: FrameState,
    progress: Progress,
    outline: tuple[Outline, Shell] | None = None,
    terms: Sequence[Term] = (),
) -> tuple[FrameState, Tensor | None]:
    """All frames, a window at a time, each anchored on the two frames before it. No window reaches over the end of the
    training part, so no held-out frame has a say in a training frame; the other way round it may.

    With an outline, which is the last time, also the parameters' variances (F, P), the person being certain."""
    frames, rounds = len(state), FRAME_ITERATIONS if outline is None else OUTLINE_ITERATIONS
    done: list[FrameState] = []
    variances: list[Tensor] = []
    start = 0
    while start < frames:
        part_end = capture.training_count if start < capture.training_count else frames
        end = min(start + WINDOW, part_end)
        reach = min(end + LOOK_AHEAD, part_end)
        held = min(2, start)
        window = slice(start, reach)
        begin = state[window]
        if held:
            begin = concatenate([done[-1][-held:], begin])
        span = slice(start - held, reach)
        linked = torch.as_tensor(np.diff(capture.frame_numbers[span]) == 1, device=state.face.device)

        def tell(iteration: int, energy: float, start: int = start, end: int = end) -> None:
            progress.update("frames", start + (end - start) * iteration // rounds, frames, energy=energy)
            progress.raise_if_cancelled()

        solved, hessian = fit_frames(
            surface,
            directions,
            evidence[span],
            beliefs[span],
            begin,
            linked,
            held,
            rounds,
            tell,
            None if outline is None else (outline[0][span], outline[1]),
            [term[span] for term in terms],
        )
        own = slice(held, held + end - start)
        done.append(solved[own])
        if outline is not None:
            smoothness = smoothness_of(velocity_of(solved), beliefs, linked, evidence[span].weights.sum(1) > 0)
            # Frames without a face may hang together with too few others to be known at all.
            hessian.diagonal(dim1=1, dim2=2)[:, -6:] += torch.tensor(_ANYWHERE, device=hessian.device) ** -2
            variances.append(variances_in_time(hessian, smoothness)[own])
        start = end
    progress.update("frames", frames, frames)
    return concatenate(done), torch.cat(variances) if variances else None


def _to_track(
    capture: Capture,
    model: HeadModel,
    identity: np.ndarray,
    focal: float,
    state: FrameState,
    sigma: Tensor,
    pivot: Tensor,
    good: np.ndarray,
) -> Track:
    rotation = state.rotation.double().cpu().numpy()
    # Many small turns were multiplied in float32; the nearest rotation again, before anything is inverted.
    u, _, vt = np.linalg.svd(rotation)
    rotation = u @ vt
    translation = state.translation.double().cpu().numpy() - rotation @ pivot.double().cpu().numpy()
    shaped = model.template + model.shape_basis @ identity
    neck_joint = model.joint_regressor[NECK].astype(np.float64) @ shaped
    neck, head_to_camera = split_neck(
        rotation,
        translation,
        neck_joint,
        good,
        capture.training_count,
        float(capture.fps),
        np.flatnonzero(np.diff(capture.frame_numbers) != 1) + 1,
    )

    rotations = np.zeros((len(state), 5, 3))
    rotations[:, 1] = neck
    rotations[:, 2:] = joint_vectors(state.face).cpu().numpy()
    intrinsics = capture.intrinsics.copy()
    intrinsics[0, 0] = intrinsics[1, 1] = focal
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=identity.astype(np.float32),
        expression=state.face[:, :-7].cpu().numpy().astype(np.float32),
        rotations=rotations.astype(np.float32),
        head_to_camera=head_to_camera.astype(np.float32),
        intrinsics=intrinsics.astype(np.float32),
        size=capture.size,
        fps=capture.fps,
        residual=np.full(len(state), np.nan, np.float32),
        flags=capture.flags.astype(np.int32),
        training_count=capture.training_count,
        sigma=sigma.cpu().numpy(),
    )


def _focal_sentence(capture: Capture, focal: float, sigma: float) -> str:
    guess = (capture.intrinsics[0, 0] + capture.intrinsics[1, 1]) / 2
    found = f"Focal length of {capture.source_name}: {focal:.0f} px (guess {guess:.0f} px, uncertain by {100 * sigma:.0f} %)"
    if sigma > 0.6 * FOCAL_SIGMA:
        return f"{found}; the face's perspective does not tell it, so it stays near the guess."
    return f"{found}; seen in the face's perspective."
