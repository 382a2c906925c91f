"""What a clip has filmed, stored in the networks that are trained on it: ranges of views, faces and weights of the
shapes, and what the tongue looks like where the clip never shows it. Before the training: what does not depend on the
clip's faces at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch

from ..avatar.filmed import expression_limits, filmed_faces
from ..avatar.graph_avatar import GraphAvatar
from ..avatar.posing import Pose
from ..avatar.views import clamp_view, view_range
from ..head.model import HeadModel
from ..head.mouth import mouth_parts
from .filmed_regions import store_regions
from .frames import TrainingFrames
from .unobserved_regions import brightness_of

TONGUE: Final = (0.95, 0.51, 0.50)
"""sRGB of the tongue in the light, for a person of `unobserved_regions.SKIN_LUMINANCE`."""
SHADOW_DEPTH: Final = (0.008, 0.030)
"""Metres behind the tongue's tip at which the mouth's shadow begins, and is full."""
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
def hold_mouth(networks: GraphAvatar, model: HeadModel) -> None:
    """From here on, what is inside the mouth looks the same in every face and view; the rig alone moves it. Lips spawn
    nothing. To be called before the training. Only blendshapes can be held.

    A clip shows the inside in a few faces, between lips whose tracked opening is not exact. Where it could change with
    the face, the teeth that a clip had bared glared once the jaw opened. Gaussians that lips spawned, at any distance
    from them, were whiskers around a wide mouth and a pale sheet across it; held-out frames do not miss them.
    """
    if networks.blendshapes is not None:
        inside, lips = (torch.as_tensor(model.regions[name], dtype=torch.long) for name in ("mouth_inside", "lips"))
        networks.blendshapes.regions.shares[inside] = 0
        networks.blendshapes.spawn_nothing(lips)


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
    """The tongue's colours on the rig, as bright as the avatar's skin in some poses. They show where the tongue comes
    out that was in. Only blendshapes have them.

    Teeth, the mouth's wall and the rim of the lips keep what was trained when the jaw opens further than in the clip: a
    closed wall in the rig's colours showed through the cheeks, and its teeth were a grey patch.
    """
    shapes = networks.blendshapes
    if shapes is None:
        return
    others = np.concatenate([model.regions[name] for name in ("eyes", "lids", "lips", "mouth_inside")])
    skin = np.setdiff1d(model.regions["face"], others)
    splats = networks(pose)[0]
    colors = splats.colors[:, torch.as_tensor(skin, device=splats.colors.device)]
    brightness = float(brightness_of(colors)) if len(skin) else 1.0
    shapes.materials.copy_(torch.from_numpy(tongue_materials(model, brightness)))
    shapes.reveals.zero_()
    if "tongueOut" in model.expression_names:
        shapes.reveals[model.expression_names.index("tongueOut")] = 1.0


def tongue_materials(model: HeadModel, brightness: float) -> np.ndarray:
    """(N, 4) float32: `GaussianBlendshapes.materials`."""
    materials = np.zeros((len(model.template), 4), np.float32)
    tongue = mouth_parts(model)["tongue"] if len(model.regions["mouth_inside"]) else np.empty(0, np.int64)
    if len(tongue):
        depth = model.template[tongue, 2]
        shade = np.clip((depth.max() - depth - SHADOW_DEPTH[0]) / (SHADOW_DEPTH[1] - SHADOW_DEPTH[0]), 0, 1)
        light = 1 + (SHADOW - 1) * shade**2 * (3 - 2 * shade)
        materials[tongue, :3] = np.clip(brightness * light[:, None] * TONGUE, 0, 1)
        materials[tongue, 3] = 1
    return materials


def _poses(frames: TrainingFrames) -> Iterable[Pose]:
    """All poses of the frames, BATCH at a time."""
    for rows in torch.arange(len(frames)).split(BATCH):
        yield from (frames.batch_poses(rows, fitted) for fitted in ((False, True) if frames.fitted else (False,)))
