"""The request to the worker for the splats of one pose, seen from one viewpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..rig.pose import RigPose
from .viewpoint import Viewpoint

METHOD: Final = "avatar.splats"


@dataclass(frozen=True)
class SplatsRequest:
    """One call of the worker's `avatar.splats`."""

    avatar: Path
    """The avatar's file."""
    pose: RigPose
    viewpoint: Viewpoint
    anchors_only: bool = False
    """Only the Gaussians that sit on the mesh's vertices, which the networks compute sooner than all of them."""

    def message(self) -> dict[str, Any]:
        """The parameters of the worker's `avatar.splats`."""
        anchors = {"anchors": True} if self.anchors_only else {}
        return {"avatar": self.avatar, "pose": self.pose.message()} | self.viewpoint.message() | anchors


def pose_key(pose: RigPose) -> bytes:
    """Identifies the shape of a pose: the exact float32 values of expression and joint rotations, without the root, and
    the torso to 10 µm. It is relative to the root, so that a parent that moves both changes it by its rounding.

    Two poses of one avatar with the same key have the same splats, apart from a similarity transformation that moves
    the whole head, and from the colours, which depend on the viewpoint.
    """
    values = {name: value for name, value in pose.message().items() if name != "root"}
    if pose.torso is not None:
        # No negative zeros.
        values["torso"] = np.round(pose.torso, 5) + 0.0
    return b"".join(np.ascontiguousarray(values[name], np.float32).tobytes() for name in sorted(values))
