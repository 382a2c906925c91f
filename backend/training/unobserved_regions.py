"""Regions of the head that a clip never shows: mostly its back, a side to which the person does not turn, the mouth's
inside.

No pixel constrains the Gaussians there, and Adam turns the tiny gradients that leak through the hair into steps of full
size: after a thousand steps the unobserved side is covered by random colours. Therefore the Gaussians of the warm-up
are extrapolated smoothly into these regions (`UnobservedVertices.extrapolate_into`), and a prior holds the networks to
the extrapolation there, and only there (`UnobservedPrior`). It also fades out the neural Gaussians of such anchors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..avatar.anchors import SOLID_LOGIT, AnchorGaussians
from ..avatar.graph_avatar import OFFSET_UNIT
from ..avatar.posing import Pose
from ..head.eye_size import eye_whites
from ..head.model import HeadModel
from ..head.mouth import mouth_parts, mouth_rows
from ..head.topology import connected_parts, mesh_edges, smooth_values
from ..splatting.spherical_harmonics import C0
from .losses import AnchorLimits
from .warmup import VertexBoundGaussians

CLOSED_BREADTH = 1.2
"""Least breadth of what is seen only aslant, of that at which it starts. Training leaves some a fifth below what is
asked, through which the mouth's dark wall showed as a net on the cheeks; at 1 they are closed. Across the surface they
may be thin: outlines are soft otherwise."""
PRIOR_WEIGHT = 0.1
FADING_WEIGHT = 0.02
HIDDEN_WEIGHT, GRAZING_WEIGHT = 0.5, 0.1
"""Weights of the prior for vertices that are never visible but lie near visible ones, and for vertices seen at grazing
angles only; vertices that are neither visible nor near have weight 1. The weights are so small that images which do
show such a vertex override the prior, while gradients that leak through hair do not. With weights of 0, the hair behind
an ear turned red and green within 2,700 steps. Visibility is tested on the tracked mesh: if its tongue shows between
the lips of an open jaw, the tongue counts as observed and gets no prior."""
MEDIAN_WEIGHT = 0.02
"""Weight of the median in `UnobservedVertices.fill`, where each edge to a neighbour has weight 1: the median dominates
from about seven edges beyond the observed vertices."""

MOUTH_COLORS = {"teeth": (0.50, 0.46, 0.41), "tongue": (0.40, 0.20, 0.19), "wall": (0.14, 0.06, 0.05)}
"""RGB in [0, 1] of the mouth's inside for a person of SKIN_LUMINANCE, used if the mouth never opens in the clip but may
open in an animation. They are the colours of a shaded mouth: with teeth as bright as in a smile, a mouth that says "O"
would look like a grimace."""
EYE_WHITE = (0.60, 0.56, 0.54)
"""The same of the eyes, if no white of them shows: it lies in the shadow of the lids."""
INNER_LIP, INNER_LIP_ROWS = (0.45, 0.24, 0.23), 5
"""The same of the mouth's wall where it begins at the lips, if no frame shows the wall, and the rows of vertices after
which it has its own colour. A wide mouth shows the inner side of the lips: a wall that is dark from its first row on
is a dark saw's edge between their Gaussians."""
SKIN_LUMINANCE = 0.55
"""Median of the colours of the reliably observed vertices, all channels together, for which MOUTH_COLORS, EYE_WHITE
and INNER_LIP are chosen. For other values they are scaled."""


