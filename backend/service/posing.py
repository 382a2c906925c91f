"""From a pose as Blender sends it to splats in Blender's world, and to images of them.

A pose is `{expression: [E], neck, jaw, eye_L, eye_R: axis-angle [3], root: 4 × 4, torso: 4 × 4}`: coefficients in the
head model's order and rotations in head space, as in a track. `root` transforms head space into the world and may scale
uniformly. `torso` is the torso's motion in head space; without it the avatar's bust is not shown. Other entries that
are not given are at rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from ..avatar.avatar import Avatar
from ..avatar.bust import joined
from ..avatar.enhancer import Enhancer, enhance_joint_image
from ..avatar.render import Frame, frames_of
from ..errors import EffigyError
from ..head.jaw import JAW_SHAPES, jaw_rotations_of_shapes
from ..head.model import EYE_L, EYE_R, JAW, JOINT_NAMES, NECK, HeadModel
from ..head.rotations import matrix_to_quaternion, quaternion_multiply
from ..splatting.ply import write_splats
from ..splatting.rasterize import rasterize
from ..splatting.reference import NEAR
from ..splatting.types import Cameras, Splats
from .open_avatars import OpenAvatars
from .parameters import Parameters

ORTHOGRAPHIC_DISTANCE: Final = 100.0
"""Metres from a head to the pinhole camera that stands in for an orthographic one: over a head, its rays diverge by a
tenth of a degree."""
MIN_DISTANCE_TO_DEPTH: Final = 200.0
"""That pinhole camera is at least this many times as far away as the subject is deep."""
ROTATION_TOLERANCE: Final = 1e-3
"""By how much a matrix may differ from a rotation, relative: more than rounding, less than a visible squeeze."""
MAX_IMAGE_SIZE: Final = 16384
"""Pixels"""
MOST_PARTS: Final = 256
"""In one image; each takes as much memory as its depth."""
EMPTY: Final = Splats(*(torch.zeros(1, 0, *size) for size in ((3,), (4,), (3,), (), (3,))))
"""A frame without a Gaussian."""


@dataclass(frozen=True)
class SubjectPose:
    """One head's pose, checked. World x = scale * rotation @ (head-space x) + translation."""

    expression: np.ndarray
    """(E,) with the jaw's shapes at zero, because they are contained in the jaw's rotation."""
    rotations: np.ndarray
    """(5, 3) axis-angle of the joints; the root's is zero."""
    rotation: np.ndarray
    """(3, 3) of the head in the world."""
    translation: np.ndarray
    """(3,) metres."""
    scale: float
    torso: np.ndarray | None = None
    """(4, 4) motion from rest in head space, rigid; None hides the bust."""

    def to_head(self, point: np.ndarray) -> np.ndarray:
        """A point (3,) in the world → head space."""
        return self.rotation.T @ (point - self.translation) / self.scale


def read_pose(pose: Parameters, model: HeadModel) -> SubjectPose:
    """Check a pose of a request; every pose enters the worker through this function.

    The jaw's opening and sideways motion belong to the jaw joint (see `backend.head.jaw`), and avatars are
    trained so. The coefficients of the shapes jawOpen, jawLeft and jawRight are therefore converted to a rotation,
    added to the joint's own as in tracking, and set to zero.
    """
    pose.allow_only("expression", "root", "torso", *JOINT_NAMES[NECK:])
    count = len(model.expression_names)
    expression = pose.array("expression", (count,), np.zeros(count)).copy()
    rotations = np.zeros((5, 3))
    for joint in (NECK, JAW, EYE_L, EYE_R):
        rotations[joint] = pose.array(JOINT_NAMES[joint], (3,), np.zeros(3))
    for name in JAW_SHAPES:
        if name in model.expression_names and expression[index := model.expression_names.index(name)]:
            rotations[JAW] += expression[index] * _jaw_rotations(model)[name]
            expression[index] = 0
    root = pose.array("root", (4, 4), np.eye(4))
    scale = float(np.cbrt(np.linalg.det(root[:3, :3])))
    if not scale > 1e-6 or np.abs(root[:3, :3] @ root[:3, :3].T / scale**2 - np.eye(3)).max() > 2 * ROTATION_TOLERANCE:
        raise EffigyError(
            "The avatar's root is mirrored, sheared or scaled unevenly, which Gaussians cannot follow: "
            "apply its scale, or give all three axes the same."
        )
    torso = pose.array("torso", (4, 4)) if pose.has("torso") else None
    return SubjectPose(expression, rotations, root[:3, :3] / scale, root[:3, 3], scale, torso)


