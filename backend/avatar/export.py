"""Export of one posed frame of an avatar as a standard 3D Gaussian Splatting `.ply`, as viewers and game engines read
it.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import EffigyError
from ..formats.track import Track
from ..splatting.ply import write_ply
from .render import SplatSource


def export_frame(avatar: SplatSource, track: Track, frame: int, out: Path) -> int:
    """Write frame `frame` of the track and return how many Gaussians the file holds.

    The Gaussians are in head space (metres, +Y up, +Z out of the face), independent of the frame's camera, so that
    exports of several frames coincide. Colours are sRGB-encoded, as 3DGS programs expect; view-dependent colours are
    fixed to those seen by the frame's camera.
    """
    count = len(track.expression)
    if not 0 <= frame < count:
        raise EffigyError(f"The track has no frame {frame}: give a number from 0 to {count - 1}.")
    out = Path(out)
    if out.suffix.lower() != ".ply":
        raise EffigyError(f"{out} should end in .ply: that is the format it will hold.")
    with torch.no_grad():
        return write_ply(out, avatar.splats(track, [frame]))
