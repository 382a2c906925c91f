"""One face as a camera or a phone has measured it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from mathutils import Quaternion

from ..rig.sliders import mirror_name

CHANNELS: Final = (
    *(f"eye{name}Left" for name in ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")),
    *(f"eye{name}Right" for name in ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")),
    *("jawForward", "jawLeft", "jawRight", "jawOpen"),
    *("mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight"),
    *("mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight"),
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut"),
)
"""ARKit's 52 channels in the order of `ARFaceAnchor`'s enumeration, in which Live Link Face sends them."""
INDEX: Final = {name: index for index, name in enumerate(CHANNELS)}


@dataclass(frozen=True)
class Face:
    """A face at one time."""

    time: float
    """Seconds, by any clock that goes evenly."""
    channels: np.ndarray
    """(52,) in the order of CHANNELS, 0 to 1; 0 where the sender has no such channel."""
    head: Quaternion
    """The head's rotation, head space."""

    def mirrored(self) -> Face:
        """The face as in a mirror: left and right are exchanged."""
        turn = self.head
        return Face(self.time, self.channels[_OTHER_SIDE], Quaternion((turn.w, turn.x, -turn.y, -turn.z)))


_OTHER_SIDE: Final = np.array([INDEX[mirror_name(name) or name] for name in CHANNELS])
