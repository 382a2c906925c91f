"""Capture -> Track: who it is and through which lens, from the training part; then what every frame does.

`solver` does the arithmetic; here the clip is prepared for it, cut into windows, and its result turned into the rig's own
parameters, measured on the mesh's surface and flagged where it cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..errors import EffigyError
from ..footage.capture import Capture, FrameFlag
from ..footage.detector import SCORE_NAMES
from ..head.forward import Head
from ..head.model import NECK, HeadModel
from ..head.rotations import axis_angle_to_matrix
from ..progress import SILENT, Progress
from .bias import unbiased_landmarks, without_bias
from .camera import stand_head
from .contact import Contact, see_contact
from .evidence import Evidence, gather_evidence
from .frames import FrameState, concatenate, joint_vectors
from .iris import Irises, limbus_surface
from .limbus import see_irises
from .neck import split_neck
from .outline import Outline, Shell, fit_shell, make_shell, see_outline
from .points import CONTOUR, reported_points, solved_points
from .priors import priors_for
from .solver import FOCAL_SIGMA, Beliefs, Person, fit_frames, fit_person
from .surface import LandmarkSurface, landmark_surface, pose_points
from .track import Track

SOLVED_POINTS = 240
"""Of the detector's 478 points; see `points.solved_points`."""
PERSON_FRAMES = 96
"""Frames that identity and focal length are fitted on, spread over the training part: more hardly change the person."""
PERSON_ITERATIONS = 14
FRAME_ITERATIONS = 3
OUTLINE_ITERATIONS = 3
HAIR_ROUNDS = 3
"""Shell and poses of the person's frames, in turn."""
WINDOW = 512
"""Frames solved at once: memory stays flat in the clip's length."""
LOOK_AHEAD = 16
"""Frames beyond a window that are solved with it and solved again in the next, so that a window's end is smooth too."""
UNSURE_PIXELS = 6.0
"""Median landmark error, pixels at 512, above which a frame is flagged."""
_SKULL_DEPTH = 0.09
"""Metres from the face's landmarks back to the middle of the skull."""


def track_capture(capture: Capture, model: HeadModel, *, progress: Progress = SILENT, device: str = "cpu") -> Track:
    """Fit the head model to a capture. Frames without a face are bridged from their neighbours and keep their flag."""
    everything = landmark_surface(model, device)
    if (everything.valid & reported_points()).sum() < 60:
        raise EffigyError(
            f'The head model "{model.name}" has no places for the detector\'s landmarks: embed them first '
            "(`backend.tracking.landmark_embedding`), or use the bundled open head.")
    seen = capture.landmarks.astype(np.float32)
    found = np.isfinite(seen).all((1, 2))
    good = found & (capture.flags == 0)
    training = np.flatnonzero(good[:capture.training_count])
    if len(training) == 0:
        training = np.flatnonzero(found[:capture.training_count])
    if len(training) == 0:
        raise EffigyError(f"No training frame of {capture.folder} shows a face: there is nothing to track. Choose other footage.")

    surface = everything.of_points(solved_points(everything.anchor.rest.cpu().numpy(), everything.valid, SOLVED_POINTS))
    pivot, directions = _middle(surface)

    def believe(state: FrameState | None, focal: Tensor | None) -> Evidence:
        """The points without what the detector always does to heads that stand so; as they are when that is not known."""
        points = seen if state is None else without_bias(
            seen, state.rotation.cpu().numpy(), (state.translation - (state.rotation @ pivot)).cpu().numpy(), float(focal))
        found = gather_evidence(points, capture.intrinsics, capture.size, surface, pivot)
        return found if focal is None else replace(found, focal=focal)

    evidence = believe(None, None)
    table = priors_for(model, capture.scores, SCORE_NAMES, float(capture.fps))
    beliefs = Beliefs(**{name: torch.as_tensor(getattr(table, name), device=device)
                         for name in ("mean", "precision", "acceleration", "lower", "upper", "fixed", "vergence")})

    def start(who: torch.Tensor, which: torch.Tensor) -> FrameState:
        return _stand(surface.of_person(who), evidence, beliefs, torch.as_tensor(seen[:, surface.points], device=device), which)

    def told(stage: str, total: int) -> Callable[[int, float], None]:
        def tell(done: int, energy: float) -> None:
            progress.update(stage, done, total, energy=energy)
            progress.raise_if_cancelled()
        return tell

    chosen = torch.as_tensor(training[np.linspace(0, len(training) - 1, min(PERSON_FRAMES, len(training))).round().astype(int)])
    nobody = torch.zeros(surface.anchor.shape.shape[-1], device=device)
    everybody = torch.arange(len(seen))
    evidence = believe(start(nobody, everybody), evidence.focal)
    person = fit_person(surface, directions, evidence[chosen], beliefs[chosen], start(nobody, chosen), PERSON_ITERATIONS,
                        told("person", PERSON_ITERATIONS))
    progress.message(_focal_sentence(person, float(evidence.focal)))
    evidence = replace(evidence, focal=person.focal)
    own = surface.of_person(person.identity)
    state = _solve_windows(capture, own, directions, evidence, beliefs, start(person.identity, everybody), progress)
    evidence = believe(state, person.focal)
    outline = see_outline(capture, state, evidence)
    shell = _fit_hair(make_shell(model, person.identity.cpu().numpy(), pivot), own, directions, evidence[chosen],
                      beliefs[chosen], state[chosen], outline[chosen])
    contact = see_contact(seen, own, state, person.focal, slice(capture.training_count))
    limbus, irises = limbus_surface(model, device), None
    if limbus is not None:
        irises = see_irises(capture, limbus.of_person(person.identity), state, evidence, training)
        evidence = irises.instead_of_points(evidence, surface.points)
    state = _solve_windows(capture, own, directions, evidence, beliefs, state, progress, (outline, shell), contact,
                           irises)
    track = _to_track(capture, model, person, state, evidence.pivot, good)
    residual = landmark_error(track, capture, model)
    return replace(track, residual=residual, flags=flag_frames(track.flags, residual, capture.size))


