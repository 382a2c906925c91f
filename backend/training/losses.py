"""The training loss (GraphAvatar section 3.4), and the regularisers that keep a short clip from being overfitted.

    L_c = 0.8 L1 + 0.2 D-SSIM on the coarse image
    L_f = the same plus 0.1 x a perceptual term, on the enhanced image, or on the coarse one where there is no enhancer
    L_w = binary cross-entropy of the accumulated alpha against the head matte

The perceptual term is a `vgg_hed` distance on a crop of each frame, if the preset has one (`Preset.perceptual_crop`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..avatar.anchors import AnchorGaussians
from ..avatar.posing import Pose, rotate
from ..head.forward import vertex_normals
from ..head.model import HeadModel
from ..head.mouth import mouth_parts, mouth_rows
from ..head.topology import mesh_edges
from ..splatting.types import Raster, Splats
from .frames import Batch
from .perceptual import vgg_hed_distance
from .ssim import ssim

L1_WEIGHT = 0.8
D_SSIM_WEIGHT = 0.2
PERCEPTUAL_WEIGHT = 0.1
PERCEPTUAL_DEPTH = 3
"""Blocks of VGG16 that are compared. On crops, the receptive fields of deeper blocks are mostly beyond the crop's
edge."""
COARSE_WEIGHT = 0.1
MATTE_WEIGHT = 0.1
ANCHOR_LIMIT_WEIGHT = 0.1
FACE_OFFSET_LIMIT = 0.003
"""Metres that a face Gaussian may lie from its vertex without penalty: the tracker's own error on the face."""
HAIR_OFFSET_LIMIT = 0.03
"""The same for scalp, neck, the open edge below it, and ears, because hair lies off the skull. With one limit for all
Gaussians, hair blurs instead of leaving the mesh (the failure case that Gaussian Deja-vu measured)."""
FACE_THICKNESS, HAIR_THICKNESS = 0.0015, 0.006
"""Metres: the largest standard deviation of a spawned Gaussian across the surface. Frames from the front do not tell
how deep a Gaussian is: brows and noses had needles and a haze before them in profile."""
TEETH_OFFSET_LIMIT, TEETH_SCALE_LIMIT = 0.0015, 0.0025
"""Metres, of the teeth's Gaussians. Their mesh is coarse: Gaussians that close it are so large that the upper row
reached down to the lower one, and an open mouth was full of teeth. These close it half where frames show no teeth,
which looks like single teeth before the dark."""
REACH_ALONG_SURFACE = 4.0
"""Of the scale at which a vertex's Gaussian starts, two mean lengths of its edges: so far along the surface those that
it spawned may lie. Not inside the mouth, where the mesh is coarse: after an hour, what teeth had spawned was a glaring
ball in the open mouth of a clip that bares them, which cost 1.3 dB inside the head."""
CLOSED_OPACITY = 0.9
"""Least opacity of Gaussians that have a least scale or breadth: those of the lips, since needles and dots, which draw
the line between closed lips, fall apart where the mouth opens further than in the clip; and
`UnobservedVertices.aslant`."""
RING_REACH = 1.0
"""Least standard deviation of a Gaussian around the mouth along its row, of the length of the edge there: half of what
the edge has when a wide mouth makes it twice as long, so that the row stays closed. Gaussians do not stretch with the
mesh, and lips of the size at which they start become a row of dots."""
RING_WEIGHT = 0.01
"""With it, and without RING_REACH, held-out frames of a clip whose mouth is often open lose 0.03 dB; with both and
closed hair 0.15 (bench/results/sliders.md)."""
RING_OFFSET = 0.001
"""Metres by which neighbours around the mouth differ as much as by a factor of e in scale."""


