"""The 3D-aware enhancer (GraphAvatar section 3.4): a small U-Net that sharpens the rendered image, modulated by depth.

Every block computes F~ = gamma(D) * F + beta(D), with gamma and beta from 1 x 1 convolutions of the depth D resized to
the block. The output is a residual on the colour; alpha does not change. Three properties make it usable in any image:

- Its input is premultiplied colour and alpha without a background, and its residual is weighted by alpha. The head
  looks the same in front of every background, and empty pixels stay empty.
- Depth is relative to the head's own depth and in units of a head's radius, so the camera's distance does not matter.
- It has learnt details at one scale of the head. If the head is larger in an image than in the training images, the
  residual is computed at the training scale and scaled up (`Enhancer.scale_of`).
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
"""Up to this ratio, or its inverse, an image's scale counts as the scale of the training images."""
MULTIPLE = 8
"""Width and height are padded to a multiple of this, as one pixel-unshuffle and two poolings by 2 require."""


class _Block(nn.Module):
    """Two convolutions, the first one's output modulated by depth."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.modulation = nn.Conv2d(1, 2 * width, 1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for convolution in (self.first, self.second):
            # PyTorch's default initialisation halves the signal at each layer, and the coarse blocks would have no
            # effect.
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.normal_(self.modulation.weight, std=0.1)
        assert self.modulation.bias is not None
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        gamma, beta = self.modulation(depth).chunk(2, 1)
        x = functional.silu(torch.addcmul(beta, self.first(x), 1 + gamma))
        return functional.silu(self.second(x))


class Enhancer(nn.Module):
    """Raster of B images -> the same with enhanced colour."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # After a 2 x 2 pixel-unshuffle; the full resolution would take three quarters of the time.
        self.fine = _Block(16, width)
        self.middle = _Block(width, 2 * width)
        self.coarse = _Block(2 * width, 2 * width)
        self.middle_up = _Block(4 * width, width)
        self.fine_up = _Block(2 * width, width)
        self.out = nn.Conv2d(width, 12, 3, padding=1)
        # The initial residual is zero.
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)
        self.density = nn.Parameter(torch.zeros(()), requires_grad=False)
        """Pixels per metre at the head in the training images; a parameter, so that it is saved in the avatar's
        file."""

    def forward(self, raster: Raster, depth: Tensor, scale: float = 1.0) -> Raster:
        """`depth` (B,): the head centre's distance along the camera axis, metres. `scale`: see `scale_of`.

        The input has no gradient: the Gaussians learn from the enhanced image as if the residual were constant, and do
        not learn to draw inputs that suit the U-Net.
        """
        with torch.no_grad():
            # alpha * (mean depth - depth of the head), so that faint rims have little weight.
            relative = (raster.depth - raster.alpha * depth[:, None, None]) / HEAD_RADIUS
            inputs = torch.cat((raster.color, raster.alpha[..., None], relative[..., None]), -1).permute(0, 3, 1, 2)
            height, width = inputs.shape[2:]
            if scale > NATIVE or scale < 1 / NATIVE:
                size = [max(1, round(side / scale)) for side in (height, width)]
                inputs = functional.interpolate(inputs, size, mode="bilinear", antialias=True, align_corners=False)
        residual = self._residual(inputs)
        if residual.shape[2:] != (height, width):
            residual = functional.interpolate(residual, (height, width), mode="bicubic", align_corners=False)
        return replace(raster, color=raster.color + residual.permute(0, 2, 3, 1) * raster.alpha.detach()[..., None])

    def _residual(self, inputs: Tensor) -> Tensor:
        """(B, 5, H, W) premultiplied colour, alpha, relative depth -> (B, 3, H, W)."""
        height, width = inputs.shape[2:]
        padded = functional.pad(inputs, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        x, depth = functional.pixel_unshuffle(padded[:, :4], 2), functional.avg_pool2d(padded[:, 4:], 2)
        half, quarter = functional.avg_pool2d(depth, 2), functional.avg_pool2d(depth, 4)
        fine = self.fine(x.contiguous(memory_format=torch.channels_last), depth)
        middle = self.middle(functional.avg_pool2d(fine, 2), half)
        coarse = self.coarse(functional.avg_pool2d(middle, 2), quarter)
        x = self.middle_up(torch.cat((functional.interpolate(coarse, scale_factor=2), middle), 1), half)
        x = self.fine_up(torch.cat((functional.interpolate(x, scale_factor=2), fine), 1), depth)
        return functional.pixel_shuffle(self.out(x), 2)[..., :height, :width]

    def scale_of(self, cameras: Cameras, depth: Tensor, size: float = 1.0) -> float:
        """How many times larger the head appears in these cameras than in the training images, as a mean over the
        images.

        `size` is the head's scale in the world.
        """
        density = cameras.intrinsics[:, 0, 0] * size / depth.clamp_min(1e-6)
        return float(density.mean() / self.density) if self.density > 0 else 1.0


@torch.no_grad()
def head_depth(splats: Splats, cameras: Cameras) -> Tensor:
    """(B,) metres: the depth of the splats' mean position in the camera."""
    centre = splats.means.mean(1)
    return (cameras.world_to_camera[:, 2, :3] * centre).sum(1) + cameras.world_to_camera[:, 2, 3]


@torch.no_grad()
def enhance_joint_image(
    raster: Raster,
    splats: Splats,
    cameras: Cameras,
    counts: list[int],
    enhancers: list[Enhancer | None],
    sizes: list[float],
) -> Raster:
    """Enhance the joint image (B = 1) of several heads, each with its own enhancer. `splats` has `counts` Gaussians of
    each.

    Each enhancer is applied to an image of its head alone. Its residual is added to the joint image, weighted by the
    share of each pixel in which that head is visible.
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
    """Enhance the image of one head and keep its colour a valid premultiplied one, between 0 and alpha.

    Without an enhancer the image is returned unchanged. `size` is the head's scale in the world, where the artist set
    one.
    """
    if enhancer is None:
        return raster
    depth = head_depth(splats, cameras)
    scale = enhancer.scale_of(cameras, depth, size)
    # Depth differences scale with the head.
    own = replace(raster, depth=raster.depth / size)
    color = enhancer(own, depth / size, scale).color
    return replace(raster, color=torch.minimum(color.clamp_min(0), raster.alpha[..., None]))
