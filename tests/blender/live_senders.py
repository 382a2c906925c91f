"""Packets as phones and avatar programs send them, made here from the protocols' descriptions."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

ARKIT = (
    "eyeBlinkLeft",
    "eyeLookDownLeft",
    "eyeLookInLeft",
    "eyeLookOutLeft",
    "eyeLookUpLeft",
    "eyeSquintLeft",
    "eyeWideLeft",
    "eyeBlinkRight",
    "eyeLookDownRight",
    "eyeLookInRight",
    "eyeLookOutRight",
    "eyeLookUpRight",
    "eyeSquintRight",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawRight",
    "jawOpen",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthLeft",
    "mouthRight",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)
"""The channels in the order of Live Link Face."""
PHONE_RATE = 60


def live_link(frame: int, channels: Mapping[str, float], head: tuple[float, float, float] = (0, 0, 0)) -> bytes:
    """A packet of Live Link Face; `head`: yaw, pitch, roll in radians."""
    values = [channels.get(name, 0.0) for name in ARKIT] + [*head] + 6 * [0.0]
    return without_face() + struct.pack("!if2ib61f", frame, 0.0, PHONE_RATE, 1, 61, *values)


def without_face() -> bytes:
    return struct.pack("<i", 6) + b"$" + b"0" * 36 + struct.pack("!i", 6) + b"iPhone"


def osc(address: str, *arguments: str | float) -> bytes:
    kinds = "".join({str: "s", float: "f", int: "i"}[type(argument)] for argument in arguments)
    return (
        text(address)
        + text("," + kinds)
        + b"".join(
            text(argument)
            if isinstance(argument, str)
            else struct.pack(">f" if isinstance(argument, float) else ">i", argument)
            for argument in arguments
        )
    )


def bundle(*messages: bytes) -> bytes:
    return b"#bundle\0" + 8 * b"\0" + b"".join(struct.pack(">i", len(message)) + message for message in messages)


def text(written: str) -> bytes:
    data = written.encode() + b"\0"
    return data + b"\0" * (-len(data) % 4)


def vmc(channels: Mapping[str, float], **bones: tuple[float, float, float, float]) -> bytes:
    """A face by VMC; `bones`: name and quaternion x, y, z, w in Unity's axes."""
    turns = [osc("/VMC/Ext/Bone/Pos", name, 0.0, 0.0, 0.0, *turn) for name, turn in bones.items()]
    values = [osc("/VMC/Ext/Blend/Val", name, float(value)) for name, value in channels.items()]
    return bundle(*turns, *values, osc("/VMC/Ext/Blend/Apply"))


class Sender:
    """Sends packets to a port of this computer."""

    def __init__(self, port: int) -> None:
        self._socket, self._port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), port

    def send(self, packet: bytes) -> None:
        self._socket.sendto(packet, ("127.0.0.1", self._port))

    def close(self) -> None:
        self._socket.close()