@dataclass(frozen=True)
class AnchorLimits:
    """What the Gaussians of each vertex may be: within the first four, `anchor_limit_loss` of anchors is zero; where
    they are alike and reach each other along `rings`, `ring_loss`; and within `offset` along the normal,
    `reach` across it, and `thickness`, `spawned_limit_loss` of those that they spawned.
    """

    offset: Tensor
    """(N,) metres: distance of the Gaussian from its vertex."""
    scale: Tensor
    """(N,) metres: standard deviation of the Gaussian along each axis."""
    least_scale: Tensor
    """(N,) metres: the same, which it should not fall below; 0 where any will do."""
    least_breadth: Tensor
    """(N,) metres: the middle one of its three standard deviations should not fall below; 0 where any will do. A
    Gaussian that is as broad as its vertex's surroundings closes a surface, however thin it is across; it
    should be opaque as well (CLOSED_OPACITY), and have one colour from all sides."""
    rings: Tensor
    """(E, 2) `mouth_rings`."""
    ring_edges: Tensor
    """(E, 3) metres on the head model in the rest pose: from the first vertex of `rings` to the other."""
    reach: Tensor
    """(N,) metres: distance of a spawned Gaussian from the vertex along the surface."""
    thickness: Tensor
    """(N,) metres: standard deviation of a spawned Gaussian along the vertex's normal."""
    normals: Tensor
    """(N, 3) unit vectors of the head model's mesh in the rest pose, by a few degrees not the person's own."""


def anchor_limits(model: HeadModel, base_scale: Tensor) -> AnchorLimits:
    """The limits of a head: offsets by region; scales of three times `base_scale` (N,), metres, but at least 2 mm, and
    those of teeth.

    `base_scale` is `anchor_scale` of the mesh, at which the Gaussians start.
    """
    distance = torch.full((len(model.template),), FACE_OFFSET_LIMIT)
    thickness = torch.full_like(distance, FACE_THICKNESS)
    for region in ("scalp", "neck", "boundary", "ears"):
        hair = torch.as_tensor(model.regions[region], dtype=torch.long)
        distance[hair], thickness[hair] = HAIR_OFFSET_LIMIT, HAIR_THICKNESS
    least = torch.zeros_like(base_scale)
    lips = torch.as_tensor(model.regions["lips"], dtype=torch.long)
    least[lips] = base_scale[lips]
    scale, teeth = (3 * base_scale).clamp_min(0.002), torch.as_tensor(mouth_parts(model)["teeth"])
    distance[teeth], scale[teeth] = TEETH_OFFSET_LIMIT, TEETH_SCALE_LIMIT
    rings, template = mouth_rings(model), torch.as_tensor(model.template)
    ring_edges = template[rings[:, 1]] - template[rings[:, 0]]
    normals = vertex_normals(template[None], torch.as_tensor(model.faces.astype(np.int64)))[0]
    distance, thickness, ring_edges, normals = (
        each.to(base_scale) for each in (distance, thickness, ring_edges, normals)
    )
    rows = torch.from_numpy(rings).to(base_scale.device)
    reach = torch.maximum(distance, REACH_ALONG_SURFACE * base_scale)
    inside = torch.as_tensor(model.regions["mouth_inside"], dtype=torch.long)
    reach[inside] = distance[inside]
    return AnchorLimits(distance, scale, least, torch.zeros_like(least), rows, ring_edges, reach, thickness, normals)


def mouth_rings(model: HeadModel) -> np.ndarray:
    """(E, 2) edges of lips and of the mouth's wall that run around the mouth, along their rows of vertices. The wall's
    last row is left out: it is where the wall closes.
    """
    edges = mesh_edges(model.faces)[0]
    rows = mouth_rows(model)
    ends = rows[edges]
    return edges[(ends[:, 0] == ends[:, 1]) & (ends[:, 0] != 0) & (ends[:, 0] > rows.min())]


