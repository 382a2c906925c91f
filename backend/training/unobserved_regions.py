"""What a clip never shows: the back of the head, mostly, a side of it where the person does not turn, a mouth's inside.

No pixel tells the Gaussians there how to look, and Adam makes steps of full size out of the traces of gradient that leak
through the hair: after a thousand of them the unseen side is confetti. So the warm-up's Gaussians are continued over what
nobody saw (`Unseen.fill`), and the networks are held to that continuation there, and nowhere else. What they spawn beside
such anchors fades away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve
from scipy.spatial import KDTree
from torch import Tensor

from ..avatar.anchors import AnchorGaussians
from ..avatar.graph_avatar import OFFSET_UNIT
from ..avatar.posing import Pose
from ..head.model import HeadModel
from ..head.mouth import mouth_parts
from ..head.topology import connected_parts, mesh_edges
from ..splatting.mesh import rasterize_mesh
from ..splatting.spherical_harmonics import C0
from .frames import TrainingFrames
from .losses import Leash
from .warmup import VertexBoundGaussians

LOOKS = 32
"""Frames, evenly spread, in which vertices are looked for."""
SIDE = 192
"""Of the pictures in which they are looked for, pixels."""
ENOUGH = 3
"""Looks in which a vertex must be seen to count as seen."""
FACING = 0.35
"""Cosine between a vertex's normal and the direction to the camera from which its colour is its own: at the outline, hair
is mixed with what lies behind it."""
KEEPING_WEIGHT = 0.1
FADING_WEIGHT = 0.02
HIDDEN_HOLD, GLANCED_HOLD = 0.5, 0.1
"""How firmly what was never in front but is near to what was, and what was only glanced at, are held to the continuation,
beside what was never seen nor near: a picture that does show them decides, and the traces that leak through hair do not.
Without, the hair behind an ear turned red and green in 2,700 steps. A tongue that the tracked mesh shows between the lips counts
as seen, and is not held."""
SOLID = 3.0
"""Logit of the opacity of what is unseen: nothing shines through the back of a head."""
TYPICAL = 0.02
"""Pull of what is typical (see `Unseen.fill`) against that of a neighbour: it decides some seven edges from what is seen."""


MOUTH = {"teeth": (0.50, 0.46, 0.41), "tongue": (0.40, 0.20, 0.19), "wall": (0.14, 0.06, 0.05)}
"""Colours beside skin of SKIN luminance: a mouth that never opens in the clip opens in the animation. All are in its shade:
teeth as bright as in a smile make a grimace of an O."""
SKIN = 0.55


@dataclass(frozen=True)
class Unseen:
    share: Tensor
    """(N,) in [0, 1]: 1 = in front in no frame, nor so near to what is that its Gaussian can show."""
    hidden: Tensor
    """(N,) in [0, 1]: 1 = in front in no frame."""
    glanced: Tensor
    """(N,) in [0, 1]: 1 = never seen but at a glancing angle."""
    edges: Tensor
    """(E, 2) of the mesh, but for those between scalp, skin and the mouth's wall: hair is not to fade into skin at the nape."""
    mouth: Tensor
    """(N, 3) of MOUTH; NaN outside the mouth."""

    @property
    def hold(self) -> Tensor:
        """(N,) in [0, 1]: how firmly the networks are kept from changing it."""
        return torch.stack((self.share, HIDDEN_HOLD * self.hidden, GLANCED_HOLD * self.glanced)).amax(0)

    @torch.no_grad()
    def continue_over(self, free: VertexBoundGaussians, pose: Pose) -> None:
        """Give the unseen among the warm-up's Gaussians what their surroundings have: colour and distance from the mesh
        go on smoothly; size, orientation and opacity are those of a closed surface, seen alike from all sides. The colours are
        those of `pose`'s frames.
        """
        share = self.share[:, None]
        colors = free.colors(pose)
        shown = (self.glanced == 0) & self.mouth.isnan().any(1)
        brightness = (colors[shown].median() / SKIN).clamp(0.2, 1.2) if shown.any() else 1.0
        unknown = torch.where(self.mouth.isnan(), colors, self.mouth * brightness)
        filled = self.fill(
            torch.cat((free.geometry[:, :3], colors), 1), torch.cat((torch.zeros_like(colors), unknown), 1)
        )
        constant = (filled[:, 3:] - 0.5) / C0
        upright = free.geometry.new_tensor((1.0, 0, 0, 0)).expand(len(share), 4)
        rest = torch.cat((filled[:, :3], torch.zeros_like(filled[:, :3]), upright), 1)
        free.geometry.lerp_(rest, share)
        closed = torch.cat((torch.full_like(share, SOLID), constant, torch.zeros_like(free.appearance[:, 4:])), 1)
        # The colour of what was only glanced at is as little its own as that of what was never seen.
        colored = self.glanced[:, None].expand(-1, closed.shape[1] - 1)
        free.appearance.lerp_(closed, torch.cat((share, colored), 1))

    @torch.no_grad()
    def fill(self, values: Tensor, unknown: Tensor) -> Tensor:
        """(N, C) attributes of the vertices -> the same where they are well seen, continued smoothly where they are not,
        and far from what is seen the median of what is, on the same part of the mesh: the edge of what is seen, lit from
        behind, should not colour a whole head. A part that is well seen nowhere keeps its values.

        The least of sum (1 - glanced) (x - value)^2 + sum over edges glanced (x_i - x_j)^2 + TYPICAL sum (x - typical)^2.
        """
        glanced, edges = self.glanced.cpu().double().numpy(), self.edges.cpu().numpy()
        given = values.cpu().double().numpy()
        count = len(glanced)
        ones = np.maximum(glanced[edges[:, 0]], glanced[edges[:, 1]])
        ends = np.r_[edges[:, 0], edges[:, 1]], np.r_[edges[:, 1], edges[:, 0]]
        linked = coo_matrix((np.r_[ones, ones], ends), (count, count))
        typical = unknown.cpu().double().numpy().copy()
        part_of = connected_parts(edges, count)
        for part in range(part_of.max() + 1):
            members = part_of == part
            if (shown := members & (glanced == 0)).any():
                typical[members] = np.median(given[shown], 0)
        # What is well seen is data, and holds a thousand times more firmly than neighbours hold together.
        held = 1e3 * (1 - glanced)
        system = diags(held + TYPICAL + np.asarray(linked.sum(1)).ravel()) - linked
        solved = spsolve(system.tocsc(), held[:, None] * given + TYPICAL * typical)
        return torch.as_tensor(solved.reshape(values.shape), dtype=values.dtype, device=values.device)