_jaw_rotations_by_fingerprint: dict[str, dict[str, np.ndarray]] = {}


def _jaw_rotations(model: HeadModel) -> dict[str, np.ndarray]:
    """`jaw_rotations_of_shapes`, solved once for each head model, because posing must answer within milliseconds."""
    if model.fingerprint not in _jaw_rotations_by_fingerprint:
        _jaw_rotations_by_fingerprint[model.fingerprint] = jaw_rotations_of_shapes(model)
    return _jaw_rotations_by_fingerprint[model.fingerprint]


@torch.inference_mode()
def posed_splats(avatar: Avatar, pose: SubjectPose, eye: np.ndarray, anchors_only: bool = False) -> Splats:
    """The splats of one posed head in the world, B = 1, and after them those of its bust.

    `eye` (3,), head space: the position of the camera for which the networks and colours are evaluated. `anchors_only`:
    only the Gaussians at the mesh's vertices, which are evaluated faster.
    """

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=avatar.device)

    # The networks depend on the camera's position only, so its rotation is left out.
    camera = np.eye(4)
    camera[:3, 3] = -eye
    evaluate = avatar.networks.anchor_splats if anchors_only else avatar.networks
    splats = evaluate(avatar.pose(*(tensor(part)[None] for part in (pose.expression, pose.rotations, camera))))[0]
    if avatar.bust is not None and pose.torso is not None:
        bust = avatar.bust.posed(tensor(pose.rotations)[None], avatar.shaped.joints[0], tensor(pose.torso)[None])
        splats = joined(splats, bust)
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
    """The position in head space of a distant camera that views the head along `direction` (3,), world."""
    eyes = avatar.shaped.joints[0, EYE_L : EYE_R + 1].mean(0).cpu().numpy()
    return eyes - ORTHOGRAPHIC_DISTANCE * (pose.rotation.T @ (direction / np.linalg.norm(direction)))


def _eye_of(parameters: Parameters, avatar: Avatar, pose: SubjectPose) -> np.ndarray:
    """The position in head space of the camera that the request's `view` or `direction` describes."""
    if parameters.has("direction"):
        direction = parameters.array("direction", (3,))
        if not np.linalg.norm(direction) > 1e-9:
            raise EffigyError(f"{parameters.context}: direction has no length.")
        return eye_in_direction(avatar, pose, direction)
    return pose.to_head(parameters.array("view", (3,)))


def concatenate(heads: list[Splats]) -> Splats:
    """The splats of several heads in one object, B = 1."""
    return Splats(*(torch.cat([getattr(head, name) for head in heads], 1) for name in vars(heads[0])))


def rotate(splats: Splats, rotation: np.ndarray) -> Splats:
    """The splats rotated about the world's origin by (3, 3)."""
    matrix = torch.as_tensor(rotation, dtype=torch.float32, device=splats.means.device)
    return replace(
        splats,
        means=splats.means @ matrix.T,
        quaternions=quaternion_multiply(matrix_to_quaternion(matrix), splats.quaternions),
    )