def image_loss(
    raster: Raster,
    batch: Batch,
    background: Tensor,
    crops: list[list[int]] | None,
    crop: int,
    mixed_precision: bool = False,
) -> Tensor:
    """0.8 L1 + 0.2 D-SSIM between the render and the frame's head, both over the colours `background` (B, 3).

    The background is random in every step: a wrong alpha, compensated by colour, would fit one background only.

    With `crops`, 0.1 x the perceptual term is added, on a crop of `crop` x `crop` pixels of each frame. `crops` has B
    times (y, x) of the crop's top-left corner, pixels. `mixed_precision` computes its network in bfloat16.
    """
    behind = background[:, None, None]
    prediction = raster.color + (1 - raster.alpha[..., None]) * behind
    truth = batch.color * batch.matte[..., None] + (1 - batch.matte[..., None]) * behind
    difference = (prediction - truth).abs().mean()
    d_ssim = 1 - ssim(prediction, truth).mean()
    loss = L1_WEIGHT * difference + D_SSIM_WEIGHT * d_ssim
    if crops is not None:
        cropped_prediction, cropped_truth = (
            torch.stack([image[y : y + crop, x : x + crop] for image, (y, x) in zip(images, crops, strict=True)])
            for images in (prediction, truth)
        )
        with torch.autocast(prediction.device.type, torch.bfloat16, enabled=mixed_precision):
            perceptual = vgg_hed_distance(cropped_prediction, cropped_truth, depth=PERCEPTUAL_DEPTH).mean()
        loss = loss + PERCEPTUAL_WEIGHT * perceptual
    return loss


def matte_loss(raster: Raster, batch: Batch) -> Tensor:
    """L_w: binary cross-entropy of the accumulated alpha against the head matte, mean over pixels."""
    # Clamping bounds the gradient of a confidently wrong pixel to 1000.
    alpha = raster.alpha.clamp(1e-3, 1 - 1e-3)
    return -(batch.matte * alpha.log() + (1 - batch.matte) * (1 - alpha).log()).mean()


def anchor_limit_loss(anchors: AnchorGaussians, anchor_limit: AnchorLimits) -> Tensor:
    """Squared excess of offsets and of scales over their limits, and of scales and breadths below the least, in units
    of the limits; of opacities below the least; and of harmonics above degree 0 where there is a least breadth. Each is
    a mean over Gaussians.
    """
    distance = anchors.offsets.norm(dim=-1) / anchor_limit.offset
    size = anchors.scales / anchor_limit.scale[:, None]
    small = 1 - anchors.scales / anchor_limit.least_scale.clamp_min(1e-9)[:, None]
    narrow = 1 - anchors.scales.median(-1).values / anchor_limit.least_breadth.clamp_min(1e-9)
    faint = (CLOSED_OPACITY - anchors.opacities) * (anchor_limit.least_scale + anchor_limit.least_breadth > 0)
    excesses = (distance - 1, size - 1, small, narrow, faint)
    # What is seen aslant would learn how its colour depends on the view from views that hardly show it: glasses,
    # temples and ears flared white from the side.
    glossy = anchors.harmonics[..., 1:, :].square().sum((-1, -2)) * (anchor_limit.least_breadth > 0)
    return torch.stack([excess.clamp_min(0).square().mean() for excess in excesses] + [glossy.mean()]).sum()


def ring_loss(anchors: AnchorGaussians, rings: Tensor, ring_edges: Tensor) -> Tensor:
    """Squared differences of the Gaussians along the edges `rings` (E, 2) in harmonics, log scale and offset in
    RING_OFFSET, and squares of what each lacks of RING_REACH along `ring_edges` (E, 3), metres, in units of it: the
    mean over edges and frames; 0 without edges.

    Between closed lips, each Gaussian is dark or light as the line happens to run over it. Where the mouth opens
    further than in the clip, such a rim looks torn. Across the mouth they may differ as they will.
    """
    if not len(rings):
        return anchors.offsets.new_zeros(())
    harmonics, scales, offsets, quaternions = (
        part[:, rings] for part in (anchors.harmonics, anchors.scales, anchors.offsets, anchors.quaternions)
    )
    unlike = (harmonics[:, :, 0] - harmonics[:, :, 1]).square().sum((-1, -2))
    unlike = unlike + (scales[:, :, 0] / scales[:, :, 1]).log().square().sum(-1)
    unlike = unlike + ((offsets[:, :, 0] - offsets[:, :, 1]) / RING_OFFSET).square().sum(-1)
    # Two vertices of somebody's own head may lie in one place.
    reach = (RING_REACH * ring_edges.norm(dim=-1, keepdim=True)).clamp_min(1e-6)
    lacking = (1 - extent_along(quaternions, scales, ring_edges[:, None]) / reach).clamp_min(0)
    return (unlike + lacking.square().sum(-1)).mean()


