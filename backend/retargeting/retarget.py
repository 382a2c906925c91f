"""Performance transfer: the track of one person, the performer, drives the head of another, the target.

Nobody's neutral face is all zeros: brows are high or low, lips are parted, the gaze is off by some degrees, and
identity does not capture all of that. So the change from the performer's own neutral face is added to the target's
neutral face:

    target(t) = target's neutral + intensity * (performer(t) - performer's neutral)

The neutral face is estimated from each track alone (`neutral_of`): the median of its quietest frames, and for mouth and
jaw the lowest tenth of their values, because a talking person seldom shows a mouth at rest. Two things are neither
scaled by the intensity nor smoothed: blinks, in which closed stays closed whatever the neutral eyelids are, and the
gaze. The head moves from the target's own resting pose as the performer's moves from the performer's. Flags stay with
their frames; in frames without a reliable face the pose is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation, Slerp

from ..channel_change import MAX_NEUTRAL_JAW, REST_QUANTILE, UNSCALED, bounds_of, opening_gains, scales_of
from ..correspondence.arkit import ARKIT_NAMES, arkit_map, arkit_names_of
from ..errors import EffigyError
from ..formats.capture import FrameFlag
from ..formats.frame_times import are_even
from ..formats.track import Track
from ..head.jaw import RETARGETING_LIMITS
from ..head.model import EYE_L, JAW, NECK, HeadModel, same_coefficients
from ..head.rigid_alignment import nearest_rotation

QUIET_SHARE: Final = 0.2
"""Share of a track's reliable frames, the quietest ones, whose median is the neutral face."""
UNRELIABLE: Final = FrameFlag.NO_FACE | FrameFlag.TRACK_UNSURE
MAX_INTENSITY, MAX_SMOOTHING, MAX_MOTION = 3.0, 2.0, 2.0


@dataclass(frozen=True)
class Neutral:
    """A person's resting face and resting head pose."""

    expression: np.ndarray
    """(E,)"""
    rotations: np.ndarray
    """(5, 3) axis-angle."""
    head_to_camera: np.ndarray
    """(4, 4)"""


def neutral_of(track: Track, model: HeadModel) -> Neutral:
    """The neutral pose of a track: the median of the quietest fifth of its reliable frames.

    A frame's activity is the root mean square distance of the face's vertices from a first guess of the neutral face,
    with the jaw but without the gaze. The first guess is the lowest tenth of each channel that acts in one direction
    only (the named ones), and the median of FLAME's coefficients, which act in both. Named channels of the mouth keep
    that tenth, and the jaw keeps its lowest tenth if it is nearly closed there: closed lips and teeth mean the same on
    every face, and the median of a person who talks through the whole clip would be an open mouth.
    """
    reliable = np.flatnonzero((track.flags & int(UNRELIABLE)) == 0)
    if len(reliable) == 0:
        raise EffigyError(
            "The track has no frame with a reliable face, so nothing can be transferred from it or to it."
        )
    face = np.concatenate((track.expression[reliable], track.rotations[reliable, JAW]), 1).astype(np.float64)
    named = bool(arkit_names_of(model))
    # "lower" does not interpolate: a channel that rests in most frames then rests at exactly zero.
    guess = np.quantile(face, REST_QUANTILE, axis=0, method="lower") if named else np.median(face, axis=0)
    guess[-2:] = np.median(face[:, -2:], axis=0)
    change = (face - guess).astype(np.float32)
    activity = np.einsum("fi,ij,fj->f", change, _gram(model), change)
    quiet = reliable[np.argsort(activity, kind="stable")[: max(1, round(QUIET_SHARE * len(reliable)))]]
    rotations = np.median(track.rotations[quiet], axis=0)
    # The head and the eyes rest at their median; a quiet face may look anywhere.
    rotations[EYE_L:] = np.median(track.rotations[reliable, EYE_L:], axis=0)
    rotations[NECK] = _robust_mean(track.rotations[reliable, NECK])
    rotations[JAW, 0] = np.clip(
        np.quantile(track.rotations[reliable, JAW, 0], REST_QUANTILE), -MAX_NEUTRAL_JAW, MAX_NEUTRAL_JAW
    )
    expression = np.median(track.expression[quiet], axis=0).astype(np.float64)
    for column, name in enumerate(model.expression_names):
        if name.startswith(("mouth", "jaw")):
            expression[column] = guess[column]
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(
        _robust_mean(Rotation.from_matrix(track.head_to_camera[reliable, :3, :3]).as_rotvec())
    ).as_matrix()
    pose[:3, 3] = np.median(track.head_to_camera[reliable, :3, 3], axis=0)
    return Neutral(expression, rotations.astype(np.float64), pose)


