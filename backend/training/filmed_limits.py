"""What a clip has filmed, stored in the networks that are trained on it: ranges of views, faces and weights of the
shapes, and what the mouth's inside looks like where the clip never shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from scipy.spatial import KDTree

from ..avatar.filmed import expression_limits, filmed_faces
from ..avatar.graph_avatar import GraphAvatar
from ..avatar.posing import Pose
from ..avatar.views import clamp_view, view_range
from ..head.model import HeadModel
from ..head.mouth import mouth_parts
from .filmed_regions import store_regions
from .frames import TrainingFrames
from .unobserved_regions import brightness_of

PARTS: Final = {"teeth": (0.64, 0.58, 0.51), "tongue": (0.95, 0.51, 0.50), "wall": (0.30, 0.10, 0.09)}
"""sRGB of the mouth's inside in the light, for a person of `unobserved_regions.SKIN_LUMINANCE`."""
SHADOW_DEPTH: Final = (0.008, 0.030)
"""Metres behind the foremost point of teeth and tongue at which the mouth's shadow begins, and is full."""
CHEEK: Final = (0.006, 0.012)
"""Metres from the skin within which the mouth's wall stays as it was trained, and from which on it is the rig's: as a
closed surface it would show through a cheek that is thinner than its Gaussians."""
RIM_RINGS: Final = 2
"""Rings of vertices from the mouth's wall outwards that belong to the rim of the lips."""
SHADOW: Final = 0.20
"""Of the light that reaches there."""
BATCH: Final = 64


@torch.no_grad()
def store_training_ranges(networks: GraphAvatar, frames: TrainingFrames) -> None:
    """Views and faces of the training frames; see `backend.avatar.views` and `filmed`."""
    conditions = torch.cat([pose.conditions for pose in _poses(frames)])
    networks.views.copy_(view_range(conditions))
    networks.performed.copy_(expression_limits(conditions[:, :-3]))
    networks.filmed.copy_(filmed_faces(conditions[:, :-3]))


@torch.no_grad()
def store_weight_limits(networks: GraphAvatar, model: HeadModel, frames: TrainingFrames) -> None:
    """The range of the blendshapes' weights in the training frames, and faces of these, after the training."""
    shapes = networks.blendshapes
    if shapes is not None:
        poses = [clamp_view(pose, networks.views) for pose in _poses(frames)]
        conditions = torch.cat([pose.conditions for pose in poses])
        shapes.limit_weights(conditions)
        store_regions(shapes.regions, model, frames.poses.head, frames.poses.shaped, conditions[:, :-3])


@torch.no_grad()
def store_materials(networks: GraphAvatar, model: HeadModel, pose: Pose) -> None:
    """Colours of the mouth's inside on the rig, as bright as the avatar's skin in some poses. They show where the jaw
    opens further than in the clip, and where the tongue comes out that was in. Only blendshapes have them.
    """
    shapes = networks.blendshapes
    if shapes is None:
        return
    others = np.concatenate([model.regions[name] for name in ("eyes", "lids", "lips", "mouth_inside")])
    skin = np.setdiff1d(model.regions["face"], others)
    splats = networks(pose)[0]
    colors = splats.colors[:, torch.as_tensor(skin, device=splats.colors.device)]
    brightness = float(brightness_of(colors)) if len(skin) else 1.0
    materials = mouth_materials(model, brightness)
    rim = lip_rim(model)
    if len(lips := np.setdiff1d(model.regions["lips"], rim)):
        # Where closed lips meet there is a dark line, which is no colour of opened ones.
        materials[rim, :3] = splats.colors[:, torch.as_tensor(lips, device=splats.colors.device)].mean((0, 1)).cpu()
        materials[rim, 3] = 1
    shapes.materials.copy_(torch.from_numpy(materials))
    shapes.reveals.zero_()
    shapes.reveals[len(model.expression_names)] = 1.0
    if "tongueOut" in model.expression_names:
        shapes.reveals[model.expression_names.index("tongueOut")] = 1.0


def lip_rim(model: HeadModel) -> np.ndarray:
    """The vertices of the lips next to the mouth's wall, where closed lips meet."""
    inside, lips = np.zeros((2, len(model.template)), bool)
    inside[mouth_parts(model)["wall"]] = True
    lips[model.regions["lips"]] = True
    for _ in range(RIM_RINGS):
        touching = model.faces[inside[model.faces].any(1)]
        inside[touching] |= lips[touching]
    return np.flatnonzero(inside & lips)


def mouth_materials(model: HeadModel, brightness: float) -> np.ndarray:
    """(N, 4) float32: `GaussianBlendshapes.materials`."""
    materials = np.zeros((len(model.template), 4), np.float32)
    parts = mouth_parts(model)
    if not len(model.regions["mouth_inside"]):
        return materials
    depth = model.template[:, 2]
    front = max(
        (depth[parts[name]].max() for name in ("teeth", "tongue") if len(parts[name])),
        default=depth[model.regions["mouth_inside"]].max(),
    )
    shade = np.clip((front - depth - SHADOW_DEPTH[0]) / (SHADOW_DEPTH[1] - SHADOW_DEPTH[0]), 0, 1)
    light = 1 + (SHADOW - 1) * shade**2 * (3 - 2 * shade)
    for name, vertices in parts.items():
        materials[vertices, :3] = np.clip(brightness * light[vertices, None] * PARTS[name], 0, 1)
        materials[vertices, 3] = 1
    outside = np.setdiff1d(model.regions["face"], np.union1d(model.regions["lips"], model.regions["mouth_inside"]))
    if len(wall := parts["wall"]) and len(outside):
        near, _ = KDTree(model.template[outside]).query(model.template[wall])
        materials[wall, 3] = np.clip((near - CHEEK[0]) / (CHEEK[1] - CHEEK[0]), 0, 1)
    return materials


def _poses(frames: TrainingFrames) -> Iterable[Pose]:
    """All poses of the frames, BATCH at a time."""
    for rows in torch.arange(len(frames)).split(BATCH):
        yield from (frames.batch_poses(rows, fitted) for fitted in ((False, True) if frames.fitted else (False,)))
