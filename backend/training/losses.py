"""What training minimises (GraphAvatar section 3.4), and the regularisers without which a short clip is learnt by heart.

L_c = 0.8 L1 + 0.2 D-SSIM on the coarse picture; L_f the same and a perceptual term on the enhanced one, or on the coarse
one where there is no enhancer; L_w = cross-entropy of the accumulated weight against the head matte; the perceptual
term is a `vgg_hed` distance on a crop of each frame where the preset asks for it (`Preset.perceptual_crop`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..avatar.anchors import AnchorGaussians
from ..head.model import HeadModel
from ..splatting.types import Raster
from .frames import Batch
from .perceptual import vgg_hed_distance
from .ssim import ssim

L1_WEIGHT = 0.8
D_SSIM_WEIGHT = 0.2
PERCEPTUAL_WEIGHT = 0.1
PERCEPTUAL_DEPTH = 3
"""Blocks of VGG16 that are compared: with crops the deeper ones see hardly more than the crop's edge."""
COARSE_WEIGHT = 0.1
MATTE_WEIGHT = 0.1
OFFSET_WEIGHT = 1.0
SCALE_WEIGHT = 1.0
FACE_LEASH = 0.003
"""Metres that a face Gaussian may leave its vertex before it costs: the tracker's own error there."""
HAIR_LEASH = 0.03
"""The same for the scalp and what is behind it: hair stands off the skull (Gaussian Deja-vu's measured failure case is
one leash for all, with which hair blurs instead of leaving the mesh)."""


@dataclass(frozen=True)
class Leash:
    """How far each anchor may stray (N,) and how large it may be (N,), metres."""

    distance: Tensor
    size: Tensor


def leash_of(model: HeadModel, base_scale: Tensor) -> Leash:
    distance = torch.full((len(model.template),), FACE_LEASH)
    for region in ("scalp", "neck", "boundary", "ears"):
        distance[torch.as_tensor(model.regions[region], dtype=torch.long)] = HAIR_LEASH
    return Leash(distance.to(base_scale.device), (3 * base_scale).clamp_min(0.002))


def picture_loss(raster: Raster, batch: Batch, background: Tensor, corners: Tensor | None, crop: int) -> Tensor:
    """Colour over a background (B, 3) that is drawn anew each step: only the right alpha looks right on all of them.

    `corners` (B, 2), shares of what a crop of `crop` pixels can move by, down and right: where the perceptual term looks.
    """
    behind = background[:, None, None]
    prediction = raster.color + (1 - raster.alpha[..., None]) * behind
    truth = batch.color * batch.matte[..., None] + (1 - batch.matte[..., None]) * behind
    difference = (prediction - truth).abs().mean()
    structure = 1 - ssim(prediction, truth).mean()
    loss = L1_WEIGHT * difference + D_SSIM_WEIGHT * structure
    if corners is not None:
        places = (corners * (prediction.shape[1] - crop)).long().tolist()
        seen, true = (
            torch.stack([picture[y : y + crop, x : x + crop] for picture, (y, x) in zip(pictures, places, strict=True)])
            for pictures in (prediction, truth)
        )
        loss = loss + PERCEPTUAL_WEIGHT * vgg_hed_distance(seen, true, depth=PERCEPTUAL_DEPTH).mean()
    return loss


def matte_loss(raster: Raster, batch: Batch) -> Tensor:
    """L_w: cross-entropy of the accumulated weight and the head matte."""
    # 1e-3 bounds the gradient at a pixel that is surely wrong to 1000 times that of one in doubt.
    weight = raster.alpha.clamp(1e-3, 1 - 1e-3)
    return -(batch.matte * weight.log() + (1 - batch.matte) * (1 - weight).log()).mean()


def leash_loss(anchors: AnchorGaussians, leash: Leash) -> Tensor:
    """Squared excess over the leash, in units of the leash: free inside, firm outside."""
    distance = anchors.offsets.norm(dim=-1) / leash.distance
    size = anchors.scales / leash.size[:, None]
    return (
        OFFSET_WEIGHT * (distance - 1).clamp_min(0).square().mean()
        + SCALE_WEIGHT * (size - 1).clamp_min(0).square().mean()
    )


def total_loss(
    raster: Raster,
    batch: Batch,
    anchors: AnchorGaussians,
    leash: Leash,
    background: Tensor,
    corners: Tensor | None = None,
    crop: int = 0,
    enhanced: Raster | None = None,
) -> Tensor:
    """L_f on the final picture, which is `enhanced` where there is an enhancer, 0.1 L_c on the coarse one beside it, 0.1 L_w."""
    loss = picture_loss(enhanced or raster, batch, background, corners, crop)
    if enhanced:
        loss = loss + COARSE_WEIGHT * picture_loss(raster, batch, background, None, 0)
    return loss + MATTE_WEIGHT * matte_loss(raster, batch) + 0.1 * leash_loss(anchors, leash)


def psnr_of(raster: Raster, batch: Batch) -> float:
    """DB over white, whole frame: the figure that progress shows; the metrics proper are in `metrics`."""
    with torch.no_grad():
        prediction = raster.color + (1 - raster.alpha[..., None])
        truth = batch.color * batch.matte[..., None] + (1 - batch.matte[..., None])
        return float(-10 * torch.log10((prediction - truth).square().mean()))
