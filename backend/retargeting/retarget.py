"""Performance transfer: one person's track drives another's head.

Nobody's neutral face is all zeros: brows lie high or low, lips part, a gaze is off by some degrees, and identity cannot
tell it all. So what is carried over is the change from the performer's own neutral face, and it is laid on the other's:

    target(t) = target's neutral + intensity * (performer(t) - performer's neutral)

The neutral is estimated from each track alone (`neutral_of`): the median of its quietest frames, and of mouth and jaw
their lowest tenth, since who talks seldom shows a mouth at rest. Two things are not scaled by the intensity and not
smoothed, because half of them is something else: blinks, of which closed stays closed whatever the neutral lids, and
the gaze. The head moves from the target's own resting place before its camera, as the performer moves from his. Flags
stay with their frames, so that what was not seen can still be told; the pose there is bridged.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation, Slerp

from ..correspondence.arkit import ARKIT_NAMES, arkit_map, arkit_names_of
from ..errors import EffigyError
from ..formats.capture import FrameFlag
from ..formats.track import Track
from ..head.jaw import RETARGETING_LIMITS
from ..head.model import EYE_L, JAW, NECK, HeadModel

QUIET_SHARE: Final = 0.2
"""Of a track's good frames: the quietest, whose median is the neutral."""
FLOOR: Final = 0.1
"""Quantile of a named channel that counts as its own rest, in a first guess."""
NEARLY_SHUT: Final = np.radians(1.0)
"""Three degrees part the lips by three millimetres: more than what tracks are off by."""
UNSEEN: Final = FrameFlag.NO_FACE | FrameFlag.TRACK_UNSURE
UNSCALED: Final = ("eyeBlink", "eyeLook")
MOST_INTENSITY, MOST_SMOOTHING, MOST_MOTION = 3.0, 2.0, 2.0
HIGHEST: Final = {"brow": 1.6}
"""As far as tracks themselves go; all other named channels end at 1."""


@dataclass(frozen=True)
class Neutral:
    """A person's resting face and place."""

    expression: np.ndarray
    """(E,)"""
    rotations: np.ndarray
    """(5, 3) axis-angle."""
    head_to_camera: np.ndarray
    """(4, 4)"""


def neutral_of(track: Track, model: HeadModel) -> Neutral:
    """The median of the quietest fifth of the frames that were seen.

    A frame's loudness is how far its face is moved from a first guess of its rest, root mean square over the face's
    vertices, jaw included, gaze left out. The first guess is, for a channel that only pushes one way (the named ones),
    its own low tenth, for FLAME's coefficients, which go both ways, its median. Named channels of the mouth keep that
    tenth, and the jaw rests at its own, if that is nearly shut: lips and teeth that meet mean the same on every face,
    and the median of somebody who talks through the whole clip would be an open mouth.
    """
    seen = np.flatnonzero((track.flags & int(UNSEEN)) == 0)
    if len(seen) == 0:
        raise EffigyError(
            "The track has no frame with a face that is sure, so nothing can be transferred from it or to it."
        )
    face = np.concatenate((track.expression[seen], track.rotations[seen, JAW]), 1).astype(np.float64)
    named = bool(arkit_names_of(model))
    # Lower, not between: a channel that is at rest in most frames rests at zero exactly.
    guess = np.quantile(face, FLOOR, axis=0, method="lower") if named else np.median(face, axis=0)
    guess[-2:] = np.median(face[:, -2:], axis=0)
    change = (face - guess).astype(np.float32)
    loudness = np.einsum("fi,ij,fj->f", change, _gram(model), change)
    quiet = seen[np.argsort(loudness, kind="stable")[: max(1, round(QUIET_SHARE * len(seen)))]]
    rotations = np.median(track.rotations[quiet], axis=0)
    # The head and the eyes rest where they mostly are; a quiet face may look anywhere.
    rotations[EYE_L:] = np.median(track.rotations[seen, EYE_L:], axis=0)
    rotations[NECK] = _middle(track.rotations[seen, NECK])
    rotations[JAW, 0] = np.clip(np.quantile(track.rotations[seen, JAW, 0], FLOOR), -NEARLY_SHUT, NEARLY_SHUT)
    expression = np.median(track.expression[quiet], axis=0).astype(np.float64)
    for column, name in enumerate(model.expression_names):
        if name.startswith(("mouth", "jaw")):
            expression[column] = guess[column]
    place = np.eye(4)
    place[:3, :3] = Rotation.from_rotvec(
        _middle(Rotation.from_matrix(track.head_to_camera[seen, :3, :3]).as_rotvec())
    ).as_matrix()
    place[:3, 3] = np.median(track.head_to_camera[seen, :3, 3], axis=0)
    return Neutral(expression, rotations.astype(np.float64), place)


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
) -> Track:
    """The performance on the target's head: a track of the target's identity and camera, as long as the performance.

    `performer` and `model` are the head models of the two tracks. `intensity`: of the expression; `smoothing`: seconds,
    standard deviation of a Gaussian over time; `motion`: of the head; `fps`: frames a second of the result, the
    performance's own if not given. Residuals are NaN: no picture was looked at.
    """
    for name, value, most in (
        ("intensity", intensity, MOST_INTENSITY),
        ("smoothing", smoothing, MOST_SMOOTHING),
        ("motion", motion, MOST_MOTION),
    ):
        if not 0 <= value <= most:
            raise EffigyError(f"The {name} of a transfer lies between 0 and {most:g}, not at {value:g}.")
    ours, theirs = neutral_of(performance, performer), neutral_of(target, model)
    performance = _resampled(_bridged(performance), fps or performance.fps)
    performance = _smoothed(performance, performer, smoothing)

    expression, jaw = _face(performance, performer, ours, model, theirs, intensity)
    rotations = np.zeros((performance.frame_count, 5, 3))
    rotations[:, JAW] = np.clip(jaw, RETARGETING_LIMITS.jaw_lower, RETARGETING_LIMITS.jaw_upper)
    gaze = theirs.rotations[EYE_L:] + performance.rotations[:, EYE_L:] - ours.rotations[EYE_L:]
    rotations[:, EYE_L:, :2] = np.clip(gaze[..., :2], -RETARGETING_LIMITS.gaze, RETARGETING_LIMITS.gaze)
    neck = Rotation.from_rotvec(ours.rotations[NECK]).inv() * Rotation.from_rotvec(performance.rotations[:, NECK])
    rotations[:, NECK] = (Rotation.from_rotvec(theirs.rotations[NECK]) * _share(neck, motion)).as_rotvec()
    return target.posed(
        expression=expression.astype(np.float32),
        rotations=rotations.astype(np.float32),
        head_to_camera=_places(performance, ours, theirs, motion).astype(np.float32),
        fps=performance.fps,
        residual=np.full(performance.frame_count, np.nan, np.float32),
        flags=performance.flags,
        training_count=0,
    )


