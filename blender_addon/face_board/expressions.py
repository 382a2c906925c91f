"""The poses of the pose library, as values of ARKit's sliders: starter expressions, visemes and action units.

The fifteen visemes are those of Oculus Lipsync, with the shapes that lip sync gives them in the backend; a test
compares the two. The action units are those of the Facial Action Coding System (Ekman, Friesen and Hager 2002) at full
strength, as far as ARKit's sliders show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..rig.joint_limits import LOOK_UP
from ..rig.presets import GAZE_UP, PRESETS
from ..rig.sliders import MOUTH_HANDLES

LIDS: Final = "board_lids"
GAZE: Final = "face_gaze"


@dataclass(frozen=True)
class Expression:
    """One pose of the library."""

    name: str
    kind: str
    """The catalog: `Expressions`, `Visemes` or `Action Units`."""
    sliders: Mapping[str, float]
    gaze: tuple[float, float] = (0.0, 0.0)
    """How far the handle of the gaze is moved to the person's left and up."""

    def poses(self, handle: str, moved: bool) -> bool:
        """Whether the pose sets a handle, which it moves or leaves at rest. Expressions set all but the gaze, visemes
        the mouth, and action units only what they move, so that they can be combined.
        """
        if moved:
            return True
        if self.kind == "Expressions":
            return not handle.startswith((GAZE, LIDS))
        return self.kind == "Visemes" and handle.startswith((*MOUTH_HANDLES, "board_puff"))


def both(values: Mapping[str, float]) -> dict[str, float]:
    """Sliders whose names end with `*` on both sides."""
    result: dict[str, float] = {}
    for name, value in values.items():
        for side in ("Left", "Right") if name.endswith("*") else ("",):
            result[name.removesuffix("*") + side] = value
    return result


VISEMES: Final[dict[str, dict[str, float]]] = {
    "sil": {},
    "PP": {"mouthPress*": 0.3, "mouthRollLower": 0.12, "mouthRollUpper": 0.12},
    "FF": {"jawOpen": 0.03, "mouthRollLower": 0.6, "mouthUpperUp*": 0.3, "mouthShrugLower": 0.15},
    "TH": {"jawOpen": 0.16, "mouthLowerDown*": 0.2, "mouthUpperUp*": 0.12, "tongueOut": 0.15},
    "DD": {"jawOpen": 0.1, "mouthLowerDown*": 0.18, "mouthUpperUp*": 0.1, "mouthStretch*": 0.08},
    "kk": {"jawOpen": 0.18, "mouthLowerDown*": 0.12, "mouthUpperUp*": 0.1},
    "CH": {"jawOpen": 0.08, "mouthFunnel": 0.45, "mouthPucker": 0.2, "mouthUpperUp*": 0.12},
    "SS": {"jawOpen": 0.04, "mouthStretch*": 0.2, "mouthSmile*": 0.08, "mouthLowerDown*": 0.25},
    "nn": {"jawOpen": 0.12, "mouthLowerDown*": 0.15, "mouthUpperUp*": 0.08},
    "RR": {"jawOpen": 0.14, "mouthFunnel": 0.25, "mouthPucker": 0.3},
    "aa": {"jawOpen": 0.55, "mouthLowerDown*": 0.12, "mouthUpperUp*": 0.1},
    "E": {"jawOpen": 0.32, "mouthStretch*": 0.22, "mouthSmile*": 0.12, "mouthLowerDown*": 0.2, "mouthUpperUp*": 0.15},
    "ih": {"jawOpen": 0.17, "mouthStretch*": 0.35, "mouthSmile*": 0.25, "mouthLowerDown*": 0.25, "mouthUpperUp*": 0.12},
    "oh": {"jawOpen": 0.38, "mouthFunnel": 0.45, "mouthPucker": 0.2},
    "ou": {"jawOpen": 0.12, "mouthPucker": 0.85, "mouthFunnel": 0.25},
}
"""By the names of Oculus Lipsync."""

_UNITS: Final[dict[str, dict[str, float]]] = {
    "AU 01 Inner Brow Raiser": {"browInnerUp": 1.0},
    "AU 02 Outer Brow Raiser": {"browOuterUp*": 1.0},
    "AU 04 Brow Lowerer": {"browDown*": 1.0},
    "AU 05 Upper Lid Raiser": {"eyeWide*": 1.0},
    "AU 06 Cheek Raiser": {"cheekSquint*": 1.0},
    "AU 07 Lid Tightener": {"eyeSquint*": 1.0},
    "AU 09 Nose Wrinkler": {"noseSneer*": 1.0},
    "AU 10 Upper Lip Raiser": {"mouthUpperUp*": 1.0},
    "AU 12 Lip Corner Puller": {"mouthSmile*": 1.0},
    "AU 14 Dimpler": {"mouthDimple*": 1.0},
    "AU 15 Lip Corner Depressor": {"mouthFrown*": 1.0},
    "AU 16 Lower Lip Depressor": {"mouthLowerDown*": 1.0},
    "AU 17 Chin Raiser": {"mouthShrugLower": 1.0},
    "AU 18 Lip Pucker": {"mouthPucker": 1.0},
    "AU 19 Tongue Show": {"tongueOut": 1.0, "jawOpen": 0.3},
    "AU 20 Lip Stretcher": {"mouthStretch*": 1.0},
    "AU 22 Lip Funneler": {"mouthFunnel": 1.0},
    "AU 23 Lip Tightener": {"mouthPress*": 0.5, "mouthPucker": 0.2},
    "AU 24 Lip Pressor": {"mouthPress*": 1.0},
    "AU 25 Lips Part": {"mouthLowerDown*": 0.35, "mouthUpperUp*": 0.2},
    "AU 26 Jaw Drop": {"jawOpen": 0.45},
    "AU 27 Mouth Stretch": {"jawOpen": 1.0},
    "AU 28 Lip Suck": {"mouthRollLower": 1.0, "mouthRollUpper": 1.0},
    "AU 29 Jaw Thrust": {"jawForward": 1.0},
    "AU 30 Jaw Sideways": {"jawLeft": 1.0},
    "AU 34 Cheek Puff": {"cheekPuff": 1.0},
    "AU 43 Eyes Closed": {"eyeBlink*": 1.0},
    "AU 46 Wink": {"eyeBlinkLeft": 1.0},
}
_GAZES: Final = {
    "AU 61 Eyes Left": (1.0, 0.0),
    "AU 62 Eyes Right": (-1.0, 0.0),
    "AU 63 Eyes Up": (0.0, 1.0),
    "AU 64 Eyes Down": (0.0, -1.0),
}

EXPRESSIONS: Final = (
    Expression("Neutral", "Expressions", {}),
    *(
        Expression(name, "Expressions", values, (0.0, GAZE_UP.get(name, 0.0) / LOOK_UP))
        for name, values in PRESETS.items()
    ),
    *(Expression(f"Viseme {name}", "Visemes", both(values)) for name, values in VISEMES.items()),
    *(Expression(name, "Action Units", both(values)) for name, values in _UNITS.items()),
    *(Expression(name, "Action Units", {}, gaze) for name, gaze in _GAZES.items()),
)
"""All poses that the library starts with."""
