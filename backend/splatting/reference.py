"""The readable reference rasteriser: pure PyTorch, one formula after another, differentiated by autograd.

It is slow, because every Gaussian is evaluated at every pixel, and therefore only for small images. The fast
rasterisers are tested against it. Sources: EWA splatting (Zwicker et al. 2001), 3D Gaussian Splatting (Kerbl et al.
2023, equations 2 to 6), and the conventions of gsplat 1.5.3 ("classic" mode), whose constants are repeated below.
"""

from __future__ import annotations

import torch

from .types import Cameras, Raster, Splats

NEAR = 0.01
"""Gaussians whose centre is nearer than this to the camera plane are not drawn (gsplat's default, metres)."""
LOW_PASS = 0.3
"""Added to the diagonal of the image-space covariance so that no Gaussian is thinner than a pixel (px²)."""
ALPHA_MAX = 0.999
ALPHA_MIN = 1.0 / 255.0
"""A Gaussian with a smaller alpha at a pixel does not contribute to it."""
TRANSMITTANCE_MIN = 1e-4
"""Blending of a pixel stops before the Gaussian that would reduce its transmittance to this."""
MARGIN = 0.3
"""The slope at which the projection's Jacobian is evaluated is clamped this far beyond the image's edge, as a fraction
of half the field of view."""


def rotation_matrices(quaternions: torch.Tensor) -> torch.Tensor:
    """(..., 4) quaternions (w, x, y, z) of any length → (..., 3, 3) rotations."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1, eps=1e-12).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(quaternions.shape[:-1] + (3, 3))


def rasterize_reference(splats: Splats, cameras: Cameras) -> Raster:
    """Splats (B, G) rendered by cameras (B) → colour (B, H, W, 3), alpha and depth (B, H, W). Any float dtype."""
    images = [_one(splats, cameras, b) for b in range(splats.means.shape[0])]
    color, alpha, depth = (torch.stack(parts) for parts in zip(*images, strict=True))
    return Raster(color, alpha, depth)


def _one(splats: Splats, cameras: Cameras, b: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width, height = cameras.width, cameras.height
    intrinsics, view = cameras.intrinsics[b], cameras.world_to_camera[b]
    focal = torch.stack([intrinsics[0, 0], intrinsics[1, 1]])
    centre = torch.stack([intrinsics[0, 2], intrinsics[1, 2]])
    size = intrinsics.new_tensor([width, height])

    in_camera = splats.means[b] @ view[:3, :3].T + view[:3, 3]
    drawn = ((in_camera[:, 2] >= NEAR) & (splats.opacities[b] >= ALPHA_MIN)).nonzero().squeeze(1)
    drawn = drawn[torch.argsort(in_camera[drawn, 2], stable=True)]

    xyz = in_camera[drawn]
    z = xyz[:, 2]
    slope = xyz[:, :2] / z[:, None]
    mean = slope * focal + centre

    # Image-space covariance: Σ' = J W Σ Wᵀ Jᵀ (Kerbl et al. 2023, equation 5), Σ = R S Sᵀ Rᵀ (equation 6).
    spread = MARGIN * 0.5 * size / focal
    clamped = torch.minimum(torch.maximum(slope, -(centre / focal + spread)), (size - centre) / focal + spread)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([focal[0] / z, zero, -focal[0] * clamped[:, 0] / z], -1),
            torch.stack([zero, focal[1] / z, -focal[1] * clamped[:, 1] / z], -1),
        ],
        -2,
    )
    root = jacobian @ view[:3, :3] @ rotation_matrices(splats.quaternions[b, drawn]) * splats.scales[b, drawn, None, :]
    covariance = root @ root.transpose(1, 2) + LOW_PASS * torch.eye(2, dtype=z.dtype)
    inverse = torch.linalg.inv(covariance)

    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).to(z.dtype)
    offset = mean[:, None, :] - pixels
    sigma = 0.5 * torch.einsum("gpi,gij,gpj->gp", offset, inverse, offset)
    falloff = splats.opacities[b, drawn, None] * torch.exp(-sigma)
    alpha = torch.where(falloff >= ALPHA_MIN, falloff.clamp(max=ALPHA_MAX), torch.zeros_like(falloff))

    # Front-to-back blending (equation 3). The transmittance after a Gaussian must stay above TRANSMITTANCE_MIN. Since
    # it never increases, dropping all Gaussians that violate this is equivalent to stopping at the first one.
    after = torch.cumprod(1 - alpha, 0)
    alpha = torch.where(after > TRANSMITTANCE_MIN, alpha, torch.zeros_like(alpha))
    through = torch.cumprod(1 - alpha, 0)
    before = torch.cat([torch.ones_like(through[:1]), through[:-1]])
    weight = alpha * before
    color = torch.einsum("gp,gc->pc", weight, splats.colors[b, drawn])
    depth = torch.einsum("gp,g->p", weight, z)
    return color.reshape(height, width, 3), weight.sum(0).reshape(height, width), depth.reshape(height, width)
