"""The tracked head drawn over its footage: the mesh's edges, and for every landmark where it was seen and where the head has it."""

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

LINE: Final = (90, 200, 255)
"""Of the mesh's edges, RGB: no skin or hair is of this blue."""
STRENGTH: Final = 0.25
"""Of the lines over the picture: lips and lids, where the mesh is dense, stay recognisable."""
SEEN, MISSED = (120, 255, 120), (255, 70, 60)
"""A landmark as it was seen, and the way from there to where the tracked head has it."""
_SHIFT = 4


class TrackedHead:
    """A track's head, posed and projected a frame at a time."""

    def __init__(self, track: Track, model: HeadModel) -> None:
        self.track, self.model = track, model
        self._head = Head(model)
        self._shaped = self._head.shaped(torch.as_tensor(track.identity)[None])
        inside = np.zeros(len(model.template), bool)
        inside[np.concatenate([model.regions["mouth_inside"], model.regions["eyes"]])] = True
        self._outside = ~inside[model.faces].any(1)

    def draw(self, picture: np.ndarray, index: int, strength: float = STRENGTH) -> np.ndarray:
        """The picture (S, S, 3) uint8 RGB of frame `index` with the edges that face the camera drawn over it."""
        track, side = self.track, len(picture)
        parts = (torch.as_tensor(part[index])[None] for part in (track.expression, track.rotations))
        with torch.no_grad():
            vertices = self._head(self._shaped, *parts).vertices[0].numpy()
        seen = vertices @ track.head_to_camera[index, :3, :3].T + track.head_to_camera[index, :3, 3]
        corners = seen[self.model.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        front = ((normals * corners[:, 0]).sum(1) < 0) & self._outside
        pixels = seen @ track.intrinsics.T
        pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6) * (side / track.size) - 0.5
        layer = picture.copy()
        # Far-off ends, of a head behind the camera, would not fit into OpenCV's integers.
        ends = (pixels.clip(-side, 2 * side) * 2**_SHIFT).round().astype(np.int32)
        edges = mesh_edges(self.model.faces[front])[0]
        cv2.polylines(layer, list(ends[edges]), False, LINE, 1, cv2.LINE_AA, _SHIFT)
        return cv2.addWeighted(layer, strength, picture, 1 - strength, 0)


def draw_landmarks(picture: np.ndarray, seen: np.ndarray, tracked: np.ndarray) -> np.ndarray:
    """Dots at what was seen (L, 2), pixels of the picture, lines from there to where the head has them (L, 2); NaN: none."""
    drawn = picture.copy()
    for start, end in zip(seen - 0.5, tracked - 0.5, strict=True):
        if np.isfinite(start).all():
            place = (start * 2**_SHIFT).round().astype(int)
            if np.isfinite(end).all():
                cv2.line(
                    drawn,
                    place.tolist(),
                    (end * 2**_SHIFT).round().astype(int).tolist(),
                    MISSED,
                    1,
                    cv2.LINE_AA,
                    _SHIFT,
                )
            cv2.circle(drawn, place.tolist(), 1 << _SHIFT, SEEN, -1, cv2.LINE_AA, _SHIFT)
    return drawn


def overlaid(capture: Capture, head: TrackedHead, tracked: np.ndarray, index: int, size: int) -> np.ndarray:
    """Frame `index` at `size` with mesh and landmarks; `tracked` (F, 478, 2) are the head's own, from `tracked_landmarks`."""
    points, scale = reported_points(), size / capture.size
    picture = head.draw(read_frame(capture, index, size), index)
    return draw_landmarks(picture, capture.landmarks[index, points, :2] * scale, tracked[index, points] * scale)


def tracked_landmarks(track: Track, model: HeadModel) -> np.ndarray:
    """(F, 478, 2) pixels; NaN where the head has no place for a point, everywhere if its file tells none."""
    if (model.landmark_faces < 0).all():
        return np.full((track.frame_count, len(model.landmark_faces), 2), np.nan, np.float32)
    return project_landmarks(track, model)


def write_overlay(capture: Capture, track: Track, model: HeadModel, out: Path, *, progress: Progress = SILENT) -> int:
    """An MP4 of the whole capture with mesh and landmarks over it and each frame's number and verdict; returns its frames."""
    if Path(out).suffix.lower() != ".mp4":
        raise EffigyError(f"An overlay is a video: give a name that ends in .mp4, not {Path(out).name}.")
    check_fits(capture, track)
    head, tracked = TrackedHead(track, model), tracked_landmarks(track, model)
    # The video format has colours of two by two pixels.
    size = max(256, capture.size - capture.size % 2)
    with write_beside(Path(out)) as temporary:
        writer = Mp4(temporary, size, track.fps)
        try:
            for index in range(track.frame_count):
                progress.raise_if_cancelled()
                picture = captioned(overlaid(capture, head, tracked, index, size), index, track)
                writer.write(picture / np.float32(255), np.ones((size, size), np.float32), np.empty(0), None)
                progress.update("overlay", index + 1, track.frame_count)
        finally:
            writer.close()
    return track.frame_count


def captioned(picture: np.ndarray, index: int, track: Track) -> np.ndarray:
    """With the frame's number, error and, where it is left out, why, in the upper left."""
    why = reasons_for(int(track.flags[index]))
    error = track.residual[index]
    text = f"{index}   {error:.2f} px" if np.isfinite(error) else str(index)
    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    draw.text((8, 5), text, (255, 255, 255), font, stroke_width=2, stroke_fill=(0, 0, 0))
    if why:
        draw.text((8, 25), f"left out: {why}", (255, 150, 130), font, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)


def check_fits(capture: Capture, track: Track) -> None:
    if track.frame_count != capture.frame_count or track.size != capture.size:
        raise EffigyError(
            f"The track has {track.frame_count} frames of {track.size} pixels, the capture {capture.folder} "
            f"{capture.frame_count} of {capture.size}: track it again."
        )
