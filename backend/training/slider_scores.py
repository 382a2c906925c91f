"""How well an avatar's sliders work, by what the face detector sees in its pictures.

The *response* of a slider is how much the detector's score of that channel grows, as a share of what it could still
grow; 1 is the asked value. Most channels stay far below it on any face, so the same is measured on pictures of the
rig's own mesh, and an avatar is compared with that. Some channels the detector does not see: their scores stay at 0 in
any footage. For these the landmarks are compared with those of the mesh: 1 means that the picture moves as the mesh
does. The *spill* is the largest growth of a channel that should have stayed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any, Final

import numpy as np

from ..correspondence.landmark_sets import SURFACE_COUNT
from ..footage.detector import SCORE_NAMES, Face
from .slider_poses import VALUES, SliderPose

SCHEMA: Final = 1
UNSEEN: Final = frozenset(
    ("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "jawForward", "noseSneerLeft", "noseSneerRight", "tongueOut")
)
"""Channels whose score never exceeded 0.005 in 1,389 frames of three people who talk and grimace, and tongueOut, which
the detector does not have."""
BY_LANDMARKS: Final = UNSEEN | {"mouthClose"}
"""Channels whose response is that of the landmarks. The detector's mouthClose says little about lips that close over an
open jaw: in the same frames it is below 0.05, with rare exceptions."""
COMPANIONS: Final[dict[str, tuple[str, ...]]] = {
    "browDown": ("eyeSquint", "noseSneer"),
    "browInnerUp": ("browOuterUp",),
    "browOuterUp": ("browInnerUp", "eyeWide"),
    "cheekPuff": ("mouthPucker", "mouthPress"),
    "cheekSquint": ("eyeSquint", "mouthSmile"),
    "eyeBlink": ("eyeSquint", "eyeLookDown"),
    "eyeLookDown": ("eyeBlink", "eyeSquint"),
    "eyeLookIn": ("eyeLookOut",),
    "eyeLookOut": ("eyeLookIn",),
    "eyeLookUp": ("eyeWide", "browInnerUp", "browOuterUp"),
    "eyeSquint": ("eyeBlink", "cheekSquint", "eyeLookDown"),
    "eyeWide": ("eyeLookUp", "browInnerUp", "browOuterUp"),
    "jawLeft": ("mouthLeft",),
    "jawOpen": ("mouthLowerDown", "mouthStretch"),
    "jawRight": ("mouthRight",),
    "mouthDimple": ("mouthSmile", "mouthPress", "mouthStretch"),
    "mouthFrown": ("mouthShrugLower",),
    "mouthFunnel": ("jawOpen", "mouthPucker"),
    "mouthLeft": ("jawLeft",),
    "mouthLowerDown": ("jawOpen",),
    "mouthPress": ("mouthDimple", "mouthRollLower", "mouthRollUpper"),
    "mouthPucker": ("mouthFunnel",),
    "mouthRight": ("jawRight",),
    "mouthRollLower": ("mouthPress", "mouthRollUpper"),
    "mouthRollUpper": ("mouthPress", "mouthRollLower"),
    "mouthShrugLower": ("mouthShrugUpper",),
    "mouthShrugUpper": ("mouthShrugLower", "mouthUpperUp"),
    "mouthSmile": ("cheekSquint", "eyeSquint", "mouthDimple"),
    "mouthStretch": ("mouthDimple", "mouthLowerDown"),
    "mouthUpperUp": ("noseSneer", "mouthShrugUpper"),
    "noseSneer": ("mouthUpperUp", "browDown"),
    "tongueOut": ("jawOpen",),
}
"""Channels that may grow along with a slider, because faces move so or because the detector does not tell the two
apart. Names stand for the left and the right channel."""
_DIRECTIONS: Final = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
RESPONDS: Final = 0.05
"""Smallest response at 1 of a slider that counts as responding."""
STEADY: Final = 0.02
"""By how much the response at 1 may be below that at one half and still count as grown: a lid that is closed at one
half stays closed."""
FURTHEST: Final = 5
"""Poses that are named as furthest from the clip."""
LITTLE_ROOM: Final = 0.05
"""Of a score that is nearly 1 in the base pose already, which the growth is divided by."""
VISIBLE: Final = 0.004
"""The largest motion of the mesh's landmarks, as a share of the picture's width, below which the detector's landmarks
show nothing but noise."""


@dataclass(frozen=True)
class SliderScore:
    """One slider, or one combination of sliders."""

    name: str
    measured_by: str
    """`score`, `landmarks`, or `nothing`: the detector cannot see it."""
    responses: tuple[float | None, ...]
    """At each of VALUES, or one for a combination; 1 is what was asked at full strength. None where nothing is
    measured; 0 where no face is found."""
    spill: float
    """At the last of these, 0 to 1."""
    spilled: str | None
    """The channel with the largest growth."""
    found: int
    """Pictures in which the detector finds a face, of as many as `responses`."""

    @property
    def response(self) -> float | None:
        return self.responses[-1]

    @property
    def monotonic(self) -> bool:
        """Whether the response grows from rest to one half and to one."""
        last = 0.0
        for response in self.responses:
            if response is None or response <= 0 or response < last - STEADY:
                return False
            last = response
        return last >= RESPONDS


@dataclass(frozen=True)
class SliderScores:
    """The figures of a sheet. Responses above 1 count as 1, and below 0 as 0."""

    sliders: tuple[SliderScore, ...]
    combinations: tuple[SliderScore, ...]
    pictures: int
    found: int
    """Pictures with a face."""
    distances: Mapping[str, float] = field(default_factory=dict)
    """Of each slider at 1, each combination and `at rest` from what the clip has filmed (`backend.avatar.filmed`)."""
    mesh: SliderScores | None = None
    """Those of the rig's own mesh."""

    @property
    def seen(self) -> list[SliderScore]:
        """The sliders that the detector scores."""
        return [each for each in self.sliders if each.measured_by == "score"]

    @property
    def response(self) -> float:
        """Mean at 1 over the sliders that the detector scores."""
        return _mean_response(self.seen)

    @property
    def monotonic(self) -> float:
        """Share of these that respond monotonically."""
        return mean(each.monotonic for each in self.seen)

    @property
    def spill(self) -> float:
        """Mean over all sliders."""
        return mean(each.spill for each in self.sliders)

    @property
    def worst(self) -> list[str]:
        """The sliders that lose the face, or do not respond as the mesh does: not monotonically, or less than half as
        much.
        """
        mesh = self.mesh.sliders if self.mesh else self.sliders
        return [each.name for each, rig in zip(self.sliders, mesh, strict=True) if _is_worse(each, rig)]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "score": self.response * (1 - self.spill) * self.found / self.pictures,
            "response": self.response,
            "monotonic": self.monotonic,
            "spill": self.spill,
            "found": self.found,
            "pictures": self.pictures,
            "combinations_response": _mean_response(self.combinations),
            "combinations_spill": mean(each.spill for each in self.combinations),
            "worst": self.worst,
            "distances": dict(self.distances),
            "values": VALUES,
            "mesh": self.mesh and self.mesh.to_json(),
            "sliders": [asdict(each) | {"monotonic": each.monotonic} for each in self.sliders],
            "combinations": [asdict(each) for each in self.combinations],
        }

    def __str__(self) -> str:
        share = f"{self.monotonic:.0%} of {len(self.seen)} channels grow from 0 to 0.5 and to 1"
        text = (
            f"mean response {self.response:.2f}{self._of_mesh('response')}, {share}, mean spill {self.spill:.2f}"
            f"{self._of_mesh('spill')}, faces in {self.found} of {self.pictures} pictures."
        )
        for words, measured_by in (("By landmarks alone", "landmarks"), ("Not measured", "nothing")):
            names = [each.name for each in self.sliders if each.measured_by == measured_by]
            text += f"\n{words}: {', '.join(names)}." if names else ""
        if any(self.distances.values()):
            far = sorted(self.distances, key=lambda name: -self.distances[name])[:FURTHEST]
            text += "\nFurthest from the clip (1: its furthest frame): "
            text += ", ".join(f"{name} {self.distances[name]:.1f}" for name in far) + "."
        return text + (f"\nWorse than the mesh: {', '.join(self.worst)}." if self.worst else "")

    def _of_mesh(self, figure: str) -> str:
        return f" (of the mesh {getattr(self.mesh, figure):.2f})" if self.mesh else ""


