"""The 3D-aware enhancer (GraphAvatar section 3.4): a light U-Net that sharpens what the Gaussians draw, told their depth.

Every block is modulated by depth, F~ = gamma(D) * F + beta(D), gamma and beta from 1 x 1 convolutions of D resized to the
block; the output is a residual on the colour, alpha is not touched. What makes it usable in an artist's picture:

- It sees premultiplied colour and alpha, never a background, and its residual is weighted by alpha: the same head comes
  out whatever lies behind it, and empty pixels stay empty.
- Depth is measured from the head's own depth, in units of a head's radius: the camera's distance does not matter.
- It knows details of one size in the head. Where a picture shows the head larger than the training pictures did,
  the residual is found at their scale and brought up to the picture's (`Enhancer.scale_of`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..splatting.rasterize import rasterize
from ..splatting.types import Cameras, Raster, Splats

HEAD_RADIUS = 0.1
"""Metres."""
NATIVE = 1.25
"""Up to this ratio a picture's scale counts as that of the training pictures."""
MULTIPLE = 8
"""Sides are padded to a multiple of this: one folding and two poolings."""


class _Block(nn.Module):
    """Two convolutions, the first one's output modulated by depth."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.modulation = nn.Conv2d(1, 2 * width, 1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for convolution in (self.first, self.second):
            # PyTorch's own start halves what passes each layer, and the coarse blocks would hardly be heard.
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.normal_(self.modulation.weight, std=0.1)
        assert self.modulation.bias is not None
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        gamma, beta = self.modulation(depth).chunk(2, 1)
        x = functional.silu(torch.addcmul(beta, self.first(x), 1 + gamma))
        return functional.silu(self.second(x))


class Enhancer(nn.Module):
    """Raster of B pictures -> the same with enhanced colour."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Folded 2 x 2 to channels first: three quarters of the time would else go into the largest scale.
        self.fine = _Block(16, width)
        self.middle = _Block(width, 2 * width)
        self.coarse = _Block(2 * width, 2 * width)
        self.middle_up = _Block(4 * width, width)
        self.fine_up = _Block(2 * width, width)
        self.out = nn.Conv2d(width, 12, 3, padding=1)
        # It begins by changing nothing.
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)
        self.density = nn.Parameter(torch.zeros(()), requires_grad=False)
        """Pixels a metre of the head in the training pictures; a parameter so that the avatar's file holds it."""

    def forward(self, raster: Raster, depth: Tensor, scale: float = 1.0) -> Raster:
        """`depth` (B,): how far along the camera's axis the head's middle lies, metres. `scale`: how many times larger
        than in the training pictures the head is drawn; see `scale_of`.

        The picture goes in without gradient: the Gaussians learn from the enhanced picture as if the residual were
        given, and are not asked to draw what the U-Net would like to see.
        """
        with torch.no_grad():
            # Alpha-weighted, so that faint rims speak faintly: alpha * (mean depth - head's depth).
            relative = (raster.depth - raster.alpha * depth[:, None, None]) / HEAD_RADIUS
            seen = torch.cat((raster.color, raster.alpha[..., None], relative[..., None]), -1).permute(0, 3, 1, 2)
            height, width = seen.shape[2:]
            if scale > NATIVE or scale < 1 / NATIVE:
                size = [max(1, round(side / scale)) for side in (height, width)]
                seen = functional.interpolate(seen, size, mode="bilinear", antialias=True, align_corners=False)
        residual = self._residual(seen)
        if residual.shape[2:] != (height, width):
            residual = functional.interpolate(residual, (height, width), mode="bicubic", align_corners=False)
        return replace(raster, color=raster.color + residual.permute(0, 2, 3, 1) * raster.alpha.detach()[..., None])

    def _residual(self, seen: Tensor) -> Tensor:
        """(B, 5, H, W) premultiplied colour, alpha, relative depth -> (B, 3, H, W)."""
        height, width = seen.shape[2:]
        padded = functional.pad(seen, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        x, depth = functional.pixel_unshuffle(padded[:, :4], 2), functional.avg_pool2d(padded[:, 4:], 2)
        half, quarter = functional.avg_pool2d(depth, 2), functional.avg_pool2d(depth, 4)
        fine = self.fine(x.contiguous(memory_format=torch.channels_last), depth)
        middle = self.middle(functional.avg_pool2d(fine, 2), half)
        coarse = self.coarse(functional.avg_pool2d(middle, 2), quarter)
        x = self.middle_up(torch.cat((functional.interpolate(coarse, scale_factor=2), middle), 1), half)
        x = self.fine_up(torch.cat((functional.interpolate(x, scale_factor=2), fine), 1), depth)
        return functional.pixel_shuffle(self.out(x), 2)[..., :height, :width]

    def scale_of(self, cameras: Cameras, depth: Tensor, size: float = 1.0) -> float:
        """How many times larger than in the training pictures these cameras show a head `size` times as large in the
        world; the mean over the pictures.
        """
        density = cameras.intrinsics[:, 0, 0] * size / depth.clamp_min(1e-6)
        return float(density.mean() / self.density) if self.density > 0 else 1.0


@torch.no_grad()
def head_depth(splats: Splats, cameras: Cameras) -> Tensor:
    """(B,) metres: the camera depth of the splats' middle."""
    middle = splats.means.mean(1)
    return (cameras.world_to_camera[:, 2, :3] * middle).sum(1) + cameras.world_to_camera[:, 2, 3]


@torch.no_grad()
def enhance_together(
    raster: Raster,
    splats: Splats,
    cameras: Cameras,
    counts: list[int],
    enhancers: list[Enhancer | None],
    sizes: list[float],
) -> Raster:
    """The joint picture (B = 1) of several heads, each with its own enhancer. `splats` holds `counts` Gaussians of each.

    What an enhancer adds to its head alone is added to the joint picture where, and as far as, that head is seen in it.
    """
    color = raster.color
    for head, (enhancer, size) in enumerate(zip(enhancers, sizes, strict=True)):
        if enhancer is None:
            continue
        if len(counts) == 1:
            return enhance(enhancer, raster, splats, cameras, size)
        first = sum(counts[:head])
        own = Splats(*(part[:, first : first + counts[head]] for part in vars(splats).values()))
        alone = rasterize(own, cameras)
        marked = torch.zeros_like(splats.colors)
        marked[:, first : first + counts[head]] = 1
        share = rasterize(replace(splats, colors=marked), cameras).color[..., :1]
        added = enhance(enhancer, alone, own, cameras, size).color - alone.color
        color = color + added * (share / alone.alpha[..., None].clamp_min(1 / 255)).clamp_max(1)
    return replace(raster, color=torch.minimum(color.clamp_min(0), raster.alpha[..., None]))


@torch.no_grad()
def enhance(enhancer: Enhancer | None, raster: Raster, splats: Splats, cameras: Cameras, size: float = 1.0) -> Raster:
    """The picture of one head enhanced, its colour kept premultiplied (between black and alpha); without an enhancer as
    it is. `size`: of the head in the world, where the artist scaled it.
    """
    if enhancer is None:
        return raster
    depth = head_depth(splats, cameras)
    scale = enhancer.scale_of(cameras, depth, size)
    # Depth differences grow with the head as well.
    own = replace(raster, depth=raster.depth / size)
    color = enhancer(own, depth / size, scale).color
    return replace(raster, color=torch.minimum(color.clamp_min(0), raster.alpha[..., None]))
