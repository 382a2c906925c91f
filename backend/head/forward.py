"""Posing a head model: identity, expression, pose correctives and linear blend skinning, batched and differentiable.

FLAME (Li et al. 2017, eq. 1-3): M(b, t, e) = W(T + S b + P(t) + E e, J(b), t, w), with S, E and P the identity,
expression and corrective bases, J the joints regressed from the identity, t the joint rotations and w the skinning
weights. As in the paper, the joints depend on identity alone. In the program published with FLAME, expression
coefficients move them as well (by under a millimetre), which would make a neck rotation depend on the smile.

Everything above the neck can be posed in two steps, as avatars are: `canonical` (expression, jaw and eyes, no neck, no
root), then `neck_transforms`, which takes any point bound to a vertex to the posed head.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .model import JAW, LANDMARK_COUNT, NECK, PARENTS, ROOT, HeadModel
from .rotations import axis_angle_to_matrix, axis_angle_to_quaternion, quaternion_multiply


class Shaped(NamedTuple):
    """A head of one identity without expression and pose; computed once for a clip and used for all of its frames."""

    vertices: Tensor
    """(B, N, 3) metres; B may be 1 and broadcasts over frames."""
    joints: Tensor
    """(B, 5, 3) metres, at rest."""


class PosedHead(NamedTuple):
    vertices: Tensor
    """(B, N, 3) metres, head space."""
    joints: Tensor
    """(B, 5, 3) positions of the joints after posing."""
    joint_transforms: Tensor
    """(B, 5, 4, 4): from the rest pose to the posed joint (joint-to-world times inverse rest)."""


class NeckTransforms(NamedTuple):
    """Per vertex, the motion that root and neck add to the canonical head: x -> linear @ x + translation."""

    linear: Tensor
    """(B, N, 3, 3): blended like skinning, so it shrinks slightly where root and neck share a vertex."""
    translation: Tensor
    """(B, N, 3) metres."""
    quaternion: Tensor
    """(B, N, 4) w, x, y, z: the rotation nearest to `linear`, for the orientation of splats."""


class Head(nn.Module):
    """A `HeadModel` as tensors. Nothing here is trained and nothing enters a state dict: buffers are not persistent."""

    def __init__(
        self, model: HeadModel, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.model = model
        vertex_count = len(model.template)

        def constant(name: str, array: np.ndarray) -> None:
            self.register_buffer(name, torch.as_tensor(np.ascontiguousarray(array)).to(device, dtype), persistent=False)

        def rows(basis: np.ndarray) -> np.ndarray:
            # (N, 3, K) -> (K, 3N): a batch of coefficients becomes vertices by one matrix product.
            return basis.reshape(3 * vertex_count, -1).T

        self._template: Tensor
        self._shape_rows: Tensor
        self._expression_rows: Tensor
        self._corrective_rows: Tensor
        self._joints_at_rest: Tensor
        self._joint_rows: Tensor
        self.skinning: Tensor
        self._shared: Tensor
        self.faces: Tensor
        constant("_template", model.template.reshape(-1))
        constant("_shape_rows", rows(model.shape_basis))
        constant("_expression_rows", rows(model.expression_basis))
        constant("_corrective_rows", rows(model.pose_basis))
        regressor = model.joint_regressor.astype(np.float64)
        constant("_joints_at_rest", (regressor @ model.template).reshape(-1))
        constant("_joint_rows", np.einsum("jn,nck->kjc", regressor, model.shape_basis).reshape(-1, 15))
        constant("skinning", model.skinning)
        shared = (model.skinning[:, ROOT] > 0) & (model.skinning[:, JAW:] > 0).any(1)
        self.register_buffer("_shared", torch.as_tensor(np.flatnonzero(shared), device=device), persistent=False)
        self._neck_has_correctives = bool(model.pose_basis[..., :9].any())
        self.register_buffer("faces", torch.as_tensor(model.faces.astype(np.int64), device=device), persistent=False)

    @property
    def vertex_count(self) -> int:
        return len(self.model.template)

    @property
    def identity_size(self) -> int:
        return self.model.shape_basis.shape[2]

    @property
    def expression_size(self) -> int:
        return self.model.expression_basis.shape[2]

    def shaped(self, identity: Tensor) -> Shaped:
        """(B, S) identity coefficients -> vertices and joints at rest."""
        vertices = torch.addmm(self._template, identity, self._shape_rows)
        joints = torch.addmm(self._joints_at_rest, identity, self._joint_rows)
        return Shaped(vertices.unflatten(1, (-1, 3)), joints.unflatten(1, (5, 3)))

    def forward(self, identity: Tensor | Shaped, expression: Tensor, rotations: Tensor) -> PosedHead:
        """The posed head. `identity` (B or 1, S) or `Shaped`, `expression` (B, E), `rotations` (B, 5, 3) axis-angle."""
        shaped = self._shape_of(identity)
        return self._pose(shaped, expression, axis_angle_to_matrix(rotations))

    def canonical(self, identity: Tensor | Shaped, expression: Tensor, rotations: Tensor) -> Tensor:
        """(B, N, 3): the mesh with expression, jaw and eyes, without root and neck. It is the input of an avatar's
        networks, so that a rotated neck changes only positions and orientations.
        """
        still = torch.cat((torch.zeros_like(rotations[:, :2]), rotations[:, 2:]), 1)
        return self(identity, expression, still).vertices

    def neck_transforms(self, identity: Tensor | Shaped, rotations: Tensor) -> NeckTransforms:
        """The per-vertex motion from `canonical` to the posed head.

        The neck is the parent of jaw and eyes, so everything not bound to the root moves with the neck, whatever the
        jaw does: w_root I + (1 - w_root) Neck, then the root. The neck's own pose correctives are part of the
        translation. Where a vertex is shared by root and jaw (under the chin), the root's part must not move with the
        jaw, which a correction of the translation ensures. The correction uses the jaw's motion of the identity alone,
        without expression and correctives. At these vertices only, the result deviates from skinning by at most w_root
        |I - R_neck| |sum_j w_j (I - R_j) (expression + correctives)|: hundredths of a millimetre.
        """
        shaped = self._shape_of(identity)
        matrices = axis_angle_to_matrix(rotations)
        root, neck = matrices[:, ROOT], matrices[:, NECK]
        root_joint, neck_joint = shaped.joints[:, ROOT], shaped.joints[:, NECK]
        bound = 1 - self.skinning[:, ROOT]
        identity_matrix = torch.eye(3, dtype=neck.dtype, device=neck.device)
        blended_rotation = identity_matrix + bound[:, None, None] * (neck - identity_matrix)[:, None]
        shift = bound[:, None] * (neck_joint - _rotate(neck, neck_joint))[:, None]
        if len(self._shared):
            correction = self._root_share_correction(shaped, rotations, neck - identity_matrix)
            shift = shift.index_add(1, self._shared, correction)
        if self._neck_has_correctives:
            shift = shift + self._neck_correctives(shaped, rotations, neck - identity_matrix)
        linear = root[:, None] @ blended_rotation
        translation = _rotate(root[:, None], shift - root_joint[:, None]) + root_joint[:, None]
        return NeckTransforms(linear, translation, self._neck_quaternions(rotations, bound))

    def _root_share_correction(self, shaped: Shaped, rotations: Tensor, rotation_change: Tensor) -> Tensor:
        """w_root (R_neck - I)(jaw(v) - v) of the vertices shared by root and jaw or eyes.

        `rotation_change` is R_neck - I.
        """
        above = torch.cat((torch.zeros_like(rotations[:, :JAW]), rotations[:, JAW:]), 1)
        transforms = _skinning_transforms(shaped.joints, axis_angle_to_matrix(above))[0]
        skinning = self.skinning[self._shared]
        blended = (skinning @ transforms.flatten(2)).unflatten(2, (3, 4))
        points = shaped.vertices[:, self._shared]
        moved = _rotate(blended[..., :3], points) + blended[..., 3] - points
        return skinning[:, :1] * _rotate(rotation_change[:, None], moved)

    def _neck_correctives(self, shaped: Shaped, rotations: Tensor, rotation_change: Tensor) -> Tensor:
        """The pose correctives caused by the neck alone, skinned like the vertices."""
        offsets = (rotation_change.flatten(1) @ self._corrective_rows[:9]).unflatten(1, (-1, 3))
        still = torch.cat((torch.zeros_like(rotations[:, :1]), rotations[:, 1:]), 1)
        joint_rotations = _skinning_transforms(shaped.joints, axis_angle_to_matrix(still))[0][..., :3]
        return _rotate((self.skinning @ joint_rotations.flatten(2)).unflatten(2, (3, 3)), offsets)

    def _neck_quaternions(self, rotations: Tensor, bound: Tensor) -> Tensor:
        """(B, N, 4). For the blend of I and a rotation by t about an axis, the nearest rotation has the same axis and
        the angle atan2(b sin t, 1 - b + b cos t), with b the neck's skinning weight, so no decomposition is needed.
        """
        neck = axis_angle_to_quaternion(rotations[:, NECK])
        cosine_half, sine_axis = neck[:, None, :1], neck[:, None, 1:]
        # With (x, y) = (1 - b + b cos t, b sin t) as a plane vector, the half angle's cosine and sine are proportional
        # to (|(x, y)| + x, y). This is undefined only for a neck rotated by 180 degrees.
        share = bound[None, :, None]
        squared = (sine_axis * sine_axis).sum(-1, keepdim=True)
        x = 1 - 2 * share * squared
        y_axis = 2 * share * cosine_half * sine_axis
        length = torch.sqrt((x * x + (y_axis * y_axis).sum(-1, keepdim=True)).clamp_min(1e-12))
        blended = torch.nn.functional.normalize(torch.cat((length + x, y_axis), -1), dim=-1)
        return quaternion_multiply(axis_angle_to_quaternion(rotations[:, ROOT])[:, None], blended)

    def _shape_of(self, identity: Tensor | Shaped) -> Shaped:
        return identity if isinstance(identity, Shaped) else self.shaped(identity)

    def _pose(self, shaped: Shaped, expression: Tensor, matrices: Tensor) -> PosedHead:
        rotation_changes = (matrices[:, NECK:] - torch.eye(3, dtype=matrices.dtype, device=matrices.device)).flatten(1)
        offsets = torch.addmm(rotation_changes @ self._corrective_rows, expression, self._expression_rows)
        vertices = shaped.vertices + offsets.unflatten(1, (-1, 3))
        transforms, joints = _skinning_transforms(shaped.joints, matrices)
        blended = (self.skinning @ transforms.flatten(2)).unflatten(2, (3, 4))
        posed = _rotate(blended[..., :3], vertices) + blended[..., 3]
        # Made on the device: a copy of Python's numbers to a GPU would wait for all of its queued work.
        last_row = torch.eye(4, dtype=transforms.dtype, device=transforms.device)[3]
        square = torch.cat((transforms, last_row.expand(*transforms.shape[:2], 1, 4)), 2)
        return PosedHead(posed, joints, square)


def _rotate(matrices: Tensor, points: Tensor) -> Tensor:
    """(..., 3, 3) times (..., 3); written as a sum because a batched product of 3 x 3 matrices is slower on the CPU."""
    return (matrices * points.unsqueeze(-2)).sum(-1)


def _skinning_transforms(joints: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Joints at rest (B or 1, 5, 3) and rotations (B, 5, 3, 3) -> transforms (B, 5, 3, 4) and posed joints (B, 5, 3).

    Each joint rotates about its own position and then moves with its parent; the transforms act on points at rest.
    """
    joints = joints.expand(len(matrices), -1, -1)
    linear: list[Tensor] = []
    translation: list[Tensor] = []
    for joint, parent in enumerate(PARENTS):
        position, rotation = joints[:, joint], matrices[:, joint]
        shift = position - _rotate(rotation, position)
        if parent >= 0:
            shift = _rotate(linear[parent], shift) + translation[parent]
            rotation = linear[parent] @ rotation
        linear.append(rotation)
        translation.append(shift)
    joint_rotations, shifts = torch.stack(linear, 1), torch.stack(translation, 1)
    return torch.cat((joint_rotations, shifts.unsqueeze(-1)), -1), _rotate(joint_rotations, joints) + shifts


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (B, N, 3) of vertices (B, N, 3): the mean of the adjoining triangles' normals, weighted by area.

    The cross product of two edges is the normal times twice the area, so the weighted mean is a plain sum.
    """
    corners = [vertices.index_select(1, faces[:, corner].long()) for corner in range(3)]
    normals = torch.linalg.cross(corners[1] - corners[0], corners[2] - corners[0])
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(1, faces[:, corner].long(), normals)
    # Areas are around 1e-6 m^2, so the default epsilon of 1e-12 would be too large.
    return nn.functional.normalize(total, dim=-1, eps=1e-20)


def landmark_valid(model: HeadModel) -> np.ndarray:
    """(478,) bool: which of the detector's landmarks exist on this head."""
    return model.landmark_faces >= 0


def landmarks(vertices: Tensor, model: HeadModel) -> Tensor:
    """The positions (B, 478, 3) of the detector's landmarks on posed vertices (B, N, 3), differentiable.

    Landmarks that do not exist on this head (see `landmark_valid`) are zero without gradient; callers must mask them.
    """
    valid = landmark_valid(model)
    corners = model.faces[np.where(valid, model.landmark_faces, 0)]
    weights = np.where(valid[:, None], model.landmark_barycentric, 0.0)
    index = torch.as_tensor(corners.reshape(-1).astype(np.int64), device=vertices.device)
    points = vertices.index_select(1, index).unflatten(1, (LANDMARK_COUNT, 3))
    return (points * torch.as_tensor(weights[..., None]).to(vertices)).sum(2)
