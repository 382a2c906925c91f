"""Reads the evaluated pose of a rig in the form that the worker takes.

Everything is read from Blender's dependency graph, so keyframes, NLA strips, drivers, constraints and parents all
count, and a render reads the frame that it renders. Where the head is says `placement`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np

from ..errors import EffigyError
from .conventions import transform_to_head
from .data import JOINT_NAMES
from .joint_limits import JAW_OPEN_AT_ONE
from .placement import has_size, head_place
from .rig_properties import Rig, handles_name, lost_expression

_JAW: Final = JOINT_NAMES.index("jaw")


@dataclass(frozen=True)
class RigPose:
    """The pose of a rig in one frame. Joint rotations are axis-angle vectors in head space, radians."""

    expression: np.ndarray
    """(E,) float32 coefficients in the head model's order."""
    neck: np.ndarray
    """(3,) float32"""
    jaw: np.ndarray
    """(3,) float32"""
    eye_L: np.ndarray
    """(3,) float32"""
    eye_R: np.ndarray
    """(3,) float32"""
    root: np.ndarray
    """(4, 4) world from head in head-space axes, with a uniform scale. Where the objects are scaled unevenly this is
    the mean scale (see `troubles`)."""
    head_motion: np.ndarray
    """(4, 4) similarity in Blender's world: the motion that root and neck together apply to the head at rest, in
    the head model's own size."""
    torso: np.ndarray | None = None
    """(4, 4) rigid motion of the torso from its rest, in head space below `root`; None where the artist has hidden the
    bust."""

    @property
    def has_size(self) -> bool:
        """Whether there is anything to draw: false for a head that is scaled to nothing, as to make it appear."""
        return has_size(self.root)

    def message(self) -> dict[str, Any]:
        """The worker protocol's `pose`."""
        return {
            "expression": self.expression,
            "neck": self.neck,
            "jaw": self.jaw,
            "eye_L": self.eye_L,
            "eye_R": self.eye_R,
            "root": self.root,
        } | ({} if self.torso is None else {"torso": self.torso})


def read_pose(rig: Rig, depsgraph: bpy.types.Depsgraph) -> RigPose:
    """The evaluated pose of a rig. Raises an `EffigyError` where the rig has lost a bone or a shape key, and where a
    slider or a transform is no finite number.
    """
    place = head_place(rig, depsgraph)
    expression, jaw = _read_expression(rig, depsgraph, float(place.rotations[_JAW - 1, 0]))
    if not (np.isfinite(expression).all() and place.is_finite):
        raise EffigyError(
            f'A slider, a bone or the transform of "{rig.armature.name}" is no finite number: reset the expression and '
            "clear the transforms of the rig and its parents."
        )
    vectors = place.rotations.copy()
    vectors[_JAW - 1] += jaw
    shows_bust = rig.armature.effigy.show_bust and has_size(place.world)
    return RigPose(
        expression,
        *vectors.astype(np.float32),
        root=transform_to_head(place.root(rig.base_joints)),
        head_motion=place.head_motion,
        torso=transform_to_head(place.torso(rig.base_joints)) if shows_bust else None,
    )


def _read_expression(rig: Rig, depsgraph: bpy.types.Depsgraph, turned: float) -> tuple[np.ndarray, np.ndarray]:
    """Expression coefficients (E,) and the jaw rotation (3,) that ARKit's channels add on a head that has them beside
    its own expressions. The jaw's bone opens the mouth by `turned` radians.
    """
    blocks = rig.mesh.data.shape_keys.evaluated_get(depsgraph).key_blocks
    # Each property is read in bulk: a head has several hundred shape keys and this runs at every redraw.
    values, muted = np.empty(len(blocks), np.float32), np.empty(len(blocks), bool)
    blocks.foreach_get("value", values)
    blocks.foreach_get("mute", muted)
    values[muted] = 0
    index_of = {name: index for index, name in enumerate(blocks.keys())}
    # What the handles of the face board add to a slider is in a shape key of its own.
    for name in rig.slider_names:
        if name in index_of and (added := index_of.get(handles_name(name))) is not None:
            values[index_of[name]] += values[added]
    try:
        expression = values[[index_of[name] for name in rig.expression_names]]
        channels = values[[index_of[name] for name in rig.arkit_names]]
    except KeyError as error:
        raise lost_expression(rig, str(error.args[0])) from None
    _close_lips(expression, rig.expression_names, turned, math.radians(JAW_OPEN_AT_ONE))
    if not channels.any():
        return expression, np.zeros(3)
    _close_lips(channels, rig.arkit_names, turned, float(rig.arkit_jaw[rig.arkit_names.index("jawOpen"), 0]))
    return (expression + channels @ rig.arkit_expression).astype(np.float32), channels @ rig.arkit_jaw


def _close_lips(values: np.ndarray, names: tuple[str, ...], turned: float, at_one: float) -> None:
    """Limits mouthClose among values (K,), in place, to how far the jaw is open: its bone by `turned` radians, of which
    jawOpen at 1 makes `at_one`. The lips of a shut jaw are closed already; the lower one would pass through the upper.
    """
    if "mouthClose" in names:
        opened = max(turned / at_one if at_one > 0 else 0.0, 0.0)
        if "jawOpen" in names:
            opened += max(float(values[names.index("jawOpen")]), 0.0)
        index = names.index("mouthClose")
        values[index] = min(values[index], opened)