def _face(
    performance: Track, performer: HeadModel, ours: Neutral, model: HeadModel, theirs: Neutral, intensity: float
) -> tuple[np.ndarray, np.ndarray]:
    """Expression (F, E) and jaw (F, 3) on the target's head."""
    scale = np.array([1.0 if name.startswith(UNSCALED) else intensity for name in model.expression_names])
    if performer.fingerprint == model.fingerprint:
        at_rest, shown = ours.expression[None], performance.expression.astype(np.float64)
        change, jaw = scale * (shown - at_rest), intensity * (performance.rotations[:, JAW] - ours.rotations[JAW])
    else:
        # By way of ARKit's names, which every head has.
        told = arkit_map(performer)
        at_rest = told.read(ours.expression[None], ours.rotations[None, JAW])
        shown = told.read(performance.expression.astype(np.float64), performance.rotations[:, JAW].astype(np.float64))
        scale = np.array([1.0 if name.startswith(UNSCALED) else intensity for name in ARKIT_NAMES])
        change, jaw = arkit_map(model).applied(scale * (shown - at_rest))
    expression = theirs.expression + change
    low, high = model.expression_range
    if arkit_names_of(model):
        names = model.expression_names if performer.fingerprint == model.fingerprint else ARKIT_NAMES
        for column, name in enumerate(model.expression_names):
            if name.startswith("eyeBlink"):
                # From the one's neutral lids to closed becomes from the other's to closed.
                rest = at_rest[0, names.index(name)]
                room = (1 - theirs.expression[column]) / max(1 - rest, 0.2)
                expression[:, column] += np.clip(change[:, column], 0, None) * (room - 1)
        highest = np.array(
            [
                next((most for start, most in HIGHEST.items() if name.startswith(start)), high)
                for name in model.expression_names
            ]
        )
        high = np.maximum(highest, theirs.expression)
    return np.clip(expression, low, high), theirs.rotations[JAW] + jaw


def _places(performance: Track, ours: Neutral, theirs: Neutral, motion: float) -> np.ndarray:
    """(F, 4, 4): turned about the target's own axes as the performer turns about his, moved as he moves."""
    back = Rotation.from_matrix(ours.head_to_camera[:3, :3]).inv()
    rest = Rotation.from_matrix(theirs.head_to_camera[:3, :3])
    turn = _share(back * Rotation.from_matrix(performance.head_to_camera[:, :3, :3]), motion)
    shift = back.apply(performance.head_to_camera[:, :3, 3] - ours.head_to_camera[:3, 3])
    places = np.tile(np.eye(4), (performance.frame_count, 1, 1))
    places[:, :3, :3] = (rest * turn).as_matrix()
    places[:, :3, 3] = theirs.head_to_camera[:3, 3] + motion * rest.apply(shift)
    return places