def retarget(
    performance: Track,
    performer: HeadModel,
    target: Track,
    model: HeadModel,
    *,
    intensity: float = 1.0,
    smoothing: float = 0.0,
    motion: float = 1.0,
    fps: Fraction | None = None,
    performer_neutral: Neutral | None = None,
) -> Track:
    """The performance on the target's head: a track with the target's identity and camera, as long as the performance.

    Args:
        performance: The performer's track.
        performer: The head model of that track.
        target: A track of the target, from which the neutral face and pose are taken.
        model: The head model of the target's track.
        intensity: Factor of the expression.
        smoothing: Seconds, the standard deviation of a Gaussian over time.
        motion: Factor of the head's motion.
        fps: Frames a second of the result; the performance's own if None.
        performer_neutral: The performer's resting face; estimated from the performance if None.

    Returns:
        The track. Its residuals are NaN, because it was not compared with images.

    """
    for name, value, maximum in (
        ("intensity", intensity, MAX_INTENSITY),
        ("smoothing", smoothing, MAX_SMOOTHING),
        ("motion", motion, MAX_MOTION),
    ):
        if not 0 <= value <= maximum:
            raise EffigyError(f"The {name} of a transfer lies between 0 and {maximum:g}, not at {value:g}.")
    performer_neutral = performer_neutral or neutral_of(performance, performer)
    target_neutral = neutral_of(target, model)
    performance = _resampled(_interpolated(performance), fps or performance.fps)
    performance = _smoothed(performance, performer, smoothing)

    expression, jaw = _face(performance, performer, performer_neutral, model, target_neutral, intensity)
    rotations = np.zeros((performance.frame_count, 5, 3))
    rotations[:, JAW] = np.clip(jaw, RETARGETING_LIMITS.jaw_lower, RETARGETING_LIMITS.jaw_upper)
    gaze = target_neutral.rotations[EYE_L:] + performance.rotations[:, EYE_L:] - performer_neutral.rotations[EYE_L:]
    rotations[:, EYE_L:, :2] = np.clip(gaze[..., :2], -RETARGETING_LIMITS.gaze, RETARGETING_LIMITS.gaze)
    neck = Rotation.from_rotvec(performer_neutral.rotations[NECK]).inv() * Rotation.from_rotvec(
        performance.rotations[:, NECK]
    )
    rotations[:, NECK] = (Rotation.from_rotvec(target_neutral.rotations[NECK]) * _scaled(neck, motion)).as_rotvec()
    return target.posed(
        expression=expression.astype(np.float32),
        rotations=rotations.astype(np.float32),
        head_to_camera=_head_poses(performance, performer_neutral, target_neutral, motion).astype(np.float32),
        # It moves with the root, as the performer's body does by `split_neck`.
        torso_to_camera=None,
        fps=performance.fps,
        frame_times=performance.frame_times,
        residual=np.full(performance.frame_count, np.nan, np.float32),
        flags=performance.flags,
        training_count=0,
    )


