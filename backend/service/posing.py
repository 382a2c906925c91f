"""From a pose as Blender sends it to splats in the artist's world, and to pictures of them.

A pose is `{expression: [E], neck, jaw, eye_L, eye_R: axis-angle [3], root: 4 × 4}`: coefficients in the head model's
order and rotations in head space, as in a track; `root` carries head space into the world and may scale evenly. What is
not given is at rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..avatar.avatar import Avatar
from ..avatar.enhancer import Enhancer, enhance_together
from ..avatar.render import Frame, frames_of
from ..errors import EffigyError
from ..head.jaw import JAW_SHAPES, jaw_rotations_of_shapes
from ..head.model import EYE_L, EYE_R, JAW, JOINT_NAMES, NECK, HeadModel
from ..head.rotations import matrix_to_quaternion, quaternion_multiply
from ..splatting.ply import write_ply
from ..splatting.rasterize import rasterize
from ..splatting.reference import NEAR
from ..splatting.types import Cameras, Splats
from .open_avatars import OpenAvatars
from .parameters import Parameters

FAR_AWAY = 100.0
"""Metres from which an orthographic view looks at a head: its rays part by a tenth of a degree over it."""
FLATNESS = 200.0
"""An orthographic picture is drawn from at least this many times the depth of what it shows."""
UNEVEN = 1e-3
"""By how much a matrix may differ from a rotation, relative: rounding passes, a squeeze does not."""
LARGEST_PICTURE = 16384


@dataclass(frozen=True)
class SubjectPose:
    """One head's pose, checked. World x = scale * rotation @ (head-space x) + translation."""

    expression: np.ndarray
    """(E,) with the jaw's shapes at zero: they are in the jaw's rotation."""
    rotations: np.ndarray
    """(5, 3) axis-angle; the root's is zero."""
    rotation: np.ndarray
    """(3, 3)"""
    translation: np.ndarray
    """(3,) metres."""
    scale: float

    def to_head(self, point: np.ndarray) -> np.ndarray:
        """A place (3,) in the world → head space."""
        return self.rotation.T @ (point - self.translation) / self.scale


def read_pose(pose: Parameters, model: HeadModel) -> SubjectPose:
    """The one place where a pose comes in.

    The jaw's opening and sideways motion belong to the jaw joint (see `backend.head.jaw`), and avatars are
    trained so. Whatever comes in as the shapes jawOpen, jawLeft and jawRight is added to the joint's rotation here, as
    tracking adds them, and the shapes stay at zero.
    """
    pose.known("expression", "root", *JOINT_NAMES[NECK:])
    expression = pose.array("expression", (len(model.expression_names),), None)
    expression = np.zeros(len(model.expression_names)) if expression is None else expression.copy()
    rotations = np.zeros((5, 3))
    for joint in (NECK, JAW, EYE_L, EYE_R):
        rotations[joint] = pose.array(JOINT_NAMES[joint], (3,), np.zeros(3))
    for name in JAW_SHAPES:
        if name in model.expression_names and expression[index := model.expression_names.index(name)]:
            rotations[JAW] += expression[index] * _jaw_rotations(model)[name]
            expression[index] = 0
    root = pose.array("root", (4, 4), np.eye(4))
    scale = float(np.cbrt(np.linalg.det(root[:3, :3])))
    if not scale > 1e-6 or np.abs(root[:3, :3] @ root[:3, :3].T / scale**2 - np.eye(3)).max() > 2 * UNEVEN:
        raise EffigyError(
            "The avatar's root is mirrored, sheared or scaled unevenly, which Gaussians cannot follow: "
            "apply its scale, or give all three axes the same."
        )
    return SubjectPose(expression, rotations, root[:3, :3] / scale, root[:3, 3], scale)


_jaws: dict[str, dict[str, np.ndarray]] = {}


def _jaw_rotations(model: HeadModel) -> dict[str, np.ndarray]:
    """`jaw_rotations_of_shapes`, solved once for a head model: a pose has no millisecond to spare."""
    if model.fingerprint not in _jaws:
        _jaws[model.fingerprint] = jaw_rotations_of_shapes(model)
    return _jaws[model.fingerprint]


