"""The poses of a scored sheet of sliders: rest, each of ARKit's 52 sliders at one half and at one, and 20 combinations.

The combinations are the fifteen visemes of Oculus Lipsync, with the mouth shapes that its reference pictures show, and
five emotions by their action units (Ekman & Friesen 1978: joy is AU 6 + 12 + 25, anger 4 + 5 + 7 + 23, sadness
1 + 4 + 15, surprise 1 + 2 + 5 + 26, disgust 9 + 10 + 16).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..head.jaw import JAW_SHAPES, gaze_rotations_of_shapes, jaw_rotations_of_shapes, lips_over_open_jaw
from ..head.model import JAW, HeadModel

VALUES: Final = (0.5, 1.0)
"""Of each slider alone."""


def _both(**values: float) -> dict[str, float]:
    return {name + side: value for name, value in values.items() for side in ("Left", "Right")}


VISEMES: Final[dict[str, dict[str, float]]] = {
    "sil": {},
    "PP": {"mouthRollLower": 0.6, "mouthRollUpper": 0.6, **_both(mouthPress=0.5)},
    "FF": {"mouthRollLower": 0.7, **_both(mouthUpperUp=0.3), "jawOpen": 0.1},
    "TH": {"jawOpen": 0.2, "tongueOut": 0.4, **_both(mouthLowerDown=0.2)},
    "DD": {"jawOpen": 0.2, **_both(mouthLowerDown=0.3, mouthUpperUp=0.2)},
    "kk": {"jawOpen": 0.25, **_both(mouthLowerDown=0.3, mouthStretch=0.2)},
    "CH": {"mouthFunnel": 0.6, "mouthPucker": 0.3, "jawOpen": 0.15},
    "SS": {**_both(mouthStretch=0.4, mouthLowerDown=0.4, mouthUpperUp=0.2), "jawOpen": 0.05},
    "nn": {"jawOpen": 0.15, **_both(mouthLowerDown=0.3), "tongueOut": 0.1},
    "RR": {"mouthFunnel": 0.4, "mouthPucker": 0.3, "jawOpen": 0.2},
    "aa": {"jawOpen": 0.6},
    "E": {"jawOpen": 0.3, **_both(mouthStretch=0.4, mouthSmile=0.2)},
    "ih": {"jawOpen": 0.2, **_both(mouthStretch=0.3, mouthSmile=0.3)},
    "oh": {"jawOpen": 0.4, "mouthFunnel": 0.6},
    "ou": {"mouthPucker": 0.8, "mouthFunnel": 0.3, "jawOpen": 0.1},
}
EMOTIONS: Final[dict[str, dict[str, float]]] = {
    "joy": {**_both(mouthSmile=0.8, cheekSquint=0.6, eyeSquint=0.4, mouthUpperUp=0.3), "jawOpen": 0.2},
    "anger": _both(browDown=0.9, eyeSquint=0.4, eyeWide=0.2, mouthPress=0.6, noseSneer=0.3),
    "sadness": {"browInnerUp": 0.9, **_both(browDown=0.1, mouthFrown=0.7), "mouthShrugLower": 0.4},
    "surprise": {"browInnerUp": 0.8, **_both(browOuterUp=0.8, eyeWide=0.8), "jawOpen": 0.5},
    "disgust": _both(noseSneer=0.8, mouthUpperUp=0.6, browDown=0.4, mouthLowerDown=0.3),
}


@dataclass(frozen=True)
class SliderPose:
    name: str
    values: Mapping[str, float]
    """Of ARKit's sliders; those that are left out are at 0."""
    base: Mapping[str, float] = field(default_factory=dict)
    """The pose from which a change is measured: rest, except for mouthClose, which ARKit defines as the closing of the
    lips over an open jaw. It is included in `values`."""

    @property
    def asked(self) -> dict[str, float]:
        """The sliders that move from `base`."""
        return {name: value for name, value in self.values.items() if name not in self.base}


REST: Final = SliderPose("at rest", {})


def slider_pose(name: str, value: float) -> SliderPose:
    base = {"jawOpen": value} if name == "mouthClose" else {}
    return SliderPose(name, {name: value, **base}, base)


def sheet_poses() -> list[SliderPose]:
    """Rest, then each slider at VALUES in turn, then visemes and emotions: 125 poses."""
    sliders = [slider_pose(name, value) for name in SCORE_NAMES for value in VALUES]
    return [REST, *sliders, *(SliderPose(name, values) for name, values in (VISEMES | EMOTIONS).items())]


def pose_arrays(model: HeadModel, poses: Sequence[SliderPose]) -> tuple[np.ndarray, np.ndarray]:
    """(P, E) expressions and (P, 5, 3) rotations, as in a track of a head with ARKit's names.

    The jaw's sliders rotate the jaw joint. The eyeLook sliders, which move the lids, rotate the eye as well, as Gaze
    does in Blender. Raises an `EffigyError` for a head without these names.
    """
    missing = [name for name in SCORE_NAMES if name not in model.expression_names]
    if missing:
        raise EffigyError(
            f"The head model “{model.name}” has no slider {missing[0]}: only heads with ARKit's 52 names can be "
            "scored, because the detector knows no others. Leave --scores out."
        )
    expression = np.zeros((len(poses), len(model.expression_names)), np.float32)
    rotations = np.zeros((len(poses), 5, 3), np.float32)
    joints = _joint_rotations(model)
    for row, pose in enumerate(poses):
        for name, value in pose.values.items():
            if name not in JAW_SHAPES:
                expression[row, model.expression_names.index(name)] = value
            if name in joints:
                joint, rotation = joints[name]
                rotations[row, joint] += value * rotation
    return lips_over_open_jaw(model, expression, rotations), rotations


def _joint_rotations(model: HeadModel) -> dict[str, tuple[int, np.ndarray]]:
    """Slider -> the joint that it turns, and the axis-angle (3,) at 1."""
    jaw = {name: (JAW, rotation) for name, rotation in jaw_rotations_of_shapes(model).items()}
    return jaw | gaze_rotations_of_shapes()
