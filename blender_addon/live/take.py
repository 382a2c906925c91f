"""A recorded live performance as keyframes: strips of their own above all others, which replace what lies below them
for as long as they last. They count as a transferred performance, so that the clean-up knows them too. Keys set by hand
stay, and change the take as they change any performance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ..errors import EffigyError
from ..rig.action import add_curve, bone_path, check_not_tweaked, new_action, value_path
from ..rig.added_performance import add_strips
from ..rig.face_angles import rotation_path
from ..rig.performance import EXPRESSIONS, curve_of
from ..rig.rig_properties import Rig
from ..rig.rotations import align_signs
from .puppet import JOINTS, state_of

NAME: Final = "Live take"
"""What the names of the strips begin with."""
MOST_SECONDS: Final = 600.0
"""Of a take: ten minutes at 60 faces a second are 1.2 million keys."""
CLOCKS_AGREE: Final = 0.5
"""Seconds by which the sender's time may differ from ours before it is taken for another clock."""


class Take:
    """The states that a rig has shown, and when."""

    def __init__(self, rig: Rig, frame_start: int, rate: float) -> None:
        """`rate`: the scene's frames a second. The take begins at `frame_start`."""
        for target in (rig.mesh.data.shape_keys, rig.armature):
            check_not_tweaked(target)
        self.frame_start = frame_start
        self._rate = rate
        self._values = len(state_of(rig))
        self._times: list[float] = []
        self._states: list[np.ndarray] = []
        self._offset: float | None = None

    def __len__(self) -> int:
        return len(self._times)

    @property
    def seconds(self) -> float:
        return self._times[-1] - self._times[0] if self._times else 0.0

    @property
    def is_full(self) -> bool:
        return self.seconds > MOST_SECONDS

    def add(self, rig: Rig, time: float, now: float) -> None:
        """Adds what the rig shows. `time`: the face's, in seconds of the sender's clock. `now`: ours, which counts
        where the sender's has jumped.
        """
        if self._offset is None or abs(time + self._offset - now) > CLOCKS_AGREE:
            self._offset = now - time
        time += self._offset
        state = state_of(rig)
        if len(state) != self._values:
            raise EffigyError("The rotation mode of a bone was changed while it was recorded: record again.")
        if not self._times or time > self._times[-1]:
            self._times.append(time)
            # Blender stores single precision.
            self._states.append(np.array(state, np.float32))

    def frames(self) -> np.ndarray:
        """(F,) frames of the scene, which may have fractions."""
        times = np.array(self._times)
        return self.frame_start + (times - times[0]) * self._rate

    def key(self, rig: Rig, name: str) -> str:
        """Keys the take on a rig, in strips called `name`. Returns a sentence."""
        if len(self) < 2:
            raise EffigyError("Nothing was recorded: no face came. Start the sender, then record again.")
        frames, values = self.frames(), np.array(self._states)
        sliders = len(rig.slider_names)
        faces = new_action(f"{rig.mesh.name} {name}, expressions", rig.mesh.data.shape_keys)
        bones = new_action(f"{rig.mesh.name} {name}, head", rig.armature)
        for slider, column in zip(rig.slider_names, values[:, :sliders].T, strict=True):
            add_curve(faces, curve_of(value_path(slider), 0, EXPRESSIONS, column, frames))
        at = sliders
        for bone in map(rig.pose_bone, JOINTS):
            path = rotation_path(bone)
            turns = values[:, at : at + len(getattr(bone, path))]
            at += turns.shape[1]
            for index, column in enumerate((align_signs(turns) if path == "rotation_quaternion" else turns).T):
                add_curve(bones, curve_of(f"{bone_path(bone.name)}.{path}", index, bone.name, column, frames))
        add_strips(rig, faces, bones, name, self.frame_start)
        return (
            f"“{name}” is recorded: {len(self)} faces in {self.seconds:.1f} s, from frame {self.frame_start} to "
            f"{frames[-1]:.0f}, in strips above the others."
        )


def next_name(rig: Rig) -> str:
    """`Live take 2` for the second one of a rig."""
    data = rig.armature.animation_data
    names: Sequence[Any] = [strip.name for track in data.nla_tracks for strip in track.strips] if data else []
    number = 1
    while f"{NAME} {number}" in names:
        number += 1
    return f"{NAME} {number}"