@dataclass(frozen=True)
class UnobservedVertices:
    """How far each vertex is unobserved, and the edges and colours for extrapolating into unobserved regions.

    A vertex is reliably observed if its `grazing` is 0.
    """

    unobserved: Tensor
    """(N,) in [0, 1]: 1 = visible in no frame, and either beyond the edge of every picture, or so far from visible
    vertices (twice `AnchorLimits.offset` or more) that its Gaussian is not visible either."""
    hidden: Tensor
    """(N,) in [0, 1]: 1 = visible in no frame."""
    grazing: Tensor
    """(N,) in [0, 1]: 1 = visible in no frame, or only at grazing angles, at a picture's edge or outside the matte."""
    edges: Tensor
    """(E, 2) edges of the mesh without those between scalp, skin, the mouth's inside, irises and whites: hair must not
    blend into skin."""
    inside: Tensor
    """(N, 3) RGB: the vertex's colour of MOUTH_COLORS, INNER_LIP or EYE_WHITE; NaN elsewhere."""
    whites: Tensor
    """(N,) bool: whites of the eyes."""
    aslant: Tensor
    """(N,) bool: skin and hair that no frame looks straight at, nearly all of the scalp and a third of the face in
    clips of people who turn little; the lips' own limits hold for them."""
    white: Tensor | None = None
    """(3,) RGB: theirs in the footage; None if it does not show."""

    @property
    def weight(self) -> Tensor:
        """(N,) in [0, 1]: weight of `UnobservedPrior`, the largest that applies."""
        return torch.stack((self.unobserved, HIDDEN_WEIGHT * self.hidden, GRAZING_WEIGHT * self.grazing)).amax(0)

    def closing(self, limits: AnchorLimits, base_scale: Tensor) -> AnchorLimits:
        """`limits` by which what is seen only aslant stays a closed surface. `base_scale` (N,), metres, is the scale at
        which Gaussians start.
        """
        return replace(limits, least_breadth=CLOSED_BREADTH * base_scale * self.aslant)

    @torch.no_grad()
    def paint_inside(self, free: VertexBoundGaussians, known: Tensor) -> None:
        """Start mouth and whites of the eyes in the colours that such have, in place, where no pixel is `known` (N,).

        Lips hide what frames with a mouth that is hardly open show by the mesh, and it would keep the grey at which all
        Gaussians start.
        """
        colors, chosen = 0.5 + C0 * free.appearance[:, 1:4], ~self.inside.isnan().any(1)
        brightness = brightness_of(colors[known & ~chosen]) if (known & ~chosen).any() else 1.0
        unseen = (chosen & ~known)[:, None]
        free.appearance[:, 1:4] = torch.where(unseen, (self.inside * brightness - 0.5) / C0, free.appearance[:, 1:4])

    @torch.no_grad()
    def extrapolate_into(self, free: VertexBoundGaussians, pose: Pose, limits: AnchorLimits) -> None:
        """Replace unobserved Gaussians of the warm-up, in place, by an extrapolation of their surroundings.

        Colours and offsets from the mesh continue smoothly; scale, orientation and opacity become those of a closed
        surface, or the largest within `limits` (of teeth: single ones, before the dark). Gaussians seen at grazing
        angles only get the extrapolated colour, and keep the rest. An extrapolated colour does not depend on the
        direction of view; it continues the colours in the frames of `pose`.
        """
        unobserved = self.unobserved[:, None]
        colors = free.colors(pose)
        reliable = (self.grazing == 0) & self.inside.isnan().any(1)
        brightness = brightness_of(colors[reliable]) if reliable.any() else 1.0
        default_colors = torch.where(self.inside.isnan(), colors, self.inside * brightness)
        if self.white is not None:
            default_colors[self.whites] = self.white
        filled = self.fill(
            torch.cat((free.geometry[:, :3], colors), 1), torch.cat((torch.zeros_like(colors), default_colors), 1)
        )
        constant = (filled[:, 3:] - 0.5) / C0
        identity = free.geometry.new_tensor((1.0, 0, 0, 0)).expand(len(colors), 4)
        broad = torch.maximum(limits.least_breadth, free.base_scale)
        scales = (torch.minimum(limits.scale, broad) / free.base_scale).log()[:, None].expand(-1, 3)
        geometry = torch.cat((filled[:, :3], scales, identity), 1)
        free.geometry.lerp_(geometry, unobserved)
        appearance = torch.cat(
            (torch.full_like(unobserved, SOLID_LOGIT), constant, torch.zeros_like(free.appearance[:, 4:])), 1
        )
        # Colours seen at grazing angles are as unreliable as colours never seen.
        grazing = self.grazing[:, None].expand(-1, appearance.shape[1] - 1)
        free.appearance.lerp_(appearance, torch.cat((unobserved, grazing), 1))

    @torch.no_grad()
    def fill(self, values: Tensor, default: Tensor) -> Tensor:
        """Extrapolate per-vertex attributes (N, C) from reliably observed vertices; returns (N, C).

        Observed values are kept, and continue smoothly into the vertices with `grazing` above 0. Far from observed
        vertices the result approaches the median of the observed values on the same connected part of the mesh, so that
        the rim of the observed region, which may be lit from behind, does not colour a whole head. In a part without
        reliably observed vertices that is `default` (N, C). A part of mouth or whites that no frame shows takes it as
        it is; in all others the result x minimises

            sum over vertices 1e3 (1 - grazing) (x - value)^2 + MEDIAN_WEIGHT (x - median)^2
            + sum over edges max(grazing_i, grazing_j) (x_i - x_j)^2
        """
        grazing, edges = self.grazing.cpu().double().numpy(), self.edges.cpu().numpy()
        known = values.cpu().double().numpy()
        count = len(grazing)
        edge_weight = np.maximum(grazing[edges[:, 0]], grazing[edges[:, 1]])
        median = default.cpu().double().numpy().copy()
        # Observed values are data: their weight is a thousand times that of the smoothness between neighbours.
        data_weight = 1e3 * (1 - grazing)
        chosen = ~self.inside.isnan().any(1).cpu().numpy()
        part_of = connected_parts(edges, count)
        for part in range(part_of.max() + 1):
            members = part_of == part
            if (reliable := members & (grazing == 0)).any():
                median[members] = np.median(known[reliable], 0)
            elif (grazing[members] == 1).all() and chosen[members].all():
                known[members], data_weight[members] = median[members], 1e3
        weighted = data_weight[:, None] * known + MEDIAN_WEIGHT * median
        solved = smooth_values(edges, edge_weight, data_weight + MEDIAN_WEIGHT, weighted)
        return torch.as_tensor(solved.reshape(values.shape), dtype=values.dtype, device=values.device)


