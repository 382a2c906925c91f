"""The landmark error of a track: how far landmarks lie beside the posed mesh, and which frames are flagged for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ...correspondence.landmark_sets import reported_points
from ...formats.capture import Capture, FrameFlag
from ...formats.track import Track
from ...head.forward import Head
from ...head.model import NECK, HeadModel
from ..detector.pose_bias import unbiased_landmarks
from ..detector.shape_response import shape_response
from ..model.landmark_surface import MOVING_JOINTS

UNSURE_PIXELS = 6.0
"""Median landmark error, pixels at 512, above which a frame is flagged."""


def project_landmarks(track: Track, model: HeadModel, *, detected: bool = False) -> np.ndarray:
    """(F, 478, 2) pixels: the landmarks on the posed mesh; NaN where the head model has no position for one.

    With `detected` they are where the detector is expected to report them for this person (`detector.shape_response`),
    without its pose-dependent bias. The corners of the landmarks' triangles are posed by `backend.head.forward` and not
    by the tracker's reduced surface, so that a defect of the latter shows in the error.
    """
    valid = model.landmark_faces >= 0
    corners = model.faces[model.landmark_faces[valid]]
    used, index = np.unique(corners, return_inverse=True)
    head = Head(_only_vertices(model, used))
    shaped = head.shaped(torch.as_tensor(track.identity)[None])
    # Joints come from the whole mesh, which the reduced model does not have.
    joints = model.joint_regressor.astype(np.float64) @ (model.template + model.shape_basis @ track.identity)
    shaped = shaped._replace(joints=torch.as_tensor(joints, dtype=torch.float32)[None])
    response = shape_response(model) if detected else None
    result = np.full((track.frame_count, len(valid), 2), np.nan, np.float32)
    weights = torch.as_tensor(model.landmark_barycentric[valid], dtype=torch.float32)
    for start in range(0, track.frame_count, 128):
        part = slice(start, start + 128)
        posed = head(shaped, torch.as_tensor(track.expression[part]), torch.as_tensor(track.rotations[part])).vertices
        points = (posed[:, index.reshape(corners.shape)] * weights[..., None]).sum(2).numpy()
        if response is not None:
            turns = Rotation.from_rotvec(track.rotations[part].reshape(-1, 3)).as_matrix().reshape(-1, 5, 3, 3)
            beside = response.displacement(track.identity, track.expression[part], turns[:, list(MOVING_JOINTS)])
            points = points + beside[:, valid] @ turns[:, NECK].transpose(0, 2, 1)
        matrix = track.head_to_camera[part]
        inside = points @ matrix[:, :3, :3].transpose(0, 2, 1) + matrix[:, None, :3, 3]
        pixels = inside @ track.intrinsics.T
        result[part, valid] = pixels[..., :2] / pixels[..., 2:]
    return result


def _only_vertices(model: HeadModel, used: np.ndarray) -> HeadModel:
    return replace(
        model,
        template=model.template[used],
        shape_basis=model.shape_basis[used],
        expression_basis=model.expression_basis[used],
        pose_basis=model.pose_basis[used],
        joint_regressor=model.joint_regressor[:, used],
        skinning=model.skinning[used],
        faces=np.zeros((0, 3), np.int32),
    )


def landmark_error(track: Track, capture: Capture, model: HeadModel) -> np.ndarray:
    """(F,) pixels at the capture's size: the median distance between landmarks and mesh, NaN without a face.

    The detector's known bias and response (`tracking.detector`) are corrected for. The face contour is left out.
    """
    detected = unbiased_landmarks(track, capture.landmarks)[..., :2]
    distance = np.linalg.norm(project_landmarks(track, model, detected=True) - detected, axis=-1)[:, reported_points()]
    known = np.isfinite(distance).any(1)
    result = np.full(len(distance), np.nan, np.float32)
    result[known] = np.nanmedian(distance[known], axis=1)
    return result


def flag_frames(flags: np.ndarray, residual: np.ndarray, size: int) -> np.ndarray:
    """The capture's flags, with TRACK_UNSURE added where the head does not match the landmarks or there are none."""
    unsure = ~(residual <= UNSURE_PIXELS * size / 512)
    return (flags | np.where(unsure, int(FrameFlag.TRACK_UNSURE), 0)).astype(np.int32)
