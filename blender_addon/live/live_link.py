"""Packets of Live Link Face, the app for iPhones: one UDP packet a frame.

    4 bytes    version, little-endian (6)
    37 bytes   the device's identifier
    4 bytes    length of the name, big-endian, like all that follows; then the name, UTF-8
    4 + 4      frame number (int), part of a frame (float)
    4 + 4      frame rate: numerator, denominator (int)
    1 byte     number of values, 61; then as many floats: 52 channels in the order of `face.CHANNELS`, and yaw, pitch
               and roll of head, left eye and right eye, radians

A packet that ends after the name says that no face is seen. The layout is that of PyLiveLinkFace (Jim West, MIT).
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from mathutils import Quaternion, Vector

from .face import CHANNELS, Face

PORT: Final = 11111
"""The app's default."""
LONGEST_NAME: Final = 256
"""Bytes of the name of a phone."""
_NAME: Final = 45
_HEADER: Final = struct.Struct("!ifiiB")
_VALUES: Final = struct.Struct("!61f")
_MOST: Final = 2.0
"""Of a channel, which reaches 1; a calibrated one exceeds that a little."""
_X, _Y, _Z = Vector((1, 0, 0)), Vector((0, 1, 0)), Vector((0, 0, 1))


class LiveLinkReader:
    """Reads the packets of one phone."""

    def read(self, packet: bytes, arrived: float) -> Face | None:
        """The face of a packet, or None if it says that there is none. `arrived`: seconds, for packets without a time
        of their own. Raises a ValueError for anything else.
        """
        if len(packet) < _NAME:
            raise ValueError("it is too short")
        (length,) = struct.unpack_from("!i", packet, _NAME - 4)
        if not 0 <= length <= LONGEST_NAME or len(packet) < _NAME + length:
            raise ValueError("its name is longer than the packet")
        rest = packet[_NAME + length :]
        if len(rest) < _HEADER.size:
            return None
        frame, part, rate, base, count = _HEADER.unpack_from(rest)
        if count != _VALUES.size // 4 or len(rest) != _HEADER.size + _VALUES.size:
            raise ValueError(f"it has {count} values")
        values = np.array(_VALUES.unpack_from(rest, _HEADER.size))
        if not np.isfinite(values).all() or np.abs(values[: len(CHANNELS)]).max() > _MOST:
            raise ValueError("its values are no channels")
        timed = 1 <= rate <= 240_000 and 1 <= base <= 1001 and frame >= 0 and 0 <= part < 1
        return Face(
            (frame + part) * base / rate if timed else arrived,
            values[: len(CHANNELS)].clip(0, 1),
            head_of(*values[len(CHANNELS) : len(CHANNELS) + 3]),
        )


def head_of(yaw: float, pitch: float, roll: float) -> Quaternion:
    """ARKit's angles as a rotation, head space: to the person's left, down, to the person's right. Radians."""
    return Quaternion(_Y, yaw) @ Quaternion(_X, pitch) @ Quaternion(_Z, roll)