@dataclass(frozen=True)
class UnobservedPrior:
    """Loss term of training that holds the networks to the extrapolated Gaussians in unobserved regions."""

    weight: Tensor
    """(N,) `UnobservedVertices.weight`."""
    extrapolated: AnchorGaussians | None = None
    """The extrapolated Gaussians of the warm-up, with B = 1. Without a warm-up it is None: only the fading remains."""

    def tensors(self) -> dict[str, Tensor]:
        """The fields of `extrapolated`, for a checkpoint."""
        return dict(vars(self.extrapolated)) if self.extrapolated else {}

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Whether `tensors` have the names and sizes of what `tensors()` returns, or are none."""
        start, ends = (1, len(self.weight)), {"offsets": (3,), "scales": (3,), "quaternions": (4,), "opacities": ()}
        return not tensors or (
            tensors.keys() == AnchorGaussians.__dataclass_fields__.keys()
            and all(tensors[name].shape == start + end for name, end in ends.items())
            and tensors["harmonics"].ndim == 4
        )

    def restored(self, tensors: dict[str, Tensor]) -> UnobservedPrior:
        """A prior with the same weights and the Gaussians that `tensors()` returned."""
        fields = {name: value.to(self.weight) for name, value in tensors.items()}
        return UnobservedPrior(self.weight, AnchorGaussians(**fields) if fields else None)

    def loss(self, anchors: AnchorGaussians, neural_opacities: Tensor) -> Tensor:
        """Weighted mean over vertices of two squares: anchor minus `extrapolated`, and opacity of neural Gaussians.

        Anchors are compared in offset (in OFFSET_UNIT), log scale, opacity and harmonics. `neural_opacities` (B, N k)
        has the k neural Gaussians of each anchor side by side; k may be 0.
        """
        loss = anchors.offsets.new_zeros(())
        if self.extrapolated:
            target = self.extrapolated
            difference = ((anchors.offsets - target.offsets) / OFFSET_UNIT).square().sum(-1)
            difference = difference + (anchors.scales / target.scales).log().square().sum(-1)
            difference = difference + (anchors.opacities - target.opacities).square()
            difference = difference + (anchors.harmonics - target.harmonics).square().sum((-1, -2))
            loss = PRIOR_WEIGHT * (self.weight * difference).mean()
        if neural_opacities.shape[1]:
            fading = self.weight[:, None] * neural_opacities.unflatten(1, (len(self.weight), -1)).square()
            loss = loss + FADING_WEIGHT * fading.mean()
        return loss


def brightness_of(skin: Tensor) -> Tensor:
    """Colours (V, 3) of a person's skin -> the factor of colours that are given for SKIN_LUMINANCE."""
    return (skin.median() / SKIN_LUMINANCE).clamp(0.2, 1.2)


def unobserved_vertices(
    model: HeadModel,
    unobserved: Tensor,
    hidden: Tensor,
    grazing: Tensor,
    white: Tensor | None = None,
    aslant: Tensor | None = None,
) -> UnobservedVertices:
    """The three fields (N,) as `UnobservedVertices`, completed by this head's edges and colours of mouth and eyes.
    `aslant` (N,) bool, by default nothing, is taken for skin and hair alone.

    The whites of the eyes count as unobserved: lids cover most of them, and where a tracked opening is wider than the
    eye's own, skin would be taken for white.
    """
    edges, kind = mesh_edges(model.faces)[0], np.zeros(len(model.template), int)
    kind[model.regions["scalp"]] = 1
    inside = torch.full((len(kind), 3), torch.nan)
    for name, vertices in mouth_parts(model).items():
        inside[torch.as_tensor(vertices)] = torch.tensor(MOUTH_COLORS[name])
        kind[vertices] = 2
    rows = mouth_rows(model)
    near = np.maximum(1 + (rows + 1) / INNER_LIP_ROWS, 0) * (rows < 0)
    lip = torch.as_tensor(near, dtype=torch.float32)[:, None]
    inside = torch.where(lip > 0, torch.lerp(inside, torch.tensor(INNER_LIP), lip), inside)
    white_vertices = eye_whites(model)
    kind[white_vertices] = 3
    inside[torch.as_tensor(white_vertices)] = torch.tensor(EYE_WHITE)
    whites = torch.as_tensor(kind == 3, device=unobserved.device)
    edges = torch.as_tensor(edges[kind[edges[:, 0]] == kind[edges[:, 1]]], device=unobserved.device)
    unobserved, hidden, grazing = (torch.where(whites, 1.0, degree) for degree in (unobserved, hidden, grazing))
    surface = torch.ones_like(whites)
    for region in ("eyes", "lids", "lips", "mouth_inside"):
        surface[torch.as_tensor(model.regions[region], dtype=torch.long)] = False
    closed = torch.zeros_like(whites) if aslant is None else aslant & surface
    return UnobservedVertices(unobserved, hidden, grazing, edges, inside.to(unobserved), whites, closed, white)
