"""Moves spawned Gaussians that no frame needs to where the error is (see `bench.density`).

A Gaussian of an avatar follows the vertex that spawns it, and none is stored beside it: the file has as many for each
vertex, and every player reads them so. Where a Gaussian is moved to another part of the head, it has to follow a vertex
there, so a moved Gaussian has a vertex of its own here. In a file that would be one more tensor, (N, k) int16, and one
more indexing in each of the four programs that pose an avatar.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from backend.avatar.anchors import AnchorGaussians
from backend.avatar.blendshapes import SPAWNED_SIZE
from backend.avatar.graph_avatar import GraphAvatar
from backend.avatar.neural_gaussians import SpawnedGaussians
from backend.avatar.posing import Pose, rotate
from backend.head.rotations import quaternion_multiply
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Splats
from backend.training.frames import TrainingFrames, evenly_spaced
from backend.training.losses import ANCHOR_LIMIT_WEIGHT, HAIR_OFFSET_LIMIT, AnchorLimits
from backend.training.optimisation import Optimisation
from backend.training.stages import distillation_poses
from backend.training.unobserved_regions import FADING_WEIGHT, UnobservedPrior

MEASURED: Final = 24
"""Training frames in which the use of the Gaussians is measured."""
UNUSED: Final = 0.05
"""Pixels: the sum of a Gaussian's weights over a frame, below which the frame does not need it."""
FAINT: Final = 0.2
"""A moved Gaussian starts with an opacity of tanh(0.2), as spawned ones do at first."""
INVERSE: Final = torch.tensor((1.0, -1.0, -1.0, -1.0))
"""Factors that make a unit quaternion's inverse of it."""


@dataclass(frozen=True)
class Rebound(SpawnedGaussians):
    """Spawned Gaussians of which each follows a vertex of its own."""

    vertices: Tensor
    """(N k,) int64: the vertex, with its anchor, that each follows."""

    def splats(self, pose: Pose, offsets: Tensor, anchor_scales: Tensor) -> Splats:
        """As `SpawnedGaussians.splats`, whose Gaussians follow the vertex that spawns them."""
        followed = self.vertices
        pose = replace(pose, posed=pose.posed[:, followed], rotations=pose.rotations[:, followed])
        own = {field.name: getattr(self, field.name) for field in fields(SpawnedGaussians)}
        own = {name: value.flatten(-3, -2).unsqueeze(-2) for name, value in own.items()}
        return SpawnedGaussians(**own).splats(pose, offsets[:, followed], anchor_scales[:, followed])


class Regularisers(UnobservedPrior):
    """The prior of unobserved regions, which does not fade moved Gaussians, and the penalties of a variant."""

    def __init__(self, base: UnobservedPrior, limits: AnchorLimits, k: int, face: float, hair: float) -> None:
        """`face` and `hair` are factors on the penalty of anchors beyond their limits, where those are the face's, and
        where they are those of scalp, ears and neck.
        """
        super().__init__(base.weight, base.extrapolated)
        factor = torch.where(limits.offset < HAIR_OFFSET_LIMIT, face, hair)
        vars(self).update(limits=limits, more=factor - 1, faded=base.weight[:, None].repeat(1, k))

    limits: AnchorLimits
    more: Tensor
    """(N,) what is added to a penalty that is in the loss once already."""
    faded: Tensor
    """(N, k) weights of the spawned Gaussians' fading."""

    def loss(self, anchors: AnchorGaussians, neural_opacities: Tensor) -> Tensor:
        """As of `UnobservedPrior`."""
        loss = super().loss(anchors, neural_opacities[:, :0])
        loss = loss + FADING_WEIGHT * (self.faded.flatten() * neural_opacities.square()).mean()
        if self.more.any():
            distance = anchors.offsets.norm(dim=-1) / self.limits.offset
            size = anchors.scales / self.limits.scale[:, None]
            for excess in (distance[..., None], size):
                loss = loss + ANCHOR_LIMIT_WEIGHT * (self.more[:, None] * (excess - 1).clamp_min(0).square()).mean()
        return loss


@dataclass(frozen=True)
class Use:
    """What the training frames need each of G Gaussians for."""

    most: Tensor
    """(G,) pixels: the sum of its weights, in the frame that shows it most."""
    error: Tensor
    """(G,) mean over frames of the sum of its weights times the pixels' absolute errors (Rota Bulo et al. 2024)."""


def use_of(networks: GraphAvatar, frames: TrainingFrames, size: int) -> Use:
    """A Gaussian's weights in a picture are the derivatives of the picture by its colour."""
    rows = torch.from_numpy(evenly_spaced(np.arange(len(frames)), MEASURED))
    most, error = [], []
    for part in rows.split(4):
        batch = frames.batch(part, size)
        with torch.no_grad():
            splats = networks(batch.pose)[0]
        colors = splats.colors.requires_grad_()
        raster = rasterize(replace(splats, colors=colors), batch.cameras)
        wrong = (raster.color + 1 - raster.alpha[..., None] - batch.color * batch.matte[..., None]).detach()
        wrong = (wrong - (1 - batch.matte[..., None])).abs().mean(-1)
        asked = torch.stack((torch.ones_like(wrong), wrong, torch.zeros_like(wrong)), -1)
        gradient = torch.autograd.grad(raster.color, colors, asked)[0]
        most.append(gradient[..., 0].amax(0))
        error.append(gradient[..., 1])
    return Use(torch.stack(most).amax(0), torch.cat(error).mean(0))


