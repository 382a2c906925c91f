"""Solved frames → Track: the solver's parameters as the rig's own, the head pose split between body and neck."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...formats.capture import Capture
from ...formats.frame_times import in_order
from ...formats.track import Track
from ...head.model import NECK, HeadModel
from ...head.rigid_alignment import nearest_rotation
from ..model.camera import Camera
from ..model.frame_state import FrameState, joint_rotation_vectors
from .neck import split_neck


def assemble_track(
    capture: Capture,
    model: HeadModel,
    identity: np.ndarray,
    camera: Camera,
    state: FrameState,
    sigma: Tensor,
    reliable: np.ndarray,
    shot_starts: np.ndarray,
) -> Track:
    """The track of a capture, whose landmark errors are not measured yet.

    `sigma` (F, P) are standard deviations, `reliable` (F,) bool says which frames the body's motion is estimated from,
    and `shot_starts` are the first frames of all shots but the first.
    """
    rotation = state.rotation.double().cpu().numpy()
    # Many small rotations were multiplied in float32: the nearest rotation matrix, before anything is inverted.
    rotation = nearest_rotation(rotation)
    pivot = camera.pivot.double().cpu().numpy()
    translation = state.translation.double().cpu().numpy() - rotation @ pivot
    shaped = model.template + model.shape_basis @ identity
    neck_joint = model.joint_regressor[NECK].astype(np.float64) @ shaped
    neck, head_to_camera = split_neck(
        rotation, translation, neck_joint, reliable, capture.training_count, float(capture.fps), shot_starts
    )

    rotations = np.zeros((len(state), 5, 3))
    rotations[:, 1] = neck
    rotations[:, 2:] = joint_rotation_vectors(state.face).cpu().numpy()
    intrinsics = capture.intrinsics.copy()
    intrinsics[0, 0] = intrinsics[1, 1] = float(camera.focal)
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=identity.astype(np.float32),
        expression=state.expression.cpu().numpy().astype(np.float32),
        rotations=rotations.astype(np.float32),
        head_to_camera=head_to_camera.astype(np.float32),
        intrinsics=intrinsics.astype(np.float32),
        size=capture.size,
        fps=capture.fps,
        residual=np.full(len(state), np.nan, np.float32),
        flags=capture.flags.astype(np.int32),
        training_count=capture.training_count,
        sigma=sigma.cpu().numpy(),
        frame_times=in_order(capture.frame_times),
    )
