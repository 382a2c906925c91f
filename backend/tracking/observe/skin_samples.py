"""Sample points on the skin, grouped in patches, and where a frame's image shows them.

A sample is a fixed point of a fixed triangle, so its albedo is the person's and the same in all frames. It is visible
in a frame if nothing of the posed mesh lies in front of it in the z-buffer. Samples lie evenly on face and ears;
neighbouring samples form a patch, which moves in the image as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import cv2
import numpy as np
import torch
from torch import Tensor

from ...cores import core_count
from ...errors import EffigyError
from ...formats.capture import Capture, read_frame, read_matte
from ...head.forward import Head, Shaped, vertex_normals
from ...head.model import HeadModel
from ...splatting.mesh_batch import rasterize_meshes
from ..model.camera import Camera
from ..model.frame_state import FrameState, joint_rotation_vectors
from ..model.landmark_surface import LandmarkSurface, surface_at

PATCHES = 220
SAMPLES_PER_PATCH = 28
"""On average."""
IMAGE_SIZE = 256
"""Pixels of the images that are sampled."""
_REGIONS = ("face", "ears")
_EXCLUDED = ("eyes", "mouth_inside")
"""Regions that move on their own: the gaze has a term of its own, teeth and tongue appear and disappear."""
_FACING = 0.25, 0.8
"""Cosine between normal and viewing direction up to which a sample has no weight, because it is too oblique, and from
which on it has full weight."""
_OCCLUSION_TOLERANCE = 0.006
"""Metres that a sample may lie behind the z-buffer's surface and still be visible."""
_DEPTH_SIZE = 128
"""Pixels of the side of the z-buffer and of the matte."""
_MIN_LIGHT = 0.01
"""Linear light that is added before the logarithm, so that noise in dark pixels is not amplified."""
_CHUNK = 32
"""Frames that are posed at a time."""
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Skin:
    """D samples in PATCHES patches on the mesh."""

    head: Head
    centres: LandmarkSurface
    """The patches' centres as surface points."""
    corners: np.ndarray
    """(D, 3) vertex indices of the triangle that a sample lies on."""
    barycentric: np.ndarray
    """(D, 3) float32."""
    patch: np.ndarray
    """(D,) int64, ascending: the patch of each sample."""
    bases: Tensor
    """(K, 3, 3): per patch, as columns, two directions along the skin at rest and its normal."""

    def patch_mean(self, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(K,): the weighted mean of values (D,) over each patch."""
        return self.patch_sum(weight * values) / np.maximum(self.patch_sum(weight), 1e-6)

    def patch_sum(self, values: np.ndarray) -> np.ndarray:
        """(K,): the sum of values (D,) over each patch."""
        return np.bincount(self.patch, values, PATCHES)


@dataclass(frozen=True)
class SkinView:
    """One frame's image at D samples."""

    maps: np.ndarray
    """(IMAGE_SIZE, IMAGE_SIZE, 3) float32: the logarithm of linear light, blurred, and its derivatives by x and y."""
    pixels: np.ndarray
    """(D, 2) pixels of this image."""
    normals: np.ndarray
    """(D, 3) float32 unit vectors in camera space."""
    weight: np.ndarray
    """(D,) in [0, 1]: the sample's visibility and frontality; zero where it is hidden."""

    def sample(self, shift: np.ndarray | float = 0.0) -> np.ndarray:
        """The maps at the samples, (D, 3): the logarithm of light and its derivatives by x and y. The samples are
        displaced by `shift` (D, 2) pixels of this image.
        """
        positions = (self.pixels + shift - 0.5).astype(np.float32)[:, None]
        # OpenCV takes None for the second map where the first one has both coordinates, which its stubs do not know.
        sampled = cv2.remap(  # pyright: ignore[reportCallIssue]
            self.maps,
            positions,
            None,  # pyright: ignore[reportArgumentType]
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return sampled[:, 0]


@dataclass(frozen=True)
class PosedClip:
    """Frames of one clip with their head poses."""

    capture: Capture
    state: FrameState
    frames: np.ndarray
    """(F,) indices of the frames in the capture."""
    camera: Camera
    face_found: np.ndarray
    """(F,) bool: the detector found a face."""


def make_skin(model: HeadModel, device: torch.device | str = "cpu") -> Skin:
    """Spread samples evenly over the skin of face and ears and group them in patches. Every call gives the same
    result.
    """
    chosen = np.zeros(len(model.template), bool)
    chosen[np.concatenate([model.regions[name] for name in _REGIONS if name in model.regions])] = True
    for name in _EXCLUDED:
        chosen[model.regions.get(name, [])] = False
    triangles = np.flatnonzero(chosen[model.faces].all(1))
    if len(triangles) == 0:
        raise EffigyError(
            f'The head model "{model.name}" does not say where its skin is (regions "face" and "ears" are empty), so '
            "frames cannot be aligned to it: track by landmarks only, or use the bundled open head."
        )
    ends = model.template[model.faces[triangles]].astype(np.float64)
    area = np.linalg.norm(np.cross(ends[:, 1] - ends[:, 0], ends[:, 2] - ends[:, 0]), axis=1)
    random = np.random.default_rng(0)
    count = PATCHES * SAMPLES_PER_PATCH
    # One sample for each equal share of the area, in the triangles' order: evenly spread, but not a grid.
    cumulated = np.cumsum(area) / area.sum()
    found = np.searchsorted(cumulated, (np.arange(count) + random.uniform(size=count)) / count).clip(0, len(area) - 1)
    first, second = np.sqrt(random.uniform(size=count)), random.uniform(size=count)
    barycentric = np.stack((1 - first, first * (1 - second), first * second), 1)
    points = np.einsum("dk,dkc->dc", barycentric, ends[found])

    # Patch centres by farthest-point sampling.
    centres = [int(np.abs(points - points.mean(0)).sum(1).argmin())]
    distance = np.full(count, np.inf)
    for _ in range(PATCHES - 1):
        distance = np.minimum(distance, np.linalg.norm(points - points[centres[-1]], axis=1))
        centres.append(int(distance.argmax()))
    patch = np.linalg.norm(points[:, None] - points[centres], axis=2).argmin(1)
    faces = triangles[found]
    order = np.argsort(patch, kind="stable")
    normals = vertex_normals(torch.as_tensor(model.template)[None], torch.as_tensor(model.faces.astype(np.int64)))[0]
    across = np.einsum("kd,kdc->kc", barycentric[centres], normals.numpy()[model.faces[faces[centres]]])
    bases = np.linalg.svd(across[:, None])[2].transpose(0, 2, 1)[:, :, ::-1].astype(np.float32)
    return Skin(
        Head(model, device),
        surface_at(model, faces[centres], barycentric[centres], device),
        model.faces[faces[order]],
        barycentric[order].astype(np.float32),
        patch[order],
        torch.as_tensor(bases.copy(), device=device),
    )


def sample_frames(
    skin: Skin, identity: Tensor, clip: PosedClip, blur: float, use: Callable[[int, SkinView], _Result]
) -> Iterator[_Result]:
    """Sample the images of a posed clip, blurred by `blur` pixels at 512.

    Calls `use(row, view)` for every frame, in worker threads, and yields its results in the frames' order. `row` counts
    the frames of the clip from 0.
    """
    shaped = skin.head.shaped(identity[None])
    intrinsics = clip.camera.intrinsics()
    image_blur = blur * IMAGE_SIZE / 512
    depth_scale = _DEPTH_SIZE / clip.capture.size
    small = torch.as_tensor(intrinsics * np.array([[depth_scale], [depth_scale], [1.0]]))
    with ThreadPoolExecutor(min(4, core_count())) as pool:
        for start in range(0, len(clip.state), _CHUNK):
            meshes = _posed(skin, shaped, clip.state[start : start + _CHUNK], clip.camera.pivot, small)

            def sample(row: int, start: int = start, meshes: _PosedMeshes = meshes) -> _Result:
                index = int(clip.frames[start + row])
                view = _view(skin, meshes, row, intrinsics, clip.capture, index, image_blur)
                return use(start + row, view)

            yield from pool.map(sample, range(len(meshes.vertices)))


@dataclass(frozen=True)
class _PosedMeshes:
    """The meshes of F frames in camera space."""

    vertices: np.ndarray
    """(F, V, 3) metres."""
    normals: np.ndarray
    """(F, V, 3)"""
    depth: np.ndarray
    """(F, _DEPTH_SIZE, _DEPTH_SIZE) metres: the z-buffer of each frame's mesh."""


def _posed(skin: Skin, shaped: Shaped, state: FrameState, pivot: Tensor, intrinsics: Tensor) -> _PosedMeshes:
    """The meshes of some frames, computed and rasterised on the device of `state`.

    `intrinsics` (3, 3) are those of the z-buffer.
    """
    faces = cast("Tensor", skin.head.faces)
    root_and_neck = torch.zeros(len(state), 2, 3, device=state.face.device)
    with torch.no_grad():
        rotations = torch.cat((root_and_neck, joint_rotation_vectors(state.face)), 1)
        posed = skin.head(shaped, state.expression, rotations).vertices
        in_camera = (posed - pivot) @ state.rotation.transpose(1, 2) + state.translation[:, None]
        depth = rasterize_meshes(in_camera, faces, intrinsics, _DEPTH_SIZE, _DEPTH_SIZE).depth
        return _PosedMeshes(*(part.cpu().numpy() for part in (in_camera, vertex_normals(in_camera, faces), depth)))


def _view(
    skin: Skin,
    meshes: _PosedMeshes,
    row: int,
    intrinsics: np.ndarray,
    capture: Capture,
    index: int,
    blur: float,
) -> SkinView:
    """Project the samples on the mesh number `row`, of the frame `index`, and test which of them are visible. `blur` is
    in pixels of the sampled image.
    """
    depth_scale = _DEPTH_SIZE / capture.size
    points, directions = (
        np.einsum("dk,dkc->dc", skin.barycentric, values[row][skin.corners])
        for values in (meshes.vertices, meshes.normals)
    )
    directions /= np.linalg.norm(directions, axis=1, keepdims=True).clip(1e-6)
    cosine = -(directions * points).sum(1) / np.linalg.norm(points, axis=1)
    pixels = points @ intrinsics.T
    pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 0.05)
    cell = (pixels * depth_scale).astype(int).clip(0, _DEPTH_SIZE - 1)
    in_image = ((pixels > 0) & (pixels < capture.size)).all(1)
    visible = (points[:, 2] < meshes.depth[row][cell[:, 1], cell[:, 0]] + _OCCLUSION_TOLERANCE) & in_image
    matte = read_matte(capture, index, _DEPTH_SIZE)
    facing = ((cosine - _FACING[0]) / (_FACING[1] - _FACING[0])).clip(0, 1)
    weight = facing * visible * (matte[cell[:, 1], cell[:, 0]] > 200)
    light = cv2.GaussianBlur(_log_light(read_frame(capture, index, IMAGE_SIZE)), (0, 0), blur)
    slopes = (cv2.Sobel(light, cv2.CV_32F, 1 - axis, axis, scale=0.125) for axis in range(2))
    maps = cv2.merge((light, *slopes))
    return SkinView(maps, pixels * (IMAGE_SIZE / capture.size), directions.astype(np.float32), weight)


_LINEAR = (np.arange(256, dtype=np.float32) / 255) ** 2.2


def _log_light(image: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 sRGB -> (S, S) float32: the logarithm of its luminance in linear light."""
    linear = cv2.transform(cv2.LUT(image, _LINEAR), np.array(((0.2126, 0.7152, 0.0722),), np.float32))
    return np.log(linear.reshape(image.shape[:2]) + _MIN_LIGHT)