def extent_along(quaternions: Tensor, scales: Tensor, directions: Tensor) -> Tensor:
    """Standard deviation (...), in the unit of `scales` (..., 3), of Gaussians along `directions` (..., 3) of any
    length; their `quaternions` (..., 4) w, x, y, z need not be normalised.
    """
    # Turned back into the Gaussian's own axes, without a matrix, whose 18,000 copies take most of the time.
    w, axis = functional.normalize(quaternions, dim=-1).split((1, 3), -1)
    direction = functional.normalize(directions, dim=-1).expand_as(axis)
    side = 2 * torch.linalg.cross(direction, axis)
    own = direction + w * side + torch.linalg.cross(side, axis)
    return (own * scales).norm(dim=-1)


def spawned_limit_loss(splats: Splats, pose: Pose, limits: AnchorLimits) -> Tensor:
    """Squared excess of the spawned Gaussians' distance from their vertex, along its normal and across it, and of
    their standard deviation along it, over their limits and in units of these: the sum of the means over Gaussians; 0
    without any.

    `splats` are those of `pose`: one for each vertex, then the k that each spawned. Those that are not drawn do not
    count, and a spawned scale, which is in units of its anchor's, is no reason to shrink the anchor.
    """
    count = pose.posed.shape[1]
    k = (splats.means.shape[1] - count) // count
    if not k:
        return splats.means.new_zeros(())
    means, quaternions, scales, opacities = (
        part[:, count:].unflatten(1, (count, k))
        for part in (splats.means, splats.quaternions, splats.scales, splats.opacities)
    )
    anchor = splats.scales[:, :count, None]
    normals = rotate(pose.rotations, limits.normals)[:, :, None]
    offsets = means - pose.posed[:, :, None]
    height = (offsets * normals).sum(-1)
    across = (offsets - height[..., None] * normals).norm(dim=-1)
    thickness = extent_along(quaternions, scales * (anchor.detach() / anchor), normals)
    excess = opacities.new_zeros(())
    for size, limit in ((height.abs(), limits.offset), (across, limits.reach), (thickness, limits.thickness)):
        excess = excess + (size / limit[:, None] - 1).clamp_min(0).square()
    return (excess * (opacities > 0)).mean()


def total_loss(
    raster: Raster,
    batch: Batch,
    anchors: AnchorGaussians,
    anchor_limit: AnchorLimits,
    background: Tensor,
    crops: list[list[int]] | None = None,
    crop: int = 0,
    enhanced: Raster | None = None,
    mixed_precision: bool = False,
) -> Tensor:
    """L_f + 0.1 L_c + 0.1 L_w + 0.1 x `anchor_limit_loss` + 0.01 x `ring_loss`.

    `raster` is the coarse image, `enhanced` the enhancer's. Without an enhancer L_f is computed on `raster`, and L_c is
    left out. For `background`, `crops`, `crop` and `mixed_precision` see `image_loss`.
    """
    loss = image_loss(enhanced or raster, batch, background, crops, crop, mixed_precision)
    if enhanced:
        loss = loss + COARSE_WEIGHT * image_loss(raster, batch, background, None, 0)
    loss = loss + MATTE_WEIGHT * matte_loss(raster, batch)
    loss = loss + RING_WEIGHT * ring_loss(anchors, anchor_limit.rings, anchor_limit.ring_edges)
    return loss + ANCHOR_LIMIT_WEIGHT * anchor_limit_loss(anchors, anchor_limit)


def batch_psnr(raster: Raster, batch: Batch) -> Tensor:
    """PSNR () in dB of the mean squared error over all pixels of the batch, over white; shown as progress.

    Evaluation uses the metrics of `backend.training.metrics` instead.
    """
    with torch.no_grad():
        prediction = raster.color + (1 - raster.alpha[..., None])
        truth = batch.color * batch.matte[..., None] + (1 - batch.matte[..., None])
        return -10 * torch.log10((prediction - truth).square().mean())
