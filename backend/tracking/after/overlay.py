"""The tracked head drawn over its footage: the mesh's edges, and each landmark as detected and as tracked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ...correspondence.landmark_sets import reported_points
from ...errors import EffigyError
from ...formats.capture import Capture, read_frame, reasons_for
from ...formats.image_files import Mp4
from ...formats.track import Track
from ...head.forward import Head
from ...head.model import HeadModel
from ...head.topology import mesh_edges
from ...progress import SILENT, Progress
from ...storage import write_beside
from .residuals import project_landmarks

EDGE_COLOUR: Final = (90, 200, 255)
"""RGB of the mesh's edges: no skin or hair has this blue."""
EDGE_OPACITY: Final = 0.25
"""Lips and eyelids, where the mesh is dense, stay recognisable under the edges."""
DETECTED_COLOUR: Final = (120, 255, 120)
"""RGB of the dot at a detected landmark."""
ERROR_COLOUR: Final = (255, 70, 60)
"""RGB of the line from a detected landmark to the tracked head's."""
_SHIFT = 4
"""OpenCV's fractional bits of drawn coordinates."""


class TrackedHead:
    """The head of a track, posed and projected one frame at a time."""

    def __init__(self, track: Track, model: HeadModel) -> None:
        self.track, self.model = track, model
        self._head = Head(model)
        self._shaped = self._head.shaped(torch.as_tensor(track.identity)[None])
        inside = np.zeros(len(model.template), bool)
        inside[np.concatenate([model.regions["mouth_inside"], model.regions["eyes"]])] = True
        self._outside = ~inside[model.faces].any(1)

    def draw(self, image: np.ndarray, index: int, opacity: float = EDGE_OPACITY) -> np.ndarray:
        """The image (S, S, 3) uint8 RGB of frame `index` with the edges that face the camera drawn over it."""
        track, side = self.track, len(image)
        parts = (torch.as_tensor(part[index])[None] for part in (track.expression, track.rotations))
        with torch.no_grad():
            vertices = self._head(self._shaped, *parts).vertices[0].numpy()
        in_camera = vertices @ track.head_to_camera[index, :3, :3].T + track.head_to_camera[index, :3, 3]
        corners = in_camera[self.model.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        front = ((normals * corners[:, 0]).sum(1) < 0) & self._outside
        pixels = in_camera @ track.intrinsics.T
        pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6) * (side / track.size) - 0.5
        layer = image.copy()
        # The far ends of a head behind the camera would overflow OpenCV's integers.
        ends = (pixels.clip(-side, 2 * side) * 2**_SHIFT).round().astype(np.int32)
        edges = mesh_edges(self.model.faces[front])[0]
        cv2.polylines(layer, list(ends[edges]), False, EDGE_COLOUR, 1, cv2.LINE_AA, _SHIFT)
        return cv2.addWeighted(layer, opacity, image, 1 - opacity, 0)


def draw_landmarks(image: np.ndarray, detected: np.ndarray, tracked: np.ndarray) -> np.ndarray:
    """Draw dots at the detected landmarks (L, 2) and lines from there to the tracked head's (L, 2).

    Both are in pixels of the image; NaN where there is none.
    """
    drawn = image.copy()
    for start, end in zip(detected - 0.5, tracked - 0.5, strict=True):
        if np.isfinite(start).all():
            position = (start * 2**_SHIFT).round().astype(int)
            if np.isfinite(end).all():
                cv2.line(
                    drawn,
                    position.tolist(),
                    (end * 2**_SHIFT).round().astype(int).tolist(),
                    ERROR_COLOUR,
                    1,
                    cv2.LINE_AA,
                    _SHIFT,
                )
            cv2.circle(drawn, position.tolist(), 1 << _SHIFT, DETECTED_COLOUR, -1, cv2.LINE_AA, _SHIFT)
    return drawn


def overlaid(capture: Capture, head: TrackedHead, tracked: np.ndarray, index: int, size: int) -> np.ndarray:
    """Frame `index` at `size` with mesh and landmarks; `tracked` (F, 478, 2) are from `tracked_landmarks`."""
    points, scale = reported_points(), size / capture.size
    image = head.draw(read_frame(capture, index, size), index)
    return draw_landmarks(image, capture.landmarks[index, points, :2] * scale, tracked[index, points] * scale)


def tracked_landmarks(track: Track, model: HeadModel) -> np.ndarray:
    """(F, 478, 2) pixels: the landmarks of the tracked head; NaN where the head model has no position for one."""
    if (model.landmark_faces < 0).all():
        return np.full((track.frame_count, len(model.landmark_faces), 2), np.nan, np.float32)
    return project_landmarks(track, model)


def write_overlay(capture: Capture, track: Track, model: HeadModel, out: Path, *, progress: Progress = SILENT) -> int:
    """Write an MP4 of the whole capture with mesh, landmarks and captions over it; returns the number of frames."""
    if Path(out).suffix.lower() != ".mp4":
        raise EffigyError(f"An overlay is a video: give a name that ends in .mp4, not {Path(out).name}.")
    check_fits(capture, track)
    head, tracked = TrackedHead(track, model), tracked_landmarks(track, model)
    # The video format stores colours for blocks of two by two pixels.
    size = max(256, capture.size - capture.size % 2)
    with write_beside(Path(out), durable=False) as temporary:
        writer = Mp4(temporary, size, track.fps, track.uneven_times)
        try:
            for index in range(track.frame_count):
                progress.raise_if_cancelled()
                image = captioned(overlaid(capture, head, tracked, index, size), index, track)
                writer.write(image / np.float32(255), np.ones((size, size), np.float32), np.empty(0), None)
                progress.update("overlay", index + 1, track.frame_count)
        finally:
            writer.close()
    return track.frame_count


def captioned(image: np.ndarray, index: int, track: Track) -> np.ndarray:
    """The image with the frame's number, its error and, if it is left out, the reason, in the upper left."""
    why = reasons_for(int(track.flags[index]))
    error = track.residual[index]
    text = f"{index}   {error:.2f} px" if np.isfinite(error) else str(index)
    canvas = Image.fromarray(image)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    draw.text((8, 5), text, (255, 255, 255), font, stroke_width=2, stroke_fill=(0, 0, 0))
    if why:
        draw.text((8, 25), f"left out: {why}", (255, 150, 130), font, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(canvas)


def check_fits(capture: Capture, track: Track) -> None:
    if track.frame_count != capture.frame_count or track.size != capture.size:
        raise EffigyError(
            f"The track has {track.frame_count} frames of {track.size} pixels, the capture {capture.folder} "
            f"{capture.frame_count} of {capture.size}: track it again."
        )