class Posing:
    """The worker's methods `avatar.open`, `avatar.splats`, `avatar.distance`, `avatar.export` and `avatar.render`."""

    def __init__(self) -> None:
        self._avatars = OpenAvatars()

    def close_avatars(self) -> None:
        """Close all avatars. The next request opens them again, on the device that is usable then."""
        self._avatars = OpenAvatars()

    def open(self, parameters: Parameters) -> dict[str, Any]:
        parameters.allow_only("path")
        path = parameters.path("path")
        return {"avatar": str(path), "info": self._avatars.describe(path)}

    def splats(self, parameters: Parameters) -> dict[str, np.ndarray]:
        """`view` (3,): the camera's position in the world, or `direction` (3,): the viewing direction of an
        orthographic camera. `anchors` (false): only the Gaussians at the mesh's vertices, which are evaluated
        faster.
        """
        parameters.allow_only("avatar", "pose", "view", "direction", "anchors")
        avatar = self._avatars.get(parameters.path("avatar"))
        pose = read_pose(parameters.group("pose"), avatar.head_model)
        splats = posed_splats(avatar, pose, _eye_of(parameters, avatar, pose), parameters.flag("anchors", False))
        return {name: tensor[0].cpu().numpy() for name, tensor in vars(splats).items()}

    def distance(self, parameters: Parameters) -> dict[str, float]:
        """How far the face of a pose is from those of the avatar's clip, whose furthest is at 1
        (`backend.avatar.filmed`).
        """
        parameters.allow_only("avatar", "pose")
        avatar = self._avatars.get(parameters.path("avatar"))
        pose = read_pose(parameters.group("pose"), avatar.head_model)
        return {"distance": float(avatar.distances(pose.expression[None], pose.rotations[None])[0])}

    def export(self, parameters: Parameters) -> dict[str, Any]:
        """All subjects as one file at `path`, in the format that its suffix says, with a camera as in `splats`.
        `axes` (3, 3): the rotation of the world into the file's axes. Answers the number of Gaussians in the file.
        """
        parameters.allow_only("subjects", "view", "direction", "axes", "path")
        axes = parameters.array("axes", (3, 3), np.eye(3))
        if np.abs(axes @ axes.T - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(axes) < 0:
            raise EffigyError(f"{parameters.context}: axes must be a rotation.")
        heads = []
        for subject in parameters.groups("subjects"):
            avatar, pose = self._read_subject(subject)
            heads.append(rotate(posed_splats(avatar, pose, _eye_of(parameters, avatar, pose)), axes))
        # A frame without an avatar is an empty file, so that the files of an animation keep their numbers.
        splats = concatenate(heads) if heads else EMPTY
        return {"gaussians": write_splats(parameters.path("path"), splats)}

    def render(self, parameters: Parameters) -> dict[str, np.ndarray]:
        """All subjects in one image, their Gaussians sorted together. `enhanced` (true): with the enhancers of the
        avatars that have one. A subject with `holdout` (false) cuts a hole into the image; only then the answer has
        `hole` (H, W), the share of each pixel that is cut out. `parts` (0) is the number M of parts to which the
        vertices of the subjects' meshes belong by their `labels` (N,); only with parts the answer has `parts`
        (H, W, M), the share of each pixel that each of them covers.
        """
        parameters.allow_only("subjects", "camera", "enhanced", "parts")
        parts = parameters.integer("parts", 0, 0, MOST_PARTS)
        enhanced = parameters.flag("enhanced", True)
        camera = read_camera(parameters.group("camera"))
        heads, enhancers, scales, holdouts, labels = [], [], [], [], []
        for subject in parameters.groups("subjects"):
            avatar, pose = self._read_subject(subject, "holdout", "labels")
            own = np.zeros(0)
            if parts:
                own = subject.array("labels", (len(avatar.head_model.template),))[_vertices_of_gaussians(avatar)]
            splats, start = posed_splats(avatar, pose, camera.eye_of(avatar, pose)), 0
            # The enhancer has seen the head alone, so that the bust is drawn like a head without one.
            for enhancer, part in zip((avatar.enhancer, None), _head_and_bust(avatar, splats), strict=False):
                end = start + part.means.shape[1]
                heads.append(part)
                holdouts.append(subject.flag("holdout", False))
                labels.append(own[start:end])
                enhancers.append(enhancer if enhanced and not holdouts[-1] else None)
                scales.append(pose.scale)
                start = end
        frame, hole = draw_with_holdouts(heads, holdouts, camera, enhancers, scales)
        found = vars(frame) | ({"hole": hole} if any(holdouts) else {})
        return found | {"parts": draw_parts(heads, holdouts, labels, parts, camera)} if parts else found

    def _read_subject(self, subject: Parameters, *further: str) -> tuple[Avatar, SubjectPose]:
        subject.allow_only("avatar", "pose", *further)
        avatar = self._avatars.get(subject.path("avatar"))
        return avatar, read_pose(subject.group("pose"), avatar.head_model)


@dataclass(frozen=True)
class View:
    """Blender's camera, in OpenCV axes."""

    world_to_camera: np.ndarray
    """(4, 4), rigid."""
    intrinsics: np.ndarray
    """(3, 3) pixels; the focal lengths of an orthographic camera are pixels per metre."""
    orthographic: bool
    width: int
    height: int
    clip: tuple[float, float] = (0.0, np.inf)
    """Gaussians whose centres are nearer or farther are not drawn, metres along the camera's axis."""

    def eye_of(self, avatar: Avatar, pose: SubjectPose) -> np.ndarray:
        """(3,): the camera's position in the head space of a posed avatar."""
        rotation = self.world_to_camera[:3, :3]
        if self.orthographic:
            return eye_in_direction(avatar, pose, rotation[2])
        return pose.to_head(-rotation.T @ self.world_to_camera[:3, 3])


def read_camera(camera: Parameters) -> View:
    camera.allow_only("world_to_camera", "intrinsics", "orthographic", "width", "height", "clip")
    matrix, intrinsics = camera.array("world_to_camera", (4, 4)), camera.array("intrinsics", (3, 3))
    if (
        np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max() > 2 * ROTATION_TOLERANCE
        or np.linalg.det(matrix[:3, :3]) < 0
    ):
        raise EffigyError("The camera is scaled or mirrored: clear its scale, and its parents'.")
    if not min(intrinsics[0, 0], intrinsics[1, 1]) > 0:
        raise EffigyError("The camera's focal length must be above zero.")
    start, end = map(float, camera.array("clip", (2,))) if camera.has("clip") else (0.0, np.inf)
    return View(
        matrix,
        intrinsics,
        camera.flag("orthographic"),
        camera.integer("width", minimum=1, maximum=MAX_IMAGE_SIZE),
        camera.integer("height", minimum=1, maximum=MAX_IMAGE_SIZE),
        (start, end),
    )


def draw(
    heads: list[Splats], view: View, enhancers: list[Enhancer | None] | None = None, scales: list[float] | None = None
) -> Frame:
    """Rasterise several heads together; `enhancers` and `scales` (1 = life size) have one entry for each head."""
    return draw_with_holdouts(heads, [False] * len(heads), view, enhancers, scales)[0]


@torch.inference_mode()
def draw_with_holdouts(
    heads: list[Splats],
    holdouts: list[bool],
    view: View,
    enhancers: list[Enhancer | None] | None = None,
    scales: list[float] | None = None,
) -> tuple[Frame, np.ndarray]:
    """As `draw`, but heads that are holdouts hide what is behind them and are not in the frame; also the share (H, W)
    of each pixel that they cover.
    """
    if not heads:
        size = view.height, view.width
        nothing = np.zeros(size, np.float32)
        return Frame(np.zeros((*size, 3), np.float32), nothing, np.full(size, np.inf, np.float32)), nothing
    counts = [head.means.shape[1] for head in heads]
    splats = _clipped(concatenate(heads), view)
    view, splats, offset = _approximate_orthographic(view, splats) if view.orthographic else (view, splats, 0.0)
    intrinsics, world_to_camera = (
        torch.as_tensor(matrix, dtype=torch.float32, device=splats.means.device)[None]
        for matrix in (view.intrinsics, view.world_to_camera)
    )
    cameras = Cameras(intrinsics, world_to_camera, view.width, view.height)
    hole = np.zeros((view.height, view.width), np.float32)
    if not any(holdouts):
        raster = rasterize(splats, cameras)
    else:
        shown = torch.cat([torch.full((1, n, 1), float(not out)) for n, out in zip(counts, holdouts, strict=True)], 1)
        shown = shown.to(splats.means.device)
        raster = rasterize(replace(splats, colors=splats.colors * shown), cameras)
        # Their weights and depths are accumulated like a colour.
        depths = splats.means @ world_to_camera[:, 2, :3, None] + world_to_camera[:, 2, 3:, None]
        marked = shown * torch.cat((torch.ones_like(depths), depths, depths), -1)
        marks = rasterize(replace(splats, colors=marked), cameras)
        hole = (raster.alpha - marks.color[..., 0]).clamp_min(0)[0].cpu().numpy()
        raster = replace(raster, alpha=marks.color[..., 0], depth=marks.color[..., 1])
    if enhancers:
        raster = enhance_joint_image(raster, splats, cameras, counts, enhancers, scales or [1.0] * len(heads))
    frame = frames_of(raster)[0]
    return Frame(frame.color, frame.alpha, frame.depth - np.float32(offset)), hole


@torch.inference_mode()
def draw_parts(
    heads: list[Splats], holdouts: list[bool], labels: list[np.ndarray], parts: int, view: View
) -> np.ndarray:
    """(H, W, `parts`): the share of each pixel that each part covers. `labels`: of each head, the part (G,) of each
    Gaussian. Holdouts have none.
    """
    covers = np.zeros((view.height, view.width, parts), np.float32)
    if not heads:
        return covers
    belongs = torch.cat(
        [
            torch.full((len(own),), -1) if holdout else torch.as_tensor(own).round().long()
            for own, holdout in zip(labels, holdouts, strict=True)
        ]
    )
    for first in range(0, parts, 3):
        marked, start = [], 0
        for head in heads:
            own = belongs[start : (start := start + head.means.shape[1]), None] == torch.arange(first, first + 3)
            marked.append(replace(head, colors=own.to(head.colors)[None]))
        frame = draw(marked, view)
        covers[..., first : first + 3] = frame.color[..., : min(3, parts - first)]
    return covers


def _head_and_bust(avatar: Avatar, splats: Splats) -> list[Splats]:
    """The splats of `posed_splats` as those of the head and, if the avatar has an enhancer, those of the bust."""
    if avatar.bust is None or avatar.enhancer is None:
        return [splats]
    head = avatar.gaussian_count - len(avatar.bust)
    return [Splats(*(part[:, own] for part in vars(splats).values())) for own in (slice(head), slice(head, None))]


def _vertices_of_gaussians(avatar: Avatar) -> np.ndarray:
    """(G,) the vertex to which each Gaussian belongs: of the anchors, of the Gaussians that each spawns, and of the
    bust, whose Gaussians belong to the nearest one.
    """
    count, spawned = len(avatar.head_model.template), avatar.settings.neural_per_anchor
    of_bust = [] if avatar.bust is None else avatar.bust.nearest(avatar.shaped.vertices[0]).cpu().numpy()
    return np.concatenate((np.arange(count), np.arange(count).repeat(spawned), of_bust)).astype(int)


def _clipped(splats: Splats, view: View) -> Splats:
    """The splats with those outside of the view's clipping range made invisible."""
    if view.clip == (0.0, np.inf):
        return splats
    axis = torch.as_tensor(view.world_to_camera[2], dtype=torch.float32, device=splats.means.device)
    depths = splats.means @ axis[:3] + axis[3]
    return replace(splats, opacities=splats.opacities * ((depths >= view.clip[0]) & (depths <= view.clip[1])))


def _approximate_orthographic(view: View, splats: Splats) -> tuple[View, Splats, float]:
    """An orthographic view as a distant pinhole view, because the rasterisers have only pinhole cameras.

    The camera is moved back along its axis by the last value returned, its focal length grows in proportion, and each
    Gaussian is moved sideways onto the ray through the pixel that it belongs to. Positions and depths are exact. The
    sizes of the Gaussians are wrong by less than half a per cent: the subject's depth divided by the distance.
    """
    rotation, translation = view.world_to_camera[:3, :3], view.world_to_camera[:3, 3]
    means = splats.means[0].double().cpu().numpy() @ rotation.T + translation
    in_front = means[:, 2] >= NEAR
    depths = means[in_front, 2] if in_front.any() else np.zeros(1)
    middle = (depths.min() + depths.max()) / 2
    distance = max(ORTHOGRAPHIC_DISTANCE, MIN_DISTANCE_TO_DEPTH * np.ptp(depths))
    means[:, :2] *= 1 + (means[:, 2:] - middle) / distance
    offset = distance - middle
    matrix, intrinsics = view.world_to_camera.copy(), view.intrinsics.copy()
    matrix[2, 3] += offset
    intrinsics[(0, 1), (0, 1)] *= distance

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=splats.means.device)[None]

    moved = Splats(
        tensor((means - translation) @ rotation),
        splats.quaternions,
        splats.scales,
        splats.opacities * tensor(in_front),
        splats.colors,
    )
    return View(matrix, intrinsics, True, view.width, view.height), moved, offset