class Moves:
    """Moves spawned Gaussians that no frame needs to others, drawn by their share of the error (as in 3DGS-MCMC,
    Kheradmand et al. 2024, which draws by opacity).
    """

    def __init__(self, networks: GraphAvatar, optimisation: Optimisation, prior: Regularisers, seed: int) -> None:
        shapes = networks.blendshapes
        assert shapes is not None
        self.networks, self.shapes, self.optimisation, self.prior = networks, shapes, optimisation, prior
        self.vertices = torch.arange(len(shapes.mean)).repeat_interleave(shapes.k)
        self.generator = torch.Generator().manual_seed(seed)
        self.moved = torch.zeros(len(self.vertices), dtype=torch.bool)
        shapes.register_forward_hook(self._rebind)

    def _rebind(
        self, module: object, given: object, made: tuple[Tensor, Tensor, SpawnedGaussians]
    ) -> tuple[Tensor, Tensor, Rebound]:
        return *made[:2], Rebound(**vars(made[2]), vertices=self.vertices)

    def move(self, frames: TrainingFrames, size: int, share: float) -> None:
        """Move at most this share of the spawned Gaussians to where the error is."""
        count = len(self.shapes.mean)
        use, unused = self._unused(frames, size, share)
        draw_by = use.error.clone()
        draw_by[count + unused] = 0
        goals = torch.multinomial(draw_by, len(unused), replacement=True, generator=self.generator)
        self._take_place(frames, unused, goals)
        # Where they are now, frames show them.
        self.prior.faded.view(-1)[unused] = 0

    def revive(self, frames: TrainingFrames, size: int) -> None:
        """Put those that no frame needs back to their own anchors, where a frame needs these. A Gaussian without
        opacity gets no gradient, so it would never return.
        """
        use, unused = self._unused(frames, size, 1.0)
        unused = unused[use.most[unused // self.shapes.k] > UNUSED]
        self._take_place(frames, unused, unused // self.shapes.k)

    def _unused(self, frames: TrainingFrames, size: int, share: float) -> tuple[Use, Tensor]:
        """The use of all Gaussians, and random spawned ones that have none, at most this share of all spawned."""
        use = use_of(self.networks, frames, size)
        unused = (use.most[len(self.shapes.mean) :] < UNUSED).nonzero()[:, 0]
        unused = unused[torch.randperm(len(unused), generator=self.generator)]
        return use, unused[: round(share * len(self.vertices))]

    def _take_place(self, frames: TrainingFrames, unused: Tensor, goals: Tensor) -> None:
        """Each of the spawned Gaussians `unused` goes beside the Gaussian in `goals`, and follows its vertex."""
        followed = torch.cat((torch.arange(len(self.shapes.mean)), self.vertices))[goals]
        with torch.no_grad():
            self._place(frames, unused, goals, followed)
        self.vertices[unused] = followed
        self.moved[unused] = True

    def _place(self, frames: TrainingFrames, unused: Tensor, goals: Tensor, followed: Tensor) -> None:
        pose = distillation_poses(frames)
        splats, anchors = self.networks(pose)
        spawned = self.shapes(pose.conditions)[2]
        own = functional.normalize(splats.quaternions[0, goals], dim=-1)
        back = INVERSE * pose.rotations[0, followed]
        # Somewhere in the Gaussian that it is to help.
        beside = torch.randn(len(goals), 3, generator=self.generator) * splats.scales[0, goals]
        place = rotate(back, splats.means[0, goals] + rotate(own, beside) - pose.posed[0, followed])
        unit = anchors.scales[0, followed]
        scale = torch.logit((0.4 * splats.scales[0, goals] / unit).clamp(0.02, 0.98))
        wanted = torch.cat(
            (
                torch.full_like(scale[:, :1], FAINT),
                torch.logit(splats.colors[:, goals].mean(0).clamp(0.02, 0.98)),
                scale,
                quaternion_multiply(back, own),
            ),
            1,
        )
        made = torch.cat((spawned.opacity, spawned.color, spawned.scale, spawned.rotation), -1).mean(0)
        change = wanted - made.flatten(0, 1)[unused]
        at = (unused // self.shapes.k, unused % self.shapes.k)
        average = self.optimisation.average
        for mean_of_all, positions in (
            (self.shapes.mean, self.shapes.positions),
            (average["blendshapes.mean"], average["blendshapes.positions"]),
        ):
            self._of_spawned(mean_of_all)[at] += change
            positions[at] = (place - anchors.offsets[0, followed]) / unit
        for parameter in (self.shapes.mean, self.shapes.positions):
            for name, moments in self.optimisation.optimizer.state[parameter].items():
                if name != "step":
                    (self._of_spawned(moments) if parameter is self.shapes.mean else moments)[at] = 0

    def _of_spawned(self, attributes: Tensor) -> Tensor:
        """(N, O) -> a view (N, k, SPAWNED_SIZE)."""
        return attributes[:, -SPAWNED_SIZE * self.shapes.k :].unflatten(-1, (self.shapes.k, SPAWNED_SIZE))
