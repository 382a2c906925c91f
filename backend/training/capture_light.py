"""The light of several captures: how the colours of each differ from those of the first, learnt with the avatar.

Clips of one person from two days differ in light, exposure and white balance. Without a correction the avatar would
learn a mean of them, and its networks would take expressions that only one clip shows for a reason to change colour.
Therefore every capture but the first has an affine change of colour, c' = A c + b, through which the render is compared
with that capture's frames, as appearance codes do in NeRF in the Wild (Martin-Brualla et al. 2021, section 4.1) and
affine transforms in Urban Radiance Fields (Rematas et al. 2022, section 4.3). It is a part of training, not of the
avatar: the avatar has the first capture's colours.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..splatting.types import Raster

PENALTY_WEIGHT = 0.01
"""On the mean square of A - 1 and b. It decides where images do not: on colours that only one capture shows."""


class CaptureLight(nn.Module):
    """The changes of colour of C captures, in sRGB-encoded values; that of the first is none."""

    def __init__(self, captures: int) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(captures - 1, 3, 4))
        """A - 1 and b of every capture but the first."""

    def affine(self) -> Tensor:
        """(C, 3, 4): A and b of each capture."""
        change = torch.cat((torch.zeros_like(self.change[:1]), self.change))
        return change + torch.eye(3, 4, dtype=change.dtype, device=change.device)

    def seen_in(self, captures: Tensor, raster: Raster) -> Raster:
        """Renders of B frames in the light of the `captures` (B,) that the frames belong to."""
        return in_light(raster, self.affine()[captures])

    def penalty(self) -> Tensor:
        """The term of the loss, a scalar."""
        return PENALTY_WEIGHT * self.change.square().mean()


def in_light(raster: Raster, affine: Tensor) -> Raster:
    """B renders with their colours changed by `affine` (B, 3, 4); colours are premultiplied, so b is as well."""
    color = raster.color @ affine[:, None, :, :3].transpose(-1, -2)
    return replace(raster, color=color + raster.alpha[..., None] * affine[:, None, None, :, 3])


def fit_affine(colors: Tensor, seen: Tensor) -> Tensor:
    """(3, 4): A and b with seen = A colours + b by least squares, for N colours (N, 3) of each.

    A weak prior holds A and b to no change, for colours that are all alike and where there are none. Float64.
    """
    colors, seen = colors.double(), seen.double()
    rows = torch.cat((colors, torch.ones_like(colors[:, :1])), 1)
    none = torch.eye(4, 3, dtype=torch.float64)
    hold = 1e-3 * max(len(rows), 1) * torch.eye(4, dtype=torch.float64)
    return torch.linalg.solve(rows.T @ rows + hold, rows.T @ seen + hold @ none).T


def light_in_words(affine: Tensor) -> str:
    """What an affine change (3, 4) makes of a middle grey: `red ×1.10, green ×0.98, blue ×0.85`."""
    grey = torch.full((3,), 0.5, dtype=affine.dtype)
    red, green, blue = ((affine[:, :3] @ grey + affine[:, 3]) / grey).tolist()
    return f"red ×{red:.2f}, green ×{green:.2f}, blue ×{blue:.2f}"