def score_sheet(
    poses: Sequence[SliderPose], faces: Sequence[Face | None], mesh_landmarks: np.ndarray, valid: np.ndarray, size: int
) -> SliderScores:
    """The scores of the poses of `sheet_poses`, which begin with rest.

    `mesh_landmarks` (P, 478, 2) pixels: the landmarks of the rig's mesh in pictures of width `size`; `valid` (478,)
    bool: which of them exist. A face must be found at rest.
    """
    seen = [_Seen(*parts) for parts in zip(poses, faces, mesh_landmarks, strict=True)]
    by_values = {tuple(sorted(each.pose.values.items())): each for each in seen}
    compare = _Comparison(valid[:SURFACE_COUNT], size)

    def scored(group: Sequence[_Seen]) -> SliderScore:
        return compare.score([(by_values[tuple(sorted(each.pose.base.items()))], each) for each in group])

    step, count = len(VALUES), len(VALUES) * len(SCORE_NAMES)
    single, combined = seen[1 : 1 + count], seen[1 + count :]
    return SliderScores(
        tuple(scored(single[start : start + step]) for start in range(0, count, step)),
        tuple(scored([each]) for each in combined),
        len(seen),
        sum(each.face is not None for each in seen),
    )


def group_of(name: str) -> str:
    """A channel's name without its side. jawLeft and mouthLeft are directions and no sides."""
    return name if name in _DIRECTIONS else re.sub("(Left|Right)$", "", name)


