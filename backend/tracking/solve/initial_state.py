"""The state from which the solver starts: faces as the detector's scores say, head poses by similarity alignment."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...head.rotations import axis_angle_to_matrix
from ..model.camera import Camera, estimate_head_pose
from ..model.frame_state import FrameState, joint_rotation_vectors
from ..model.landmark_surface import pose_points
from ..model.parameter_layout import ParameterLayout
from ..terms.landmarks import LandmarkTerm
from ..terms.priors import PriorTerm

_CHUNK = 512


def initial_state(
    landmarks: LandmarkTerm, prior: PriorTerm, detected: Tensor, camera: Camera, frames: Tensor, training_count: int
) -> FrameState:
    """The initial state of some `frames` (N,) of a clip.

    `detected` (F, L, 3) are the clip's landmarks with the detector's relative depth. Frames without a face get the
    state of the nearest frame with one, and smoothness does the rest; training frames never take a held-out frame's.
    """
    frames = frames.to(detected.device)
    face = prior.mean[frames].clone()
    layout = ParameterLayout.of_face(face)
    poses = []
    for part in torch.split(torch.arange(len(frames), device=detected.device), _CHUNK):
        matrices = axis_angle_to_matrix(joint_rotation_vectors(face[part]))
        points = pose_points(landmarks.surface, face[part, layout.expression], matrices)[0] - camera.pivot
        chosen = torch.nan_to_num(detected[frames[part]])
        poses.append(estimate_head_pose(points, chosen, landmarks.weights[frames[part]], camera))
    rotation, translation = (torch.cat(parts) for parts in zip(*poses, strict=True))
    missing = (~landmarks.face_found[frames]).cpu().numpy()
    if missing.any() and not missing.all():
        present, lacking = np.flatnonzero(~missing), np.flatnonzero(missing)
        training = frames.cpu().numpy() < training_count
        distance = np.abs(present[None] - lacking[:, None])
        distance = distance + len(frames) * (training[lacking][:, None] & ~training[present][None])
        target = torch.as_tensor(lacking, device=detected.device)
        source = torch.as_tensor(present[distance.argmin(1)], device=detected.device)
        face[target], rotation[target], translation[target] = face[source], rotation[source], translation[source]
    return FrameState(face, rotation, translation)
