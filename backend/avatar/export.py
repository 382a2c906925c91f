"""Export of posed frames of an avatar to files of 3D Gaussians that viewers, game engines and Blender read."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import EffigyError
from ..file_names import numbered
from ..formats.track import Track
from ..progress import SILENT, Progress
from ..splatting.ply import check_splat_name, write_splats
from .render import SplatSource


def export_frame(avatar: SplatSource, track: Track, frame: int, out: Path) -> int:
    """Write frame `frame` of the track and return how many Gaussians the file holds.

    The Gaussians are in head space (metres, +Y up, +Z out of the face), independent of the frame's camera, so that
    exports of several frames coincide. Colours are sRGB-encoded, as 3DGS programs expect; view-dependent colours are
    fixed to those seen by the frame's camera.
    """
    check_splat_name(Path(out))
    _check_frame(track, frame)
    with torch.no_grad():
        return write_splats(Path(out), avatar.splats(track, [frame]))


def export_frames(
    avatar: SplatSource, track: Track, frames: range, out: Path, progress: Progress = SILENT
) -> tuple[Path, int]:
    """Write a file for each of the frames, as `export_frame` does it. Returns the first file and the largest number of
    Gaussians. `head.spz` becomes `head_0012.spz`.
    """
    files = [numbered(out, f"_{frame:04d}") for frame in frames]
    check_splat_name(out)
    for frame in (frames[0], frames[-1]):
        _check_frame(track, frame)
    counts = []
    for done, (frame, file) in enumerate(zip(frames, files, strict=True)):
        progress.raise_if_cancelled()
        counts.append(export_frame(avatar, track, frame, file))
        progress.update("exporting", done + 1, len(files))
    return files[0], max(counts)


def frames_of(text: str) -> range:
    """The frames that `A-B` names, both included. Raises an `EffigyError` for another text."""
    first, mark, last = text.partition("-")
    if not (mark and first.isdecimal() and last.isdecimal() and len(text) < 20 and int(first) <= int(last)):
        raise EffigyError(f"frames is {text}, where a range such as 10-25 is needed.")
    return range(int(first), int(last) + 1)


def _check_frame(track: Track, frame: int) -> None:
    count = len(track.expression)
    if not 0 <= frame < count:
        raise EffigyError(f"The track has no frame {frame}: give a number from 0 to {count - 1}.")