@torch.inference_mode()
def posed_splats(avatar: Avatar, pose: SubjectPose, eye: np.ndarray, anchors_only: bool = False) -> Splats:
    """One head in the world, B = 1; its networks and colours are evaluated for a camera at `eye` (3,), head space."""

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=avatar.device)

    # Of the camera the networks know no more than its place: its rotation is left out.
    camera = np.eye(4)
    camera[:3, 3] = -eye
    evaluate = avatar.networks.anchor_splats if anchors_only else avatar.networks
    splats = evaluate(avatar.pose(*(tensor(part)[None] for part in (pose.expression, pose.rotations, camera))))[0]
    rotation = tensor(pose.rotation)
    quaternions = quaternion_multiply(matrix_to_quaternion(rotation), splats.quaternions)
    return Splats(
        means=torch.addmm(tensor(pose.translation), splats.means[0], pose.scale * rotation.T)[None],
        quaternions=functional.normalize(quaternions, dim=-1),
        scales=pose.scale * splats.scales,
        opacities=splats.opacities,
        colors=splats.colors,
    )


def eye_in_direction(avatar: Avatar, pose: SubjectPose, direction: np.ndarray) -> np.ndarray:
    """Where, in head space, a camera stands that looks along `direction` (3,), world, from far away."""
    head = avatar.shaped.joints[0, EYE_L : EYE_R + 1].mean(0).cpu().numpy()
    return head - FAR_AWAY * (pose.rotation.T @ (direction / np.linalg.norm(direction)))


def _eye_of(parameters: Parameters, avatar: Avatar, pose: SubjectPose) -> np.ndarray:
    """Where in head space the request's `view` or `direction` sees the head from."""
    if parameters.has("direction"):
        direction = parameters.array("direction", (3,))
        if not np.linalg.norm(direction) > 1e-9:
            raise EffigyError(f"{parameters.of}: direction has no length.")
        return eye_in_direction(avatar, pose, direction)
    return pose.to_head(parameters.array("view", (3,)))


def together(heads: list[Splats]) -> Splats:
    """Several heads' splats as one, B = 1."""
    return Splats(*(torch.cat([getattr(head, name) for head in heads], 1) for name in vars(heads[0])))


def turned(splats: Splats, rotation: np.ndarray) -> Splats:
    """Everything turned about the world's origin by (3, 3)."""
    turn = torch.as_tensor(rotation, dtype=torch.float32, device=splats.means.device)
    return replace(
        splats,
        means=splats.means @ turn.T,
        quaternions=quaternion_multiply(matrix_to_quaternion(turn), splats.quaternions),
    )


class Posing:
    """The worker's methods `avatar.open`, `avatar.splats`, `avatar.export` and `avatar.render`."""

    def __init__(self) -> None:
        self._avatars = OpenAvatars()

    def open(self, parameters: Parameters) -> dict[str, Any]:
        parameters.known("path")
        path = parameters.path("path")
        return {"avatar": str(path), "info": self._avatars.describe(path)}

    def splats(self, parameters: Parameters) -> dict[str, Any]:
        """`view`: the camera's place in the world; or `direction`: where an orthographic camera looks. `anchors` (false):
        only the Gaussians of the mesh's vertices, which are there sooner."""
        parameters.known("avatar", "pose", "view", "direction", "anchors")
        avatar = self._avatars.get(parameters.path("avatar"))
        pose = read_pose(parameters.group("pose"), avatar.head_model)
        splats = posed_splats(avatar, pose, _eye_of(parameters, avatar, pose), parameters.flag("anchors", False))
        return {name: tensor[0].cpu().numpy() for name, tensor in vars(splats).items()}

    def export(self, parameters: Parameters) -> dict[str, Any]:
        """All subjects as one `.ply` at `path`, seen as in `splats`; `axes` (3, 3): a rotation of the world into the file's
        axes. Gives how many Gaussians the file holds."""
        parameters.known("subjects", "view", "direction", "axes", "path")
        turn = parameters.array("axes", (3, 3), np.eye(3))
        if np.abs(turn @ turn.T - np.eye(3)).max() > UNEVEN or np.linalg.det(turn) < 0:
            raise EffigyError(f"{parameters.of}: axes is no rotation.")
        heads = []
        for subject in parameters.groups("subjects"):
            subject.known("avatar", "pose")
            avatar = self._avatars.get(subject.path("avatar"))
            pose = read_pose(subject.group("pose"), avatar.head_model)
            heads.append(turned(posed_splats(avatar, pose, _eye_of(parameters, avatar, pose)), turn))
        if not heads:
            raise EffigyError("There is no avatar to export.")
        return {"gaussians": write_ply(parameters.path("path"), together(heads))}

    def render(self, parameters: Parameters) -> dict[str, Any]:
        """All subjects in one picture, sorted together. Colour (H, W, 3) sRGB-encoded and premultiplied, alpha (H, W),
        depth (H, W) metres along the camera's axis, infinity where nothing covers the pixel. `enhanced` (true): with the
        avatars' enhancers, where they have one."""
        parameters.known("subjects", "camera", "enhanced")
        wanted = parameters.flag("enhanced", True)
        camera = read_camera(parameters.group("camera"))
        heads, enhancers, sizes = [], [], []
        for subject in parameters.groups("subjects"):
            subject.known("avatar", "pose")
            avatar = self._avatars.get(subject.path("avatar"))
            pose = read_pose(subject.group("pose"), avatar.head_model)
            heads.append(posed_splats(avatar, pose, camera.eye_of(avatar, pose)))
            enhancers.append(avatar.enhancer if wanted else None)
            sizes.append(pose.scale)
        frame = draw(heads, camera, enhancers, sizes)
        return {"color": frame.color, "alpha": frame.alpha, "depth": frame.depth}