def _middle(surface: LandmarkSurface) -> tuple[torch.Tensor, torch.Tensor]:
    """The middle of the face's points (3,), and directions (L, 3) to the points from the middle of the skull."""
    inner = torch.as_tensor(surface.valid & ~np.isin(surface.points, CONTOUR), device=surface.mover.device)
    pivot = surface.anchor.rest[inner].mean(0)
    skull = pivot - torch.tensor((0.0, 0.0, _SKULL_DEPTH), device=pivot.device)
    return pivot, torch.nn.functional.normalize(surface.anchor.rest - skull, dim=-1)


def _stand(surface: LandmarkSurface, evidence: Evidence, beliefs: Beliefs, seen: torch.Tensor, which: torch.Tensor) -> FrameState:
    """A start for some frames: face as the scores say, pose by aligning it to the detector's points in depth."""
    which = which.to(seen.device)
    face = beliefs.mean[which].clone()
    points = pose_points(surface, face[:, :-7], axis_angle_to_matrix(joint_vectors(face)))[0] - evidence.pivot
    rotation, translation = stand_head(points, torch.nan_to_num(seen[which]), evidence.weights[which], evidence.focal,
                                       evidence.centre)
    missing = (evidence.weights[which].sum(1) == 0).cpu().numpy()
    if missing.any() and not missing.all():
        # A frame without a face stands where the nearest one with a face stands; smoothness does the rest.
        there = np.flatnonzero(~missing)
        nearest = there[np.abs(there[None] - np.flatnonzero(missing)[:, None]).argmin(1)]
        gaps = torch.as_tensor(np.flatnonzero(missing), device=seen.device)
        source = torch.as_tensor(nearest, device=seen.device)
        face[gaps], rotation[gaps], translation[gaps] = face[source], rotation[source], translation[source]
    return FrameState(face, rotation, translation)


def _fit_hair(shell: Shell, surface: LandmarkSurface, directions: torch.Tensor, evidence: Evidence, beliefs: Beliefs,
              state: FrameState, outline: Outline) -> Shell:
    """The shell of some frames of the training part, whose poses it bends as it will bend all frames'."""
    alone = torch.zeros(max(len(state) - 1, 0), dtype=torch.bool, device=state.face.device)
    for _ in range(HAIR_ROUNDS - 1):
        shell = fit_shell(shell, outline, evidence, state)
        state = fit_frames(surface, directions, evidence, beliefs, state, alone, 0, OUTLINE_ITERATIONS, lambda *_: None,
                           (outline, shell))
    return fit_shell(shell, outline, evidence, state)


