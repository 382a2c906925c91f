"""Twelve starter expressions, as values of ARKit's shapes.

The combinations follow the action units of the emotions (Ekman & Friesen 1978: joy is AU 6 + 12, sadness 1 + 4 + 15,
anger 4 + 5 + 7 + 23, surprise 1 + 2 + 5 + 26, fear 1 + 2 + 4 + 5 + 20, disgust 9 + 15 + 16). Some are slightly
asymmetric, because perfectly symmetric faces look lifeless.
"""

from __future__ import annotations

from math import radians
from typing import Final

from mathutils import Quaternion

from ..errors import EffigyError
from .face_angles import LOOK, look, rotate
from .rig_properties import Rig
from .sliders import set_expressions


def _both(name: str, left: float, right: float | None = None) -> dict[str, float]:
    return {f"{name}Left": left, f"{name}Right": left if right is None else right}


PRESETS: Final[dict[str, dict[str, float]]] = {
    "Smile": {
        **_both("mouthSmile", 0.7, 0.65),
        **_both("mouthDimple", 0.1),
        **_both("cheekSquint", 0.35),
        **_both("eyeSquint", 0.25),
    },
    "Laugh": {
        **_both("mouthSmile", 0.9),
        "jawOpen": 0.4,
        **_both("mouthUpperUp", 0.4),
        **_both("mouthLowerDown", 0.1),
        **_both("cheekSquint", 0.7),
        **_both("eyeSquint", 0.55),
        "browInnerUp": 0.15,
    },
    "Sad": {
        "browInnerUp": 0.95,
        **_both("browDown", 0.1),
        **_both("mouthFrown", 0.75),
        "mouthShrugLower": 0.4,
        **_both("eyeBlink", 0.12),
        **_both("mouthStretch", 0.1),
    },
    "Angry": {
        **_both("browDown", 0.9),
        **_both("eyeWide", 0.25),
        **_both("eyeSquint", 0.35),
        **_both("mouthPress", 0.55),
        **_both("noseSneer", 0.35),
        **_both("mouthFrown", 0.25),
        "mouthRollUpper": 0.15,
    },
    "Surprised": {
        "browInnerUp": 0.8,
        **_both("browOuterUp", 0.8),
        **_both("eyeWide", 0.8),
        "jawOpen": 0.45,
        "mouthFunnel": 0.15,
    },
    "Fear": {
        "browInnerUp": 0.8,
        **_both("browOuterUp", 0.35),
        **_both("browDown", 0.3),
        **_both("eyeWide", 0.75),
        **_both("mouthStretch", 0.6),
        "jawOpen": 0.2,
    },
    "Disgust": {
        **_both("noseSneer", 0.85, 0.75),
        **_both("mouthUpperUp", 0.45),
        **_both("mouthFrown", 0.35),
        **_both("browDown", 0.45),
        **_both("eyeSquint", 0.4),
        "mouthShrugLower": 0.25,
    },
    "Kiss": {
        "mouthPucker": 0.95,
        "mouthFunnel": 0.2,
        **_both("eyeBlink", 0.25),
        **_both("eyeSquint", 0.2),
    },
    "Wink": {
        **_both("eyeBlink", 1.0, 0.05),
        **_both("cheekSquint", 0.6, 0.1),
        **_both("mouthSmile", 0.6, 0.3),
        **_both("browDown", 0.2, 0.0),
        "browOuterUpRight": 0.25,
    },
    "Sneer": {
        **_both("noseSneer", 0.2, 0.85),
        **_both("mouthUpperUp", 0.1, 0.6),
        **_both("browDown", 0.35, 0.5),
        **_both("eyeSquint", 0.2, 0.4),
        "mouthRight": 0.15,
    },
    "Puzzled": {
        **_both("browDown", 0.8, 0.0),
        "browOuterUpRight": 0.95,
        "browInnerUp": 0.2,
        **_both("eyeSquint", 0.5, 0.0),
        "eyeWideRight": 0.2,
        "mouthLeft": 0.45,
        "mouthPucker": 0.3,
        **_both("mouthFrown", 0.0, 0.25),
    },
    "Sleepy": {
        **_both("eyeBlink", 0.6, 0.65),
        "browInnerUp": 0.2,
        **_both("browOuterUp", 0.15),
        "jawOpen": 0.08,
        **_both("mouthFrown", 0.1),
    },
}


GAZE_UP: Final = {"Sad": -6.0, "Sleepy": -7.0}
"""Degrees by which the eyes look up in an expression; in the others the gaze stays as it is."""


def apply_preset(rig: Rig, name: str, strength: float = 1.0) -> None:
    """Sets the sliders to a starter expression, scaled by `strength`. All other sliders and the jaw bone are reset.
    The neck stays, and so do the eyes and the sliders by which the lids follow them, except that some expressions look
    down.

    The presets open the mouth with the slider jawOpen, a track opens it with the jaw bone. If the bone were not reset,
    the mouth of a person who was tracked laughing would stay open in a kiss.
    """
    if name not in PRESETS:
        raise EffigyError(f'There is no starter expression "{name}": choose one of {", ".join(PRESETS)}.')
    values = PRESETS[name]
    if not values.keys() & set(rig.slider_names):
        raise EffigyError(
            f'The starter expressions are made of ARKit\'s shapes, which the head model "{rig.head_name}" does not '
            "have: use the head model's own sliders."
        )
    rotate(rig.pose_bone("jaw"), Quaternion())
    if name in GAZE_UP:
        look(rig, up=radians(strength * GAZE_UP[name]))
    set_expressions(rig, {shape: strength * value for shape, value in values.items()}, keep=LOOK)