@dataclass(frozen=True)
class View:
    """Blender's camera, in OpenCV axes."""

    world_to_camera: np.ndarray
    """(4, 4), rigid."""
    intrinsics: np.ndarray
    """(3, 3): pixels; of an orthographic camera the focal lengths are pixels per metre."""
    orthographic: bool
    width: int
    height: int

    def eye_of(self, avatar: Avatar, pose: SubjectPose) -> np.ndarray:
        rotation = self.world_to_camera[:3, :3]
        if self.orthographic:
            return eye_in_direction(avatar, pose, rotation[2])
        return pose.to_head(-rotation.T @ self.world_to_camera[:3, 3])


def read_camera(camera: Parameters) -> View:
    camera.known("world_to_camera", "intrinsics", "orthographic", "width", "height")
    matrix, intrinsics = camera.array("world_to_camera", (4, 4)), camera.array("intrinsics", (3, 3))
    if np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max() > 2 * UNEVEN or np.linalg.det(matrix[:3, :3]) < 0:
        raise EffigyError("The camera is scaled or mirrored: clear its scale, and its parents'.")
    if not min(intrinsics[0, 0], intrinsics[1, 1]) > 0:
        raise EffigyError("The camera's focal length must be above zero.")
    return View(
        matrix,
        intrinsics,
        camera.flag("orthographic"),
        camera.integer("width", least=1, most=LARGEST_PICTURE),
        camera.integer("height", least=1, most=LARGEST_PICTURE),
    )


@torch.inference_mode()
def draw(
    heads: list[Splats], view: View, enhancers: list[Enhancer | None] | None = None, sizes: list[float] | None = None
) -> Frame:
    """Rasterise several heads together; `sizes`: how many times larger than life each is."""
    if not heads:
        size = view.height, view.width
        return Frame(np.zeros((*size, 3), np.float32), np.zeros(size, np.float32), np.full(size, np.inf, np.float32))
    splats = together(heads)
    view, splats, nearer = _from_afar(view, splats) if view.orthographic else (view, splats, 0.0)
    cameras = Cameras(
        *(
            torch.as_tensor(part, dtype=torch.float32, device=splats.means.device)[None]
            for part in (view.intrinsics, view.world_to_camera)
        ),
        view.width,
        view.height,
    )
    raster = rasterize(splats, cameras)
    if enhancers:
        counts = [head.means.shape[1] for head in heads]
        raster = enhance_together(raster, splats, cameras, counts, enhancers, sizes or [1.0] * len(heads))
    frame = frames_of(raster)[0]
    return Frame(frame.color, frame.alpha, frame.depth - np.float32(nearer))


def _from_afar(view: View, splats: Splats) -> tuple[View, Splats, float]:
    """An orthographic picture by way of the pinhole that the rasterisers have: the same picture from far away.

    The camera steps back along its axis by the last value returned, with as much longer a focal length, and each
    Gaussian is moved sideways onto the ray through the pixel that it belongs to. Places and depths are exact; the
    Gaussians' own sizes are off by under half a per cent, the depth of the subject over the distance.
    """
    rotation, translation = view.world_to_camera[:3, :3], view.world_to_camera[:3, 3]
    means = splats.means[0].double().cpu().numpy() @ rotation.T + translation
    drawn = means[:, 2] >= NEAR
    depths = means[drawn, 2] if drawn.any() else np.zeros(1)
    middle = (depths.min() + depths.max()) / 2
    distance = max(FAR_AWAY, FLATNESS * np.ptp(depths))
    means[:, :2] *= 1 + (means[:, 2:] - middle) / distance
    back = distance - middle
    matrix, intrinsics = view.world_to_camera.copy(), view.intrinsics.copy()
    matrix[2, 3] += back
    intrinsics[(0, 1), (0, 1)] *= distance

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=splats.means.device)[None]

    moved = Splats(
        tensor((means - translation) @ rotation),
        splats.quaternions,
        splats.scales,
        splats.opacities * tensor(drawn),
        splats.colors,
    )
    return View(matrix, intrinsics, True, view.width, view.height), moved, back
