"""The splats of one frame, as a point cloud holds them."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Final

import bpy
import numpy as np

from .. import srgb
from ..avatars import avatar_path
from ..errors import EffigyError
from ..grade import Grade
from ..grading import grade_of
from ..player.evaluate import Player
from ..player.harmonics import turned
from ..player.players import player_of
from ..rig.conventions import BLENDER_TO_HEAD
from ..rig.placement import nearest_similarity
from ..rig.pose import RigPose, read_pose
from ..rig.rig_properties import Rig
from ..rig.rotations import matrix_to_quaternion, quaternion_multiply
from ..viewport.splats import Splats
from ..viewport.viewpoint import Viewpoint
from . import light, radiance

FROM_THE_FRONT: Final = 1.0
"""Metres before the head, of a head at its own size: from where it is seen in a scene without a camera."""


@dataclass(frozen=True)
class NativeSplats:
    """The G splats of one frame in the space of their object; float32. The names are those of the attributes."""

    position: np.ndarray
    """(G, 3) metres."""
    rotation: np.ndarray
    """(G, 4) w, x, y, z, unit."""
    scale: np.ndarray
    """(G, 3) standard deviations, metres."""
    base: np.ndarray
    """(G, 4) `radiance:base`: the coefficients of the constant function, and the opacity."""
    harmonics: np.ndarray
    """(H - 1, G, 3) `radiance:sh_N`."""

    @property
    def count(self) -> int:
        return len(self.position)

    def transparent(self) -> NativeSplats:
        """The same without opacity, for a frame that does not show the avatar."""
        base = self.base.copy()
        base[:, 3] = 0
        return replace(self, base=base)


@dataclass(frozen=True)
class FrameRequest:
    """Everything that the splats of a frame depend on."""

    player: Player
    pose: RigPose
    viewpoint: Viewpoint
    object_to_world: np.ndarray
    """(4, 4) of the point cloud."""
    strength: float
    """0 to 1: of the scene's light."""
    lit: light.LitHead | None
    """None if the strength is 0."""
    grade: Grade

    def key(self) -> bytes:
        """Differs where the splats do."""
        pose = self.pose.message()
        view = self.viewpoint
        parts = [np.asarray(pose[name], np.float64).tobytes() for name in sorted(pose)]
        parts += [view.position.tobytes(), view.forward.tobytes(), bytes([view.orthographic])]
        parts += [self.object_to_world.tobytes(), np.float64(self.strength).tobytes()]
        parts += [np.float64(astuple(self.grade)).tobytes()]
        return b"".join(parts) + (b"" if self.lit is None else self.lit.key()) + str(id(self.player)).encode()


def request_of(
    rig: Rig, cloud: bpy.types.Object | None, depsgraph: bpy.types.Depsgraph, *, asked: bool, in_world: bool = False
) -> FrameRequest | None:
    """What the point cloud of a rig shows in a depsgraph's frame; None for a head that has no size now. `in_world`:
    the splats are in the world instead of the point cloud's space.

    `asked`: as in `avatar_path`. Raises an `EffigyError` for an avatar that Blender cannot evaluate.
    """
    pose = read_pose(rig, depsgraph)
    if not pose.has_size:
        return None
    player = player_of(rig, avatar_path(rig.armature, asked=asked), depsgraph)
    if player is None:
        raise EffigyError(
            f"The avatar of “{rig.armature.name}” has no baked model, which native splats are made of: "
            "press Make Playable without Backend, or train it again."
        )
    evaluated = cloud and cloud.evaluated_get(depsgraph)
    strength = float(evaluated.effigy_native.light) if evaluated else 0.0
    return FrameRequest(
        player,
        pose,
        _viewpoint(depsgraph, pose),
        np.eye(4) if in_world or evaluated is None else np.array(evaluated.matrix_world, np.float64),
        strength,
        light.read(rig, depsgraph) if strength > 0 else None,
        grade_of(rig, depsgraph),
    )


def splats_of(request: FrameRequest) -> NativeSplats:
    """Evaluates the avatar."""
    player, pose = request.player, request.pose
    answer, harmonics = player.splats_and_harmonics(pose.message(), request.viewpoint.message())
    splats = Splats.from_answer(answer, pose.head_motion)
    # The area that a Gaussian covers, roughly, by how much it covers.
    weights = splats.opacities * np.sort(splats.scales, axis=1)[:, 1:].prod(1)
    count = harmonics.shape[2]
    anchors = player.vertices_of_gaussians[: len(weights)]
    rest = player.baked.vertices.T[anchors]
    if player.baked.bust is not None:
        own = len(player.vertices_of_gaussians) - len(player.baked.bust.means)
        rest[own:] = player.baked.bust.means[: len(rest) - own]
    wanted = radiance.for_blended_light(request.grade.colors(splats.colors), rest, weights)
    if request.lit is not None:
        factor = light.factor(request.lit, splats.means[:count], request.strength)[anchors]
        wanted = srgb.encode(srgb.decode(wanted) * factor).astype(np.float32)
    directions = _directions(splats.means, request.viewpoint)
    world = nearest_similarity(request.object_to_world)
    scale = float(np.cbrt(np.linalg.det(world[:3, :3])))
    turn = world[:3, :3] / scale
    # From the axes of head space to those of the object, in which Blender takes directions.
    in_object = turned(harmonics, BLENDER_TO_HEAD[:3, :3] @ turn)
    base, turning = radiance.attributes(splats.colors, wanted, splats.opacities, in_object, turn.T @ directions)
    inverse = np.linalg.inv(request.object_to_world)
    quaternions = quaternion_multiply(matrix_to_quaternion(turn.T), splats.quaternions)
    return NativeSplats(
        (splats.means @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.float32),
        (quaternions / np.maximum(np.linalg.norm(quaternions, axis=1, keepdims=True), 1e-12)).astype(np.float32),
        (splats.scales / scale).astype(np.float32),
        base,
        turning,
    )


def aligned(quaternions: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(G, 4) the same rotations, each with the sign that brings it nearest to that of `before` (G, 4)."""
    return quaternions * np.where((quaternions * before).sum(1, keepdims=True) < 0, -1, 1).astype(quaternions.dtype)


def _viewpoint(depsgraph: bpy.types.Depsgraph, pose: RigPose) -> Viewpoint:
    camera = depsgraph.scene.camera
    if camera is None or camera.type != "CAMERA":
        forward = pose.head_motion[:3, 1] / np.linalg.norm(pose.head_motion[:3, 1])
        eye = pose.head_motion @ np.array((0, -FROM_THE_FRONT, 0, 1))
        return Viewpoint(eye[:3], forward, False)
    world = np.array(camera.evaluated_get(depsgraph).matrix_world, np.float64)
    return Viewpoint.from_view_matrix(np.linalg.inv(world), camera.data.type == "ORTHO")


def _directions(means: np.ndarray, viewpoint: Viewpoint) -> np.ndarray:
    """(3, G) unit vectors in Blender's world from the viewpoint to each Gaussian."""
    if viewpoint.orthographic:
        return np.repeat(viewpoint.forward[:, None], len(means), 1)
    away = (means - viewpoint.position).T
    return away / np.maximum(np.linalg.norm(away, axis=0), 1e-12)