def _solve_windows(capture: Capture, surface: LandmarkSurface, directions: torch.Tensor, evidence: Evidence, beliefs: Beliefs,
                   state: FrameState, progress: Progress, outline: tuple[Outline, Shell] | None = None,
                   contact: Contact | None = None, irises: Irises | None = None) -> FrameState:
    """All frames, a window at a time, each anchored on the two frames before it. No window reaches over the end of the
    training part, so no held-out frame has a say in a training frame; the other way round it may."""
    frames = len(state)
    done: list[FrameState] = []
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
            progress.update("frames", start + (end - start) * iteration // FRAME_ITERATIONS, frames, energy=energy)
            progress.raise_if_cancelled()

        solved = fit_frames(surface, directions, evidence[span], beliefs[span], begin, linked, held,
                            FRAME_ITERATIONS if outline is None else OUTLINE_ITERATIONS, tell,
                            None if outline is None else (outline[0][span], outline[1]),
                            None if contact is None else contact[span], None if irises is None else irises[span])
        done.append(solved[held:held + end - start])
        start = end
    progress.update("frames", frames, frames)
    return concatenate(done)


def _to_track(capture: Capture, model: HeadModel, person: Person, state: FrameState, pivot: torch.Tensor, good: np.ndarray) -> Track:
    identity = person.identity.cpu().numpy()
    rotation = state.rotation.double().cpu().numpy()
    # Many small turns were multiplied in float32; the nearest rotation again, before anything is inverted.
    u, _, vt = np.linalg.svd(rotation)
    rotation = u @ vt
    translation = state.translation.double().cpu().numpy() - rotation @ pivot.double().cpu().numpy()
    shaped = model.template + model.shape_basis @ identity
    neck_joint = model.joint_regressor[NECK].astype(np.float64) @ shaped
    neck, head_to_camera = split_neck(rotation, translation, neck_joint, good, capture.training_count, float(capture.fps))

    rotations = np.zeros((len(state), 5, 3))
    rotations[:, 1] = neck
    rotations[:, 2:] = joint_vectors(state.face).cpu().numpy()
    intrinsics = capture.intrinsics.copy()
    intrinsics[0, 0] = intrinsics[1, 1] = float(person.focal)
    return Track(
        head_name=model.name, head_fingerprint=model.fingerprint, identity=identity.astype(np.float32),
        expression=state.face[:, :-7].cpu().numpy().astype(np.float32), rotations=rotations.astype(np.float32),
        head_to_camera=head_to_camera.astype(np.float32), intrinsics=intrinsics.astype(np.float32), size=capture.size,
        fps=capture.fps, residual=np.full(len(state), np.nan, np.float32), flags=capture.flags.astype(np.int32),
        training_count=capture.training_count,
    )


def project_landmarks(track: Track, model: HeadModel) -> np.ndarray:
    """(F, 478, 2) pixels: the detector's points on the posed mesh's own surface; NaN where it has no place for one.

    Poses the corners of the landmarks' triangles through `backend.head.forward`, not through the tracker's own reduced
    surface, so a defect of the latter shows in the error.
    """
    valid = model.landmark_faces >= 0
    corners = model.faces[model.landmark_faces[valid]]
    used, index = np.unique(corners, return_inverse=True)
    head = Head(_only_vertices(model, used))
    shaped = head.shaped(torch.as_tensor(track.identity)[None])
    # Joints come from the whole mesh, which the reduced model does not have.
    joints = model.joint_regressor.astype(np.float64) @ (model.template + model.shape_basis @ track.identity)
    shaped = shaped._replace(joints=torch.as_tensor(joints, dtype=torch.float32)[None])
    result = np.full((track.frame_count, len(valid), 2), np.nan, np.float32)
    weights = torch.as_tensor(model.landmark_barycentric[valid], dtype=torch.float32)
    for start in range(0, track.frame_count, 128):
        part = slice(start, start + 128)
        posed = head(shaped, torch.as_tensor(track.expression[part]), torch.as_tensor(track.rotations[part])).vertices
        points = (posed[:, index.reshape(corners.shape)] * weights[..., None]).sum(2).numpy()
        matrix = track.head_to_camera[part]
        inside = points @ matrix[:, :3, :3].transpose(0, 2, 1) + matrix[:, None, :3, 3]
        pixels = inside @ track.intrinsics.T
        result[part, valid] = pixels[..., :2] / pixels[..., 2:]
    return result


def _only_vertices(model: HeadModel, used: np.ndarray) -> HeadModel:
    return replace(model, template=model.template[used], shape_basis=model.shape_basis[used],
                   expression_basis=model.expression_basis[used], pose_basis=model.pose_basis[used],
                   joint_regressor=model.joint_regressor[:, used], skinning=model.skinning[used],
                   faces=np.zeros((0, 3), np.int32))


def landmark_error(track: Track, capture: Capture, model: HeadModel) -> np.ndarray:
    """(F,) median distance, pixels at the capture's size, over all points but the face contour, of the mesh's places to the
    detector's points without its known habits (`bias`); NaN without a face."""
    seen = unbiased_landmarks(track, capture.landmarks)[..., :2]
    distance = np.linalg.norm(project_landmarks(track, model) - seen, axis=-1)[:, reported_points()]
    known = np.isfinite(distance).any(1)
    result = np.full(len(distance), np.nan, np.float32)
    result[known] = np.nanmedian(distance[known], axis=1)
    return result


def flag_frames(flags: np.ndarray, residual: np.ndarray, size: int) -> np.ndarray:
    """The capture's flags and TRACK_UNSURE where the rig does not explain the landmarks, or there were none."""
    unsure = ~(residual <= UNSURE_PIXELS * size / 512)
    return (flags | np.where(unsure, int(FrameFlag.TRACK_UNSURE), 0)).astype(np.int32)


def _focal_sentence(person: Person, guess: float) -> str:
    focal = f"Focal length {float(person.focal):.0f} px (guess {guess:.0f} px, uncertain by {100 * person.focal_sigma:.0f} %)"
    if person.focal_sigma > 0.6 * FOCAL_SIGMA:
        return f"{focal}: the clip does not tell it, so it stays near the guess."
    return f"{focal}: seen in the clip's perspective."
