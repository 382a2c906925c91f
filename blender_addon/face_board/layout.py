"""Which handles the face board has, and which of ARKit's sliders each direction of a handle moves.

A handle is a bone that points upwards at rest, with its x axis to the person's left. A direction is `+x`, `-x`, `+y` or
`-y`; a handle that is `TRAVEL` away from rest moves the sliders of that direction by 1. All 52 sliders have a handle.
Opposite directions are opposite movements of the face. The names end with `.L` and `.R`, by which Blender mirrors
poses.

This module does not import bpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Final

TRAVEL: Final = 0.02
"""Metres of a head at its own size by which a handle is moved for a slider's value of 1."""
SIDES: Final = {".L": "Left", ".R": "Right"}
GAZE_REACH: Final = 1.8
"""How far the gaze goes, in values of the eyeLook sliders: 45 degrees sideways and 34 degrees up."""


class Group(Enum):
    """The bone collection of a handle."""

    FACE = auto()
    GAZE = auto()
    BOARD = auto()


@dataclass(frozen=True)
class Handle:
    """One bone of the face board."""

    name: str
    drives: Mapping[str, tuple[str, ...]]
    """Direction -> sliders."""
    shape: str = "ball"
    near: tuple[str, ...] = ()
    """Sliders; the handle lies where they move the skin most. Of the group BOARD: empty."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Millimetres from there to the person's left and up, of a head with eyes 63 mm apart."""
    group: Group = Group.FACE
    follows_jaw: bool = False
    turns: tuple[str, ...] = ()
    """Joints of the eyes that it turns."""
    label: str = ""

    @property
    def reach(self) -> float:
        """How far it goes in each direction, in values of its sliders."""
        return GAZE_REACH if self.turns else 1.0

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes along which it moves."""
        return tuple(axis for axis in "xy" if any(direction[1] == axis for direction in self.drives))


def _middle(name: str, drives: dict[str, str], **more: Any) -> tuple[Handle, ...]:
    return (replace(Handle(name, {way: tuple(names.split()) for way, names in drives.items()}), **more),)


def _pair(name: str, drives: dict[str, str], **more: Any) -> tuple[Handle, ...]:
    """A handle on each side. `drives` is the left one's, `*` in a slider's name its side; x is away from the middle."""
    made = []
    for suffix, side in SIDES.items():
        turned = {(_flipped(way) if suffix == ".R" else way): names for way, names in drives.items()}
        sided = {way: tuple(names.replace("*", side).split()) for way, names in turned.items()}
        extra = dict(more)
        if "near" in extra:
            extra["near"] = tuple(name.replace("*", side) for name in extra["near"])
        if suffix == ".R" and "shift" in extra:
            extra["shift"] = (-extra["shift"][0], extra["shift"][1])
        if "turns" in extra:
            extra["turns"] = (f"eye_{suffix[1:]}",)
        made.append(replace(Handle(name + suffix, sided), **extra))
    return tuple(made)


def _flipped(way: str) -> str:
    return {"+x": "-x", "-x": "+x"}.get(way, way)


_LOOK: Final = {"+x": "eyeLookOut*", "-x": "eyeLookIn*", "+y": "eyeLookUp*", "-y": "eyeLookDown*"}
_BOTH_LOOK: Final = {
    "+x": "eyeLookOutLeft eyeLookInRight",
    "-x": "eyeLookInLeft eyeLookOutRight",
    "+y": "eyeLookUpLeft eyeLookUpRight",
    "-y": "eyeLookDownLeft eyeLookDownRight",
}

HANDLES: Final[tuple[Handle, ...]] = (
    *_middle("face_brow_inner", {"+y": "browInnerUp"}, near=("browDownLeft", "browDownRight"), shift=(0, 8)),
    *_pair("face_brow_down", {"-y": "browDown*"}, near=("browDown*",), shift=(2, 0)),
    *_pair("face_brow_outer", {"+y": "browOuterUp*"}, near=("browOuterUp*",)),
    *_pair("face_lid_upper", {"+y": "eyeWide*", "-y": "eyeBlink*"}, near=("eyeBlink*",), shift=(0, 2), shape="lid"),
    *_pair("face_lid_lower", {"+y": "eyeSquint*"}, near=("eyeSquint*",), shift=(0, -3), shape="lid"),
    *_pair("face_cheek", {"+y": "cheekSquint*"}, near=("cheekSquint*",), shift=(6, -6)),
    *_pair("face_nose", {"+y": "noseSneer*"}, near=("eyeSquint*", "mouthUpperUp*"), shift=(-8, 0)),
    *_pair(
        "face_lip_corner",
        {"+y": "mouthSmile*", "-y": "mouthFrown*", "+x": "mouthStretch*", "-x": "mouthDimple*"},
        near=("mouthSmile*",),
        shape="corner",
    ),
    *_pair("face_lip_upper", {"+y": "mouthUpperUp*", "-y": "mouthPress*"}, near=("mouthUpperUp*",), shift=(3, 3)),
    *_pair("face_lip_lower", {"-y": "mouthLowerDown*"}, near=("mouthLowerDown*",), shift=(3, -3), follows_jaw=True),
    *_middle(
        "face_lip_upper_middle",
        {"+y": "mouthShrugUpper", "-y": "mouthRollUpper"},
        near=("mouthUpperUpLeft", "mouthUpperUpRight"),
        shift=(0, 3),
    ),
    *_middle(
        "face_lip_lower_middle",
        {"+y": "mouthRollLower"},
        near=("mouthLowerDownLeft", "mouthLowerDownRight"),
        shift=(0, -3),
        follows_jaw=True,
    ),
    *_middle("face_chin", {"+y": "mouthShrugLower"}, near=("jawOpen",), follows_jaw=True),
    *_middle(
        "face_mouth",
        {"+x": "mouthLeft", "-x": "mouthRight"},
        near=("mouthUpperUpLeft", "mouthUpperUpRight", "mouthLowerDownLeft", "mouthLowerDownRight"),
        shape="mouth",
    ),
    *_middle(
        "face_jaw",
        {"-y": "jawOpen", "+x": "jawLeft", "-x": "jawRight"},
        near=("jawOpen",),
        shift=(0, -8),
        shape="jaw",
        follows_jaw=True,
    ),
    *_middle(
        "face_gaze",
        _BOTH_LOOK,
        near=("eyeBlinkLeft", "eyeBlinkRight"),
        shape="gaze",
        group=Group.GAZE,
        turns=("eye_L", "eye_R"),
    ),
    *_pair("face_gaze", _LOOK, near=("eyeBlink*", "eyeSquint*"), shape="eye", group=Group.GAZE, turns=("",)),
    *_middle("board_tongue", {"+y": "tongueOut"}, shape="slider", group=Group.BOARD, label="Tongue"),
    *_middle("board_puff", {"+y": "cheekPuff"}, shape="slider", group=Group.BOARD, label="Puff"),
    *_middle("board_pucker", {"+y": "mouthPucker"}, shape="slider", group=Group.BOARD, label="Pucker"),
    *_middle("board_funnel", {"+y": "mouthFunnel"}, shape="slider", group=Group.BOARD, label="Funnel"),
    *_middle("board_close", {"+y": "mouthClose"}, shape="slider", group=Group.BOARD, label="Close"),
    *_middle("board_jaw_forward", {"+y": "jawForward"}, shape="slider", group=Group.BOARD, label="Jaw"),
    *_pair("board_lids", _LOOK, shape="pad", group=Group.BOARD, label="Lids"),
)
"""From the forehead down, then the gaze, then the board beside the face."""


def handles_of(sliders: Iterable[str]) -> list[Handle]:
    """The handles that move some of these sliders, without the directions that would move none."""
    known, made = set(sliders), []
    for handle in HANDLES:
        drives = {way: tuple(name for name in names if name in known) for way, names in handle.drives.items()}
        drives = {way: names for way, names in drives.items() if names}
        if drives or handle.turns:
            made.append(replace(handle, drives=drives))
    return made


def opposite(slider: str) -> str | None:
    """The slider that the same handle moves in the other direction."""
    return _OPPOSITES.get(slider)


def _opposites() -> dict[str, str]:
    found = {}
    for handle in HANDLES:
        for way, names in handle.drives.items():
            others = handle.drives.get(("-" if way[0] == "+" else "+") + way[1], ())
            found |= dict(zip(names, others, strict=False))
    return found


_OPPOSITES: Final = _opposites()
