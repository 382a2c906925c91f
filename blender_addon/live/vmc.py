"""Faces from VMC, the protocol of avatar programs (VSeeFace, Warudo, VirtualMotionCapture), and from plain OSC.

VMC sends `/VMC/Ext/Blend/Val name value` for each channel and ends a face with `/VMC/Ext/Blend/Apply`;
`/VMC/Ext/Bone/Pos name position quaternion` of Neck and Head turn the head, in Unity's axes; `/VMC/Ext/T seconds` is
the sender's time. ARKit's names are understood in any spelling ("Perfect Sync"). A sender that has only VRM's few
expressions (Joy, A, I, U, E, O, Blink …) gets them translated.

Any other OSC message is a channel if its address ends in one of ARKit's names and it has one number, as
`/avatar/parameters/jawOpen 0.4`; the face is complete at the end of the packet.
"""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np
from mathutils import Quaternion

from .face import CHANNELS, INDEX, Face
from .osc import Argument, messages_of

PORT: Final = 39539
"""VMC's default for programs that receive."""
VRM: Final[dict[str, dict[str, float]]] = {
    "a": {"jawOpen": 0.7},
    "aa": {"jawOpen": 0.7},
    "i": {"mouthStretchLeft": 0.5, "mouthStretchRight": 0.5, "jawOpen": 0.1},
    "ih": {"mouthStretchLeft": 0.5, "mouthStretchRight": 0.5, "jawOpen": 0.1},
    "u": {"mouthPucker": 0.7, "jawOpen": 0.1},
    "ou": {"mouthPucker": 0.7, "jawOpen": 0.1},
    "e": {"mouthStretchLeft": 0.35, "mouthStretchRight": 0.35, "jawOpen": 0.3},
    "ee": {"mouthStretchLeft": 0.35, "mouthStretchRight": 0.35, "jawOpen": 0.3},
    "o": {"mouthFunnel": 0.6, "jawOpen": 0.4},
    "oh": {"mouthFunnel": 0.6, "jawOpen": 0.4},
    "blink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    "blinkl": {"eyeBlinkLeft": 1.0},
    "blinkleft": {"eyeBlinkLeft": 1.0},
    "blinkr": {"eyeBlinkRight": 1.0},
    "blinkright": {"eyeBlinkRight": 1.0},
    "joy": {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.4, "cheekSquintRight": 0.4},
    "happy": {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.4, "cheekSquintRight": 0.4},
    "fun": {"mouthSmileLeft": 0.6, "mouthSmileRight": 0.6},
    "relaxed": {"mouthSmileLeft": 0.4, "mouthSmileRight": 0.4, "eyeBlinkLeft": 0.3, "eyeBlinkRight": 0.3},
    "angry": {"browDownLeft": 0.8, "browDownRight": 0.8, "mouthFrownLeft": 0.3, "mouthFrownRight": 0.3},
    "sorrow": {"browInnerUp": 0.8, "mouthFrownLeft": 0.6, "mouthFrownRight": 0.6},
    "sad": {"browInnerUp": 0.8, "mouthFrownLeft": 0.6, "mouthFrownRight": 0.6},
    "surprised": {"browInnerUp": 0.8, "eyeWideLeft": 0.8, "eyeWideRight": 0.8, "jawOpen": 0.3},
}
"""VRM's expressions (0.x and 1.0, plain names) in ARKit's channels."""
_PLAIN: Final = re.compile(r"[^a-z0-9]")
_ARKIT: Final = {name.lower(): index for name, index in INDEX.items()} | {
    name.replace("Left", "L").replace("Right", "R").lower(): index
    for name, index in INDEX.items()
    if name.endswith(("Left", "Right"))
}


class VmcReader:
    """Reads the packets of one sender, and keeps what it has said: a packet may hold a part of a face."""

    def __init__(self) -> None:
        self._channels = np.zeros(len(CHANNELS))
        self._vrm: dict[str, float] = {}
        self._bones = {"neck": Quaternion(), "head": Quaternion()}
        self._time: float | None = None

    def read(self, packet: bytes, arrived: float) -> Face | None:
        """The face that a packet completes, or None. Raises a ValueError for what is no packet of OSC."""
        complete = False
        for address, arguments in messages_of(packet):
            complete |= self._take(address, arguments)
        return self._face(arrived) if complete else None

    def _take(self, address: str, arguments: tuple[Argument, ...]) -> bool:
        """Whether the message completes a face."""
        match address, arguments:
            case "/VMC/Ext/Blend/Apply", _:
                return True
            case "/VMC/Ext/T", (float() as time,) if math.isfinite(time):
                self._time = time
            case "/VMC/Ext/Blend/Val", (str() as name, float() as value):
                self._set(name, value)
            case "/VMC/Ext/Bone/Pos", (str() as name, *numbers) if name.lower() in self._bones:
                self._turn(name.lower(), numbers)
            case other, (float() | int() as value,) if not other.startswith("/VMC/"):
                return self._set(other.rsplit("/", 1)[-1], float(value))
            case _:
                pass
        return False

    def _set(self, name: str, value: float) -> bool:
        """Whether there is such a channel."""
        plain = _PLAIN.sub("", name.lower())
        if not math.isfinite(value) or (plain not in _ARKIT and plain not in VRM):
            return False
        value = min(max(value, 0.0), 1.0)
        if plain in _ARKIT:
            self._channels[_ARKIT[plain]] = value
        else:
            self._vrm[plain] = value
        return True

    def _turn(self, bone: str, numbers: list[Argument]) -> None:
        finite = [number for number in numbers if isinstance(number, float) and math.isfinite(number)]
        if len(finite) == len(numbers) == 7:
            x, y, z, w = finite[3:]
            # Unity's x points to a character's right, head space's to the left: rotations about y and z turn round.
            turn = Quaternion((w, x, -y, -z))
            if turn.magnitude > 0.1:
                self._bones[bone] = turn.normalized()

    def _face(self, arrived: float) -> Face:
        channels = self._channels.copy()
        if not channels.any():
            for name, value in self._vrm.items():
                for channel, full in VRM[name].items():
                    index = INDEX[channel]
                    channels[index] = min(1.0, channels[index] + full * value)
        return Face(arrived if self._time is None else self._time, channels, self._bones["neck"] @ self._bones["head"])