@dataclass(frozen=True)
class _Seen:
    pose: SliderPose
    face: Face | None
    mesh: np.ndarray
    """(478, 2)"""


@dataclass(frozen=True)
class _Comparison:
    valid: np.ndarray
    """(468,) bool"""
    size: int

    def score(self, pairs: Sequence[tuple[_Seen, _Seen]]) -> SliderScore:
        """Of the pictures of one slider or combination, each beside its base picture."""
        base, last = pairs[-1]
        asked = last.pose.asked
        by_score = {name: value for name, value in asked.items() if name not in BY_LANDMARKS}
        measured_by = "score" if by_score else "landmarks" if self._visible(base, last) else "nothing"
        responses = []
        for base, picture in pairs:
            if measured_by == "nothing":
                responses.append(None)
            elif base.face is None or picture.face is None:
                responses.append(0.0)
            elif by_score:
                # One slider at one half is compared with its asked value at 1, a combination with what it asks.
                full = by_score if len(pairs) == 1 else dict.fromkeys(by_score, 1.0)
                growth = _growth(base.face, picture.face)
                responses.append(sum(min(growth[name], value) for name, value in full.items()) / sum(full.values()))
            else:
                responses.append(self._motion(base, picture, last, pairs[-1][0]))
        spilled, spill = _spill(base.face, picture.face, asked)
        found = sum(picture.face is not None for _, picture in pairs)
        return SliderScore(last.pose.name, measured_by, tuple(responses), spill, spilled, found)

    def _mesh_motion(self, base: _Seen, picture: _Seen) -> np.ndarray:
        return (picture.mesh - base.mesh)[:SURFACE_COUNT][self.valid]

    def _visible(self, base: _Seen, picture: _Seen) -> bool:
        motion = np.linalg.norm(self._mesh_motion(base, picture), axis=1)
        return bool(motion.max(initial=0) > VISIBLE * self.size)

    def _motion(self, base: _Seen, picture: _Seen, last: _Seen, last_base: _Seen) -> float:
        """The detected motion along the mesh's motion at 1, as a share of it."""
        assert base.face is not None and picture.face is not None
        wanted = self._mesh_motion(last_base, last)
        moved = (picture.face.landmarks - base.face.landmarks)[:SURFACE_COUNT, :2][self.valid]
        return float((moved * wanted).sum() / (wanted**2).sum())


def _growth(base: Face, face: Face) -> dict[str, float]:
    """Of each channel, as a share of what it could still grow."""
    growth = (face.scores - base.scores) / np.maximum(1 - base.scores, LITTLE_ROOM)
    return dict(zip(SCORE_NAMES, growth.tolist(), strict=True))


def _spill(base: Face | None, face: Face | None, asked: Mapping[str, float]) -> tuple[str | None, float]:
    """The channel that grows most without being asked for or permitted, and by how much."""
    if base is None or face is None:
        return None, 0.0
    asked_groups = {group_of(name) for name in asked}
    permitted = asked_groups.union(*(COMPANIONS.get(group, ()) for group in asked_groups))
    others = {n: face.scores[i] - base.scores[i] for i, n in enumerate(SCORE_NAMES) if group_of(n) not in permitted}
    name = max(others, key=lambda other: others[other])
    return (name, float(others[name])) if others[name] > 0 else (None, 0.0)


def _is_worse(score: SliderScore, mesh: SliderScore) -> bool:
    if score.found < len(score.responses):
        return True
    if score.response is None or not mesh.response or not mesh.monotonic:
        return False
    return not score.monotonic or score.response < mesh.response / 2


def _mean_response(scores: Sequence[SliderScore]) -> float:
    return mean(min(max(each.response, 0.0), 1.0) for each in scores if each.response is not None)