def _gram(model: HeadModel) -> np.ndarray:
    """(E + 3, E + 3): the mean over the face's vertices of the squared displacement, as a form of expression and
    jaw.
    """
    face = model.regions["face"]
    face = face if len(face) else np.arange(len(model.template))
    basis = model.expression_basis[face].astype(np.float64)
    for column, name in enumerate(model.expression_names):
        if name.startswith("eyeLook"):
            basis[..., column] = 0
    joint = model.joint_regressor[JAW].astype(np.float64) @ model.template
    arms = model.template[face] - joint
    swing = np.stack([np.cross(axis, arms) for axis in np.eye(3)], -1) * model.skinning[face, JAW][:, None, None]
    moved = np.concatenate((basis, swing), -1).reshape(-1, basis.shape[-1] + 3)
    return moved.T @ moved / len(face)


def _bridged(track: Track) -> Track:
    """Frames that were not seen between the nearest that were."""
    seen = np.flatnonzero((track.flags & int(UNSEEN)) == 0)
    if len(seen) == track.frame_count:
        return track
    return _at(track, np.arange(track.frame_count, dtype=float), seen)


def _resampled(track: Track, fps: Fraction) -> Track:
    if not 1 <= fps <= 240:
        raise EffigyError(f"A performance plays at 1 to 240 frames a second, not at {float(fps):g}.")
    if fps == track.fps:
        return track
    count = max(1, round((track.frame_count - 1) * float(fps / track.fps)) + 1)
    places = np.minimum(np.arange(count) * float(track.fps / fps), track.frame_count - 1)
    return _at(track, places, np.arange(track.frame_count)).posed(
        fps=fps, flags=track.flags[places.round().astype(int)], residual=np.full(count, np.nan, np.float32)
    )


def _at(track: Track, places: np.ndarray, known: np.ndarray) -> Track:
    """The pose at places (K,), counted in frames, between the frames that are `known`."""

    def straight(values: np.ndarray) -> np.ndarray:
        flat = values[known].reshape(len(known), -1)
        mixed = np.stack([np.interp(places, known, column) for column in flat.T], 1)
        return mixed.reshape(len(places), *values.shape[1:]).astype(np.float32)

    head_to_camera = np.tile(np.eye(4, dtype=np.float32), (len(places), 1, 1))
    head_to_camera[:, :3, 3] = straight(track.head_to_camera[:, :3, 3])
    turns = Rotation.from_matrix(track.head_to_camera[known, :3, :3])
    if len(known) > 1:
        turns = Slerp(known, turns)(np.clip(places, known[0], known[-1]))
    head_to_camera[:, :3, :3] = turns.as_matrix()
    return track.posed(
        expression=straight(track.expression), rotations=straight(track.rotations), head_to_camera=head_to_camera
    )


def _smoothed(track: Track, model: HeadModel, seconds: float) -> Track:
    """All but blinks, what looks, and the eyes: those jump in truth."""
    sigma = seconds * float(track.fps)
    if sigma < 0.05 or track.frame_count < 3:
        return track

    def smooth(values: np.ndarray) -> np.ndarray:
        return gaussian_filter1d(values.astype(np.float64), sigma, axis=0, mode="nearest")

    slow = [column for column, name in enumerate(model.expression_names) if not name.startswith(UNSCALED)]
    expression, rotations = track.expression.copy(), track.rotations.copy()
    expression[:, slow] = smooth(expression[:, slow])
    rotations[:, [NECK, JAW]] = smooth(rotations[:, [NECK, JAW]])
    place = track.head_to_camera.copy()
    place[:, :3, 3] = smooth(place[:, :3, 3])
    # The mean of nearby matrices, made a rotation again, is their mean rotation.
    u, _, vt = np.linalg.svd(smooth(place[:, :3, :3].reshape(-1, 9)).reshape(-1, 3, 3))
    place[:, :3, :3] = u @ vt
    return track.posed(expression=expression, rotations=rotations, head_to_camera=place)


def _share(turns: Rotation, share: float) -> Rotation:
    return Rotation.from_rotvec(share * turns.as_rotvec())


def _middle(vectors: np.ndarray) -> np.ndarray:
    """A robust middle (3,) of rotations (F, 3): the median of what they turn from their mean."""
    turns = Rotation.from_rotvec(np.asarray(vectors, np.float64))
    mean = turns.mean()
    return (mean * Rotation.from_rotvec(np.median((mean.inv() * turns).as_rotvec(), axis=0))).as_rotvec()
