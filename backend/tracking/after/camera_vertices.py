"""The vertices of the tracked head as the camera sees them."""

from __future__ import annotations

import numpy as np
import torch

from ...formats.track import Track
from ...head.forward import Head


def camera_vertices(head: Head, track: Track, frames: range) -> np.ndarray:
    """(len(frames), N, 3) metres: the vertices of the tracked head in camera space."""
    chosen = slice(frames.start, frames.stop)
    with torch.no_grad():
        shaped = head.shaped(torch.as_tensor(track.identity, dtype=torch.float32)[None])
        expression = torch.as_tensor(track.expression[chosen], dtype=torch.float32)
        rotations = torch.as_tensor(track.rotations[chosen], dtype=torch.float32)
        posed = head(shaped, expression, rotations).vertices.numpy()
    pose = track.head_to_camera[chosen]
    return posed @ pose[:, :3, :3].swapaxes(1, 2) + pose[:, None, :3, 3]
