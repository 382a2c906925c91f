"""Places on the skin, in patches, and where a frame's picture shows them: the mesh rasterised, place by place.

A place is a fixed point of a fixed triangle, so its colour is the person's and the same in all frames. It is seen where it
falls in the picture, if the z-buffer of the posed mesh has nothing in front of it. Places lie evenly on face and ears;
those near each other make a patch, which moves in the picture as one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from ...errors import EffigyError
from ...formats.capture import Capture, read_frame, read_matte
from ...head.forward import Head, Shaped, vertex_normals
from ...head.model import HeadModel
from ...splatting.mesh import rasterize_mesh
from ..model.frame_state import FrameState, joint_vectors
from ..model.landmark_surface import LandmarkSurface, surface_at
from ..terms.landmarks import Evidence

PATCHES = 220
SAMPLES = 28
"""Places of a patch, on average."""
PICTURE = 256
"""Pixels of the pictures that are looked at."""
_REGIONS = ("face", "ears")
_NEVER = ("eyes", "mouth_inside")
"""What moves in its own way: gaze has a term of its own, teeth and tongue come and go."""
_FACING = 0.25, 0.8
"""Cosine to the viewer below which a place is seen too obliquely, and from which on it is seen plainly."""
_BEHIND = 0.006
"""Metres that a place may lie behind what is seen there before it is hidden."""
_DEPTH_PICTURE = 128
_DARK = 0.01
"""Linear light that counts as none: logarithms of noise are noise."""
_CHUNK = 32
_Taken = TypeVar("_Taken")


@dataclass(frozen=True)
class Skin:
    """D places in K patches on the mesh."""

    head: Head
    middles: LandmarkSurface
    """The patches' middles, K points."""
    corners: np.ndarray
    """(D, 3) vertices of the triangle that a place lies on."""
    weights: np.ndarray
    """(D, 3) float32 barycentric."""
    patch: np.ndarray
    """(D,) int64, ascending."""
    bases: Tensor
    """(K, 3, 3): of each patch's middle two directions along the skin at rest and, last, its normal, as columns."""

    def mean_over(self, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Values (D,) averaged over each patch (K,)."""
        return self.sum_over(weight * values) / np.maximum(self.sum_over(weight), 1e-6)

    def sum_over(self, values: np.ndarray) -> np.ndarray:
        """Values (D,) summed over each patch (K,)."""
        return np.bincount(self.patch, values, PATCHES)


@dataclass(frozen=True)
class View:
    """One frame's picture under D places."""

    maps: np.ndarray
    """(PICTURE, PICTURE, 3) float32: the logarithm of linear light, blurred, and its slopes per pixel of this picture."""
    pixels: np.ndarray
    """(D, 2) pixels of this picture."""
    normals: np.ndarray
    """(D, 3) float32 unit vectors in the camera's space."""
    weight: np.ndarray
    """(D,) in [0, 1]: how plainly the place is seen; zero where it is hidden."""

    def look(self, shift: np.ndarray | float = 0.0) -> np.ndarray:
        """(D, 3) of the maps under the places, moved by `shift` (D, 2) pixels of this picture."""
        places = (self.pixels + shift - 0.5).astype(np.float32)[:, None]
        return cv2.remap(self.maps, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]


def make_skin(model: HeadModel, device: torch.device | str = "cpu") -> Skin:
    """Places spread evenly over the skin of face and ears, and which patch each belongs to; the same every time."""
    chosen = np.zeros(len(model.template), bool)
    chosen[np.concatenate([model.regions[name] for name in _REGIONS if name in model.regions])] = True
    for name in _NEVER:
        chosen[model.regions.get(name, [])] = False
    triangles = np.flatnonzero(chosen[model.faces].all(1))
    if len(triangles) == 0:
        raise EffigyError(
            f'The head model "{model.name}" does not say where its skin is (regions "face" and "ears" are empty), so pictures '
            "cannot be aligned to it: track without the photometric stage, or use the bundled open head."
        )
    ends = model.template[model.faces[triangles]].astype(np.float64)
    area = np.linalg.norm(np.cross(ends[:, 1] - ends[:, 0], ends[:, 2] - ends[:, 0]), axis=1)
    random = np.random.default_rng(0)
    count = PATCHES * SAMPLES
    # One place for each equal share of the area, in the triangles' order: even without being a grid.
    cumulated = np.cumsum(area) / area.sum()
    found = np.searchsorted(cumulated, (np.arange(count) + random.uniform(size=count)) / count).clip(0, len(area) - 1)
    first, second = np.sqrt(random.uniform(size=count)), random.uniform(size=count)
    weights = np.stack((1 - first, first * (1 - second), first * second), 1)
    places = np.einsum("dk,dkc->dc", weights, ends[found])

    middles = [int(np.abs(places - places.mean(0)).sum(1).argmin())]
    distance = np.full(count, np.inf)
    for _ in range(PATCHES - 1):
        distance = np.minimum(distance, np.linalg.norm(places - places[middles[-1]], axis=1))
        middles.append(int(distance.argmax()))
    patch = np.linalg.norm(places[:, None] - places[middles], axis=2).argmin(1)
    faces = triangles[found]
    order = np.argsort(patch, kind="stable")
    normals = vertex_normals(torch.as_tensor(model.template)[None], torch.as_tensor(model.faces.astype(np.int64)))[
        0
    ].numpy()
    across = np.einsum("kd,kdc->kc", weights[middles], normals[model.faces[faces[middles]]])
    bases = np.linalg.svd(across[:, None])[2].transpose(0, 2, 1)[:, :, ::-1].astype(np.float32)
    return Skin(
        Head(model, device),
        surface_at(model, faces[middles], weights[middles], device),
        model.faces[faces[order]],
        weights[order].astype(np.float32),
        patch[order],
        torch.as_tensor(bases.copy(), device=device),
    )


def look_at(
    skin: Skin,
    capture: Capture,
    identity: Tensor,
    state: FrameState,
    which: np.ndarray,
    evidence: Evidence,
    blur: float,
    take: Callable[[int, View], _Taken],
) -> Iterator[_Taken]:
    """What `take` makes of each of the capture's frames `which`, in order; `state` is theirs. Pictures, blurred by `blur`
    pixels at 512, are read one at a time."""
    shaped = skin.head.shaped(identity[None])
    intrinsics = np.eye(3)
    intrinsics[0, 0] = intrinsics[1, 1] = float(evidence.focal)
    intrinsics[:2, 2] = evidence.centre.cpu().numpy()
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        for start in range(0, len(state), _CHUNK):
            points, normals = _posed(skin, shaped, state[start : start + _CHUNK], evidence.pivot)

            def view(
                row: int, start: int = start, points: np.ndarray = points, normals: np.ndarray = normals
            ) -> _Taken:
                index = int(which[start + row])
                return take(
                    start + row,
                    _view(skin, points[row], normals[row], intrinsics, capture, index, blur * PICTURE / 512),
                )

            yield from pool.map(view, range(len(points)))


def _posed(skin: Skin, shaped: Shaped, state: FrameState, pivot: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and their normals in the camera (F, V, 3)."""
    still = torch.zeros(len(state), 2, 3, device=state.face.device)
    with torch.no_grad():
        posed = skin.head(shaped, state.face[:, :-7], torch.cat((still, joint_vectors(state.face)), 1)).vertices
        in_camera = (posed - pivot) @ state.rotation.transpose(1, 2) + state.translation[:, None]
        return in_camera.cpu().numpy(), vertex_normals(in_camera, skin.head.faces).cpu().numpy()


def _view(
    skin: Skin,
    points: np.ndarray,
    normals: np.ndarray,
    intrinsics: np.ndarray,
    capture: Capture,
    index: int,
    blur: float,
) -> View:
    small = intrinsics * np.array([[_DEPTH_PICTURE / capture.size], [_DEPTH_PICTURE / capture.size], [1.0]])
    nearest = rasterize_mesh(points, skin.head.model.faces, small, _DEPTH_PICTURE, _DEPTH_PICTURE).depth
    places, turned = (np.einsum("dk,dkc->dc", skin.weights, values[skin.corners]) for values in (points, normals))
    turned /= np.linalg.norm(turned, axis=1, keepdims=True).clip(1e-6)
    cosine = -(turned * places).sum(1) / np.linalg.norm(places, axis=1)
    pixels = places @ intrinsics.T
    pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 0.05)
    cell = (pixels * (_DEPTH_PICTURE / capture.size)).astype(int).clip(0, _DEPTH_PICTURE - 1)
    shown = (places[:, 2] < nearest[cell[:, 1], cell[:, 0]] + _BEHIND) & ((pixels > 0) & (pixels < capture.size)).all(1)
    matte = read_matte(capture, index, _DEPTH_PICTURE)
    weight = (
        ((cosine - _FACING[0]) / (_FACING[1] - _FACING[0])).clip(0, 1) * shown * (matte[cell[:, 1], cell[:, 0]] > 200)
    )
    light = _logarithm(read_frame(capture, index, PICTURE))
    light = cv2.GaussianBlur(light, (0, 0), blur)
    maps = cv2.merge(
        (light, cv2.Sobel(light, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(light, cv2.CV_32F, 0, 1, scale=0.125))
    )
    return View(maps, pixels * (PICTURE / capture.size), turned.astype(np.float32), weight)


_LINEAR = (np.arange(256, dtype=np.float32) / 255) ** 2.2


def _logarithm(picture: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 sRGB -> (S, S) float32: the logarithm of how bright it is in linear light."""
    linear = cv2.transform(cv2.LUT(picture, _LINEAR), np.array(((0.2126, 0.7152, 0.0722),), np.float32))
    return np.log(linear.reshape(picture.shape[:2]) + _DARK)