def _face(
    performance: Track,
    performer: HeadModel,
    performer_neutral: Neutral,
    model: HeadModel,
    target_neutral: Neutral,
    intensity: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Expression (F, E) and jaw (F, 3) on the target's head."""
    names, shares = model.expression_names, same_coefficients(performer.fingerprint, model.fingerprint)
    if shares:
        at_rest, shown = performer_neutral.expression[None], performance.expression.astype(np.float64)
        change, jaw = (
            scales_of(names, intensity) * (shown - at_rest),
            intensity * (performance.rotations[:, JAW] - performer_neutral.rotations[JAW]),
        )
    else:
        # Through ARKit's channels, which every head has.
        mapping = arkit_map(performer)
        at_rest = mapping.read(performer_neutral.expression[None], performer_neutral.rotations[None, JAW])
        shown = mapping.read(
            performance.expression.astype(np.float64), performance.rotations[:, JAW].astype(np.float64)
        )
        change, jaw = arkit_map(model).applied(scales_of(ARKIT_NAMES, intensity) * (shown - at_rest))
    expression = target_neutral.expression + change
    low, high = model.expression_range
    if arkit_names_of(model):
        by_name = dict(zip(names if shares else ARKIT_NAMES, at_rest[0], strict=True))
        neutral = np.array([by_name.get(name, 0.0) for name in names])
        gains = opening_gains(names, neutral, target_neutral.expression)
        expression += np.clip(change, 0, None) * (gains - 1)
        high = bounds_of(names, high, target_neutral.expression)
    return np.clip(expression, low, high), target_neutral.rotations[JAW] + jaw


def _head_poses(performance: Track, performer_neutral: Neutral, target_neutral: Neutral, motion: float) -> np.ndarray:
    """(F, 4, 4): the performer's head motion relative to its neutral pose, applied to the target's neutral pose."""
    inverse = Rotation.from_matrix(performer_neutral.head_to_camera[:3, :3]).inv()
    rest = Rotation.from_matrix(target_neutral.head_to_camera[:3, :3])
    rotation = _scaled(inverse * Rotation.from_matrix(performance.head_to_camera[:, :3, :3]), motion)
    shift = inverse.apply(performance.head_to_camera[:, :3, 3] - performer_neutral.head_to_camera[:3, 3])
    poses = np.tile(np.eye(4), (performance.frame_count, 1, 1))
    poses[:, :3, :3] = (rest * rotation).as_matrix()
    poses[:, :3, 3] = target_neutral.head_to_camera[:3, 3] + motion * rest.apply(shift)
    return poses


def _gram(model: HeadModel) -> np.ndarray:
    """(E + 3, E + 3): the quadratic form that gives the mean squared displacement of the face's vertices.

    Its arguments are expression (E) without the gaze, and the jaw's axis-angle (3).
    """
    face = model.regions["face"]
    face = face if len(face) else np.arange(len(model.template))
    basis = model.expression_basis[face].astype(np.float64)
    for column, name in enumerate(model.expression_names):
        if name.startswith("eyeLook"):
            basis[..., column] = 0
    joint = model.joint_regressor[JAW].astype(np.float64) @ model.template
    levers = model.template[face] - joint
    swing = np.stack([np.cross(axis, levers) for axis in np.eye(3)], -1) * model.skinning[face, JAW][:, None, None]
    moved = np.concatenate((basis, swing), -1).reshape(-1, basis.shape[-1] + 3)
    return moved.T @ moved / len(face)


def _interpolated(track: Track) -> Track:
    """The track with unreliable frames interpolated between the nearest reliable ones."""
    reliable = np.flatnonzero((track.flags & int(UNRELIABLE)) == 0)
    if len(reliable) == track.frame_count:
        return track
    return _at(track, track.times, reliable)


def _resampled(track: Track, fps: Fraction) -> Track:
    if not 1 <= fps <= 240:
        raise EffigyError(f"A performance plays at 1 to 240 frames a second, not at {float(fps):g}.")
    taken = track.times
    if fps == track.fps and are_even(taken, fps):
        return track
    count = max(1, round(taken[-1] * float(fps)) + 1)
    times = np.minimum(np.arange(count) / float(fps), taken[-1])
    nearest = np.interp(times, taken, np.arange(track.frame_count)).round().astype(int)
    return _at(track, times, np.arange(track.frame_count)).posed(
        fps=fps,
        frame_times=None,
        flags=track.flags[nearest],
        residual=np.full(count, np.nan, np.float32),
    )


def _at(track: Track, times: np.ndarray, known: np.ndarray) -> Track:
    """The poses at `times` (K,), in seconds since the first frame, interpolated between the frames `known`."""
    taken = track.times[known]

    def linear(values: np.ndarray) -> np.ndarray:
        flat = values[known].reshape(len(known), -1)
        mixed = np.stack([np.interp(times, taken, column) for column in flat.T], 1)
        return mixed.reshape(len(times), *values.shape[1:]).astype(np.float32)

    head_to_camera = np.tile(np.eye(4, dtype=np.float32), (len(times), 1, 1))
    head_to_camera[:, :3, 3] = linear(track.head_to_camera[:, :3, 3])
    rotations = Rotation.from_matrix(track.head_to_camera[known, :3, :3])
    if len(known) > 1:
        rotations = Slerp(taken, rotations)(np.clip(times, taken[0], taken[-1]))
    head_to_camera[:, :3, :3] = rotations.as_matrix()
    return track.posed(
        expression=linear(track.expression),
        rotations=linear(track.rotations),
        head_to_camera=head_to_camera,
        torso_to_camera=None,
    )


def _smoothed(track: Track, model: HeadModel, seconds: float) -> Track:
    """The track smoothed over time, except blinks and gaze, which really are abrupt."""
    sigma = seconds * float(track.fps)
    if sigma < 0.05 or track.frame_count < 3:
        return track

    def smooth(values: np.ndarray) -> np.ndarray:
        return gaussian_filter1d(values.astype(np.float64), sigma, axis=0, mode="nearest")

    smoothed = [column for column, name in enumerate(model.expression_names) if not name.startswith(UNSCALED)]
    expression, rotations = track.expression.copy(), track.rotations.copy()
    expression[:, smoothed] = smooth(expression[:, smoothed])
    rotations[:, [NECK, JAW]] = smooth(rotations[:, [NECK, JAW]])
    pose = track.head_to_camera.copy()
    pose[:, :3, 3] = smooth(pose[:, :3, 3])
    # The mean of nearby rotation matrices, projected back onto a rotation, is their mean rotation.
    pose[:, :3, :3] = nearest_rotation(smooth(pose[:, :3, :3].reshape(-1, 9)).reshape(-1, 3, 3))
    return track.posed(expression=expression, rotations=rotations, head_to_camera=pose)


def _scaled(rotations: Rotation, factor: float) -> Rotation:
    """Rotations about the same axes, by `factor` times the angle."""
    return Rotation.from_rotvec(factor * rotations.as_rotvec())


def _robust_mean(vectors: np.ndarray) -> np.ndarray:
    """A robust mean (3,) of axis-angle rotations (F, 3): the median of their rotations relative to the mean."""
    rotations = Rotation.from_rotvec(np.asarray(vectors, np.float64))
    mean = rotations.mean()
    return (mean * Rotation.from_rotvec(np.median((mean.inv() * rotations).as_rotvec(), axis=0))).as_rotvec()
