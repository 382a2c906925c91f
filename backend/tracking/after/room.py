"""The part of the picture that stays with the room while the tracked head moves before it.

A matting network takes a bottle or a curtain behind dark hair for hair, in some clips in every frame, so that no clean
plate shows it (`footage.plate`). Motion tells the two apart. Where the image has the gradient g, and what a pixel shows
moves with the head, whose motion in the image has the covariance C, the pixel's brightness varies by sqrt(g' C g), but
not by more than its neighbours differ from each other. Where it varies far less, it belongs to the room. Flat areas, a
still head and edges along the motion tell nothing; there the matte stays as it is. It also stays below the chin, where
hair lies on shoulders and does not follow the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ...footage.plate import SAMPLE_COUNT
from ...formats.capture import Capture, read_frame
from ...formats.track import Track
from ...head.forward import Head
from ...head.model import HeadModel
from ...splatting.mesh import nearest_faces
from .camera_vertices import camera_vertices

_SIDE = 512
"""Pixels of the side of the images in which the room is searched, at most."""
_LEAST_SAMPLES = 8
"""Sampled frames in which a pixel shows the same, outside of the tracked mesh. At least half of all have to."""
_SAME = 12
"""Difference (of 255, the largest of the three channels) up to which a pixel shows the same."""
_STEADY = 6.0
"""Standard deviation (of 255) of the brightness up to which a pixel is steady."""
_EXPECTED, _RATIO = 10.0, 3.0
"""Standard deviation (of 255) that a pixel of the room would have on the head, at least, and by how many times that
exceeds its own."""
_NEIGHBOURS = 0.02
"""Share of the image's side: the window in which neighbours are compared."""
_REACH = 0.04
"""Share of the image's side: steady pixels that are connected with the room belong to it up to this distance."""
_MARGIN = 0.02
"""Share of the image's side around the tracked mesh in which nothing is removed."""


@dataclass(frozen=True)
class Room:
    """The room of a capture, S x S pixels."""

    colors: np.ndarray
    """(S, S, 3) uint8 RGB"""
    where: np.ndarray
    """(S, S) bool: the pixels that are known to be of the room; none if the head is still or the camera moves."""
    faces: np.ndarray
    """(F, 3) int32: the triangles of the tracked mesh"""
    face: np.ndarray
    """Its vertices of the region face"""

    def remove_from(
        self, matte: np.ndarray, frame: np.ndarray, vertices: np.ndarray, intrinsics: np.ndarray
    ) -> np.ndarray:
        """(S, S) uint8: `matte` (S, S) uint8 without the room, where `frame` (S, S, 3) uint8 RGB shows it.

        The matte stays around the tracked mesh, `vertices` (N, 3) metres in the camera with `intrinsics` (3, 3), and
        below its chin.
        """
        shown = self.where & (matte > 0) & (cv2.absdiff(frame, self.colors).max(2) <= _SAME)
        if not shown.any() or not np.isfinite(vertices).all():
            return matte
        shown &= ~_around_mesh(vertices, self.faces, intrinsics, len(matte))
        rows = vertices[self.face] @ intrinsics[1] / vertices[self.face, 2]
        shown[max(round(float(rows.max(initial=0))), 0) :] = False
        return np.where(shown, np.uint8(0), matte)


def find_room(capture: Capture, track: Track, model: HeadModel) -> Room:
    """The room, from frames of the whole clip in which the head is tracked."""
    side = min(capture.size, _SIDE)
    head, faces = Head(model), model.faces.astype(np.int32)
    intrinsics = track.intrinsics * np.array([[side / track.size], [side / track.size], [1.0]])
    good = np.flatnonzero(track.flags == 0)
    chosen = good[np.unique(np.linspace(0, len(good) - 1, min(len(good), SAMPLE_COUNT)).round().astype(int))]
    if len(chosen) < _LEAST_SAMPLES:
        return Room(
            np.zeros((capture.size, capture.size, 3), np.uint8),
            np.zeros((capture.size,) * 2, bool),
            faces,
            model.regions["face"],
        )
    vertices = [camera_vertices(head, track, range(index, index + 1))[0] for index in chosen.tolist()]
    frames = np.stack([read_frame(capture, index, side) for index in chosen.tolist()])
    median = np.partition(frames, len(frames) // 2, axis=0)[len(frames) // 2]
    sums = np.zeros((8, side, side), np.float32)
    for frame, each, (x, y) in zip(frames, vertices, _motions(vertices, model, intrinsics, side), strict=True):
        same = ~_around_mesh(each, faces, intrinsics, side)
        light = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
        for total, values in zip(sums, (1.0, light, light**2, x, y, x * x, x * y, y * y), strict=True):
            total += same * values
    count, light, squares, *motion = sums
    enough = count >= max(_LEAST_SAMPLES, len(frames) / 2)
    count = np.maximum(count, 1)
    deviation = np.sqrt(np.maximum(squares / count - (light / count) ** 2, 0))
    x, y, xx, xy, yy = (part / count for part in motion)
    steady = enough & (deviation <= _STEADY)
    gray = cv2.cvtColor(median, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = (cv2.Sobel(gray, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    moved = across**2 * (xx - x * x) + 2 * across * down * (xy - x * y) + down**2 * (yy - y * y)
    window = (2 * round(_NEIGHBOURS * side / 2) + 1,) * 2
    differing = cv2.blur(gray**2, window) - cv2.blur(gray, window) ** 2
    expected = np.sqrt(np.clip(moved, 0, np.maximum(differing, 0)))
    # The gradient is that of the neighbours, which have to be steady as well: an outline that only moves away to one
    # side is none of the room.
    around = cv2.dilate(np.where(enough, deviation, np.float32(255)), np.ones((5, 5), np.uint8))
    where = ((around <= _STEADY) & (expected >= np.maximum(_RATIO * around, _EXPECTED))).astype(np.uint8)
    for _ in range(round(_REACH * side)):
        where = cv2.bitwise_and(cv2.dilate(where, np.ones((3, 3), np.uint8)), steady.view(np.uint8))
    full = capture.size, capture.size
    return Room(
        cv2.resize(median, full, interpolation=cv2.INTER_LINEAR),
        cv2.resize(where, full, interpolation=cv2.INTER_NEAREST) > 0,
        faces,
        model.regions["face"],
    )


def _motions(
    vertices: list[np.ndarray], model: HeadModel, intrinsics: np.ndarray, side: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each frame the motion x, y (side, side), pixels, of what is on the head: affine, by the tracked vertices
    above the neck, from their mean position.
    """
    above = np.setdiff1d(np.arange(len(model.template)), np.union1d(model.regions["neck"], model.regions["boundary"]))
    points = np.stack(vertices)[:, above] @ intrinsics.T
    points = points[..., :2] / points[..., 2:]
    mean = points.mean(0)
    design = np.concatenate((mean, np.ones((len(mean), 1))), 1)
    rows, columns = np.mgrid[:side, :side] + 0.5
    motions = []
    for each in points:
        (a, b), (c, d), (e, f) = np.linalg.lstsq(design, each - mean, rcond=None)[0]
        motions.append((a * columns + c * rows + e, b * columns + d * rows + f))
    return motions


def _around_mesh(vertices: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, side: int) -> np.ndarray:
    """(side, side) bool: the pixels of the mesh and those within a margin."""
    covered = (nearest_faces(vertices, faces, intrinsics, side, side) >= 0).view(np.uint8)
    return cv2.dilate(covered, np.ones((2 * round(_MARGIN * side) + 1,) * 2, np.uint8)) > 0
