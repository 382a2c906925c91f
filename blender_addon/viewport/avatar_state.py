"""What the viewport remembers of each avatar and of each 3D View from one redraw to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ..grade import NEUTRAL, Grade
from ..rig.pose import RigPose
from ..rig.rig_properties import find_rigs
from .splats import Splats
from .viewpoint import Viewpoint


class Source(Enum):
    """What has made an avatar's splats, as the panel says it."""

    NONE = ""
    PLAYER = "Played in Blender, without the backend"
    DISTILLED = "Played in Blender, from a bake of its networks"
    WORKER = "Computed by the backend"
    NETWORKS = "Computed by the backend, from the networks of the bake"
    BAKE = "Played from the baked frames"


@dataclass(frozen=True)
class RequestRecord:
    """A request for an avatar's splats. `AvatarState.requested is AvatarState.shown` means that the splats of the last
    request have arrived.
    """

    key: bytes
    """`pose_key` of the requested pose."""
    pose_changed_at: float
    """`perf_counter` when a pose with this key was first read."""
    view: np.ndarray
    """(4,) The result of `Viewpoint.relative_to_head` for the request's viewpoint and head motion."""
    anchors_only: bool
    networks: bool = False
    """Whether the worker was asked for what a baked avatar's networks compute."""


@dataclass
class AvatarState:
    """The state of one avatar. Times are in seconds of `time.perf_counter`."""

    splats: Splats | None = None
    """The newest splats; None before the first."""
    version: int = 0
    """Counts the changes of `splats`."""
    motion: np.ndarray = field(default_factory=lambda: np.eye(4))
    """(4, 4) `RigPose.head_motion` of the current pose."""
    pose: RigPose | None = None
    """The pose as it was last read, at `read_at`."""
    grade: Grade = NEUTRAL
    """As it was last read, at `read_at`. `splats` are without it."""
    read_at: float = -np.inf
    key: bytes = b""
    """`pose_key` of `pose`."""
    pose_changed_at: float = 0.0
    """When a pose with this key was first read."""
    moved_at: float = 0.0
    """When the pose or the head's motion last changed."""
    requested: RequestRecord | None = None
    """The last request; None before the first and after an error."""
    shown: RequestRecord | None = None
    """The request that `splats` answer. Baked splats get a record of their own, in `requested` as well."""
    source: Source = Source.NONE
    """What has made `splats`."""
    unfilmed: bool = False
    """Whether the face of `splats` is far from all that the avatar's clip has filmed. Only the player knows."""
    error: str | None = None
    """Why no new splats arrive, as a sentence for the panel."""
    failed_at: float = -np.inf
    file: tuple[tuple[Any, ...], Path] | None = None
    """The settings that name the avatar's file, and its path. Kept because finding a packed avatar takes time."""

    @property
    def has_size(self) -> bool:
        """Whether there is anything to draw (`RigPose.has_size`), as far as the pose is known."""
        return self.pose is None or self.pose.has_size

    @property
    def fresh(self) -> bool:
        """Whether `splats` have the shape of the current pose; their colours may be those of an earlier viewpoint."""
        return self.shown is not None and self.shown.key == self.key


@dataclass
class ViewState:
    """The state of one 3D View."""

    viewpoint: Viewpoint
    moved_at: float
    """`perf_counter` when the viewpoint last changed."""


@dataclass
class ViewportState:
    """Everything that the viewport knows. `live` owns the only instance and resets it when a file is loaded."""

    avatars: dict[int, AvatarState] = field(default_factory=dict)
    """By `Rig.uid`."""
    views: dict[int, ViewState] = field(default_factory=dict)
    """By the address of the view's region."""
    active_view: int | None = None
    """The view that moved last. If several are open, splats are requested for this one only, so that the colours are
    those of its viewpoint."""
    scene_changed_at: float = 0.0
    """`perf_counter` when Blender last reported a change. Set by handlers, which may run in a render's thread."""
    files_loaded: int = 0
    """Counts the loaded files."""

    def reset(self) -> None:
        """Forgets the avatars and views of the file that was open."""
        self.avatars.clear()
        self.views.clear()
        self.active_view = None

    def forget_deleted(self) -> None:
        """Forgets the avatars of rigs that are no longer in the file; Blender does not report deletions."""
        existing = {rig.uid for rig in find_rigs(bpy.data.objects)}
        for uid in set(self.avatars) - existing:
            del self.avatars[uid]
