"""The resting head in front of a camera, and Gaussians on a part of it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional

from backend.head.forward import vertex_normals
from backend.head.model import HeadModel
from backend.splatting.types import Cameras, Splats

SIZE = 96
LIDS, EYES = 0, 1


def camera_before(model: HeadModel) -> Cameras:
    """Half a metre before the eyes."""
    eyes = torch.as_tensor(model.template[model.regions["eyes"]]).float()
    to_camera = torch.diag(torch.tensor([1.0, -1, -1, 1]))
    to_camera[:3, 3] = torch.tensor([0, 0, 0.5]) - to_camera[:3, :3] @ ((eyes.amin(0) + eyes.amax(0)) / 2)
    intrinsics = torch.tensor([[4.0 * SIZE, 0, SIZE / 2], [0, 4.0 * SIZE, SIZE / 2], [0, 0, 1]])
    return Cameras(intrinsics[None], to_camera[None], SIZE, SIZE)


class Frames:
    """Training frames, all of which show the resting head in the images (1, SIZE, SIZE, 3)."""

    device, size, indices = torch.device("cpu"), SIZE, np.arange(3)
    counts = (3,)
    jaw = torch.zeros(1, 3)

    def __init__(
        self, model: HeadModel, camera: Cameras, color: torch.Tensor | None = None, matte: float = 1.0
    ) -> None:
        self.camera, self.color, self.matte, self.poses = camera, color, torch.full((1, SIZE, SIZE), matte), self
        self.vertices = torch.as_tensor(model.template).float()[None]
        self.normals = vertex_normals(self.vertices, torch.as_tensor(model.faces.astype(np.int64)))
        towards = self.vertices - torch.inverse(camera.world_to_camera)[:, None, :3, 3]
        self.directions = functional.normalize(towards, dim=-1)

    def __len__(self) -> int:
        return 3

    def cameras(self, indices: np.ndarray, size: int) -> Cameras:
        intrinsics = self.camera.intrinsics.clone()
        intrinsics[:, :2] *= size / SIZE
        count = len(indices)
        return Cameras(intrinsics.expand(count, 3, 3), self.camera.world_to_camera.expand(count, 4, 4), size, size)

    def pose(self, indices: np.ndarray | torch.Tensor) -> SimpleNamespace:
        parts = {"posed": self.vertices, "normals": self.normals, "directions": self.directions}
        posed = {name: part.expand(len(indices), -1, -1) for name, part in parts.items()}
        return SimpleNamespace(**posed, jaw=self.jaw.expand(len(indices), 3))

    batch_poses = pose

    def batch(self, rows: torch.Tensor, size: int) -> SimpleNamespace:
        return SimpleNamespace(cameras=self.camera, pose=self.pose(rows), color=self.color, matte=self.matte)


def splats_at(model: HeadModel, part: int) -> Splats:
    """Solid Gaussians at the vertices of one region, the others transparent, with one spawned for each that is too."""
    count = len(model.template)
    means = torch.as_tensor(model.template).float()
    eyes = torch.zeros(count)
    eyes[torch.as_tensor(model.regions["eyes"])] = 1
    opacities = eyes if part == EYES else 1 - eyes
    quaternions = torch.tensor([1.0, 0, 0, 0]).expand(2 * count, 4)
    return Splats(
        torch.cat((means, means))[None].requires_grad_(),
        quaternions[None],
        torch.full((1, 2 * count, 3), 0.004),
        torch.cat((0.9 * opacities, torch.zeros(count)))[None],
        torch.zeros(1, 2 * count, 3),
    )
