"""One posed frame of an avatar as a standard 3D Gaussian Splatting `.ply`, which viewers and game engines read."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import EffigyError
from ..formats.track import Track
from ..splatting.ply import write_ply
from .render import SplatSource


def export_frame(avatar: SplatSource, track: Track, frame: int, out: Path) -> int:
    """Write frame `frame` of the track and return how many Gaussians the file holds.

    They stand in the head's own space: metres, +Y up, +Z out of the face, wherever the camera saw the head, so that
    exports of several frames lie on each other. Colours are sRGB-encoded, as 3DGS programs expect; those that depend on
    the direction of view are frozen as that frame's camera sees them.
    """
    count = len(track.expression)
    if not 0 <= frame < count:
        raise EffigyError(f"The track has no frame {frame}: give a number from 0 to {count - 1}.")
    out = Path(out)
    if out.suffix.lower() != ".ply":
        raise EffigyError(f"{out} should end in .ply: that is the format it will hold.")
    with torch.no_grad():
        return write_ply(out, avatar.splats(track, [frame]))