@dataclass(frozen=True)
class Keeping:
    """What the networks are held to where nothing was seen."""

    hold: Tensor
    """(N,) of `Unseen`."""
    continued: AnchorGaussians | None = None
    """B = 1: the warm-up's, continued; None where there was no warm-up."""

    def tensors(self) -> dict[str, Tensor]:
        """`continued`, for a checkpoint."""
        return dict(vars(self.continued)) if self.continued else {}

    def restored(self, tensors: dict[str, Tensor]) -> Keeping:
        """With what `tensors` gave."""
        kept = {name: value.to(self.hold) for name, value in tensors.items()}
        return Keeping(self.hold, AnchorGaussians(**kept) if kept else None)

    def loss(self, anchors: AnchorGaussians, spawned: Tensor) -> Tensor:
        """`spawned` (B, N k): opacities of the neural Gaussians, the k of an anchor side by side; k may be 0."""
        loss = anchors.offsets.new_zeros(())
        if self.continued:
            kept = self.continued
            difference = ((anchors.offsets - kept.offsets) / OFFSET_UNIT).square().sum(-1)
            difference = difference + (anchors.scales / kept.scales).log().square().sum(-1)
            difference = difference + (anchors.opacities - kept.opacities).square()
            difference = difference + (anchors.harmonics - kept.harmonics).square().sum((-1, -2))
            loss = KEEPING_WEIGHT * (self.hold * difference).mean()
        if spawned.shape[1]:
            fading = self.hold[:, None] * spawned.unflatten(1, (len(self.hold), -1)).square()
            loss = loss + FADING_WEIGHT * fading.mean()
        return loss


def find_unseen(frames: TrainingFrames, model: HeadModel, leash: Leash) -> Unseen:
    """Which vertices of the tracked mesh the training frames show, in front of all others, and which of them well."""
    seen, well = np.zeros(len(model.template)), np.zeros(len(model.template))
    rows = np.unique(np.linspace(0, len(frames) - 1, LOOKS).round().astype(int))
    for row in rows.tolist():
        index = frames.indices[[row]]
        pose, cameras = frames.poses.pose(index), frames.poses.cameras(index, SIDE)
        camera = cameras.world_to_camera[0].cpu().numpy()
        vertices = pose.posed[0].cpu().numpy() @ camera[:3, :3].T + camera[:3, 3]
        raster = rasterize_mesh(vertices, model.faces, cameras.intrinsics[0].cpu().numpy(), SIDE, SIDE)
        visible = np.zeros(len(seen), bool)
        visible[model.faces[raster.face_index[raster.covered]]] = True
        # Both in the frame of the un-turned head.
        facing = -(pose.normals * pose.directions).sum(-1)[0].cpu().numpy()
        seen += visible
        well += visible & (facing > FACING)
    enough = min(ENOUGH, len(rows))
    # Gaussians stray from their vertices: hair that shows beyond the outline of the mesh belongs to vertices behind it.
    distance, _ = KDTree(model.template[seen >= enough]).query(model.template)
    hidden, glanced = 1 - np.minimum(1, seen / enough), 1 - np.minimum(1, well / enough)
    share = np.clip(distance / leash.distance.cpu().numpy() - 1, 0, 1) * hidden
    return unseen_on(
        model, *(torch.as_tensor(part, dtype=torch.float32, device=frames.device) for part in (share, hidden, glanced))
    )


def unseen_on(model: HeadModel, share: Tensor, hidden: Tensor, glanced: Tensor) -> Unseen:
    """With the surfaces of this head; see `Unseen` for the shares."""
    edges, kind = mesh_edges(model.faces)[0], np.zeros(len(model.template), int)
    kind[model.regions["scalp"]] = 1
    mouth = torch.full((len(kind), 3), torch.nan)
    for name, vertices in mouth_parts(model).items():
        mouth[torch.as_tensor(vertices)] = torch.tensor(MOUTH[name])
        kind[vertices] = 2
    edges = torch.as_tensor(edges[kind[edges[:, 0]] == kind[edges[:, 1]]], device=share.device)
    return Unseen(share, hidden, glanced, edges, mouth.to(share))
