"""Track → Frames: an avatar rendered at every frame of a track, as a PNG sequence, an EXR sequence or an MP4.

The networks' colours are sRGB-encoded and premultiplied, and are composited in this encoding, as in training. Files are
written in the encoding of their format (`backend.formats.image_files`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..errors import EffigyError
from ..formats.frame_formats import FRAME_FORMATS
from ..formats.image_files import ExrSequence, Mp4, PngSequence, over
from ..formats.track import Track
from ..progress import SILENT, Progress
from ..splatting.rasterize import rasterize
from ..splatting.types import Cameras, Raster, Splats
from ..storage import write_beside
from .avatar import Avatar
from .enhancer import enhance, enhance_joint_image

BATCH = 4
"""Frames that are rasterised together, in parallel; more of them would only take more memory."""

MAX_SIZE = 8192


class SplatSource(Protocol):
    """Anything that a track can pose: an avatar or a baseline."""

    def splats(self, track: Track, indices: Sequence[int]) -> Splats: ...


@dataclass(frozen=True)
class Frame:
    """One rendered frame; sRGB-encoded, float32."""

    color: np.ndarray
    """(H, W, 3) premultiplied by alpha."""
    alpha: np.ndarray
    """(H, W)"""
    depth: np.ndarray
    """(H, W) metres along the camera axis, the alpha-weighted mean over the pixel's Gaussians; infinity without any."""

    @property
    def rgba(self) -> np.ndarray:
        """(H, W, 4) in [0, 1], premultiplied."""
        return np.dstack((self.color, self.alpha)).clip(0, 1)

    def over(self, background: tuple[float, float, float]) -> np.ndarray:
        """(H, W, 3) in [0, 1] on a plain colour."""
        return over(self.color, self.alpha, background)


def track_cameras(track: Track, indices: Sequence[int], size: int, device: torch.device | str = "cpu") -> Cameras:
    """The cameras of some frames of a track, for square images of `size`; world space is head space."""
    intrinsics = torch.as_tensor(track.intrinsics, dtype=torch.float32, device=device).clone()
    intrinsics[:2] *= size / track.size
    poses = torch.as_tensor(track.head_to_camera[list(indices)], dtype=torch.float32, device=device)
    return Cameras(intrinsics.expand(len(poses), 3, 3), poses, size, size)


@torch.no_grad()
def draw(source: SplatSource, track: Track, indices: Sequence[int], size: int, enhanced: bool = True) -> list[Frame]:
    """Pose and rasterise some frames together, and enhance them if the source has an enhancer (`render_track` renders a
    whole track).
    """
    splats = source.splats(track, list(indices))
    cameras = track_cameras(track, indices, size, splats.means.device)
    raster = rasterize(splats, cameras)
    # A baseline has neither.
    enhancer, bust = (source.enhancer, source.bust) if isinstance(source, Avatar) else (None, None)
    if enhancer is None or not enhanced:
        return frames_of(raster)
    if bust is None:
        return frames_of(enhance(enhancer, raster, splats, cameras))
    # The enhancer has seen the head alone.
    counts = [splats.means.shape[1] - len(bust), len(bust)]
    return frames_of(enhance_joint_image(raster, splats, cameras, counts, [enhancer, None], [1.0, 1.0]))


def frames_of(raster: Raster) -> list[Frame]:
    """The images of a raster as arrays, with accumulated depth converted to mean depth."""
    color, alpha, depth = (part.cpu().numpy() for part in (raster.color, raster.alpha, raster.depth))
    # A pixel with alpha below 1/255 counts as empty: its mean depth would be that of an invisible rim.
    covered = alpha > 1 / 255
    depth = np.divide(depth, alpha, out=np.full_like(depth, np.inf), where=covered)
    return [Frame(*parts) for parts in zip(color, alpha, depth, strict=True)]


def parse_background(text: str) -> tuple[float, float, float] | None:
    """`transparent` → None; `#rrggbb` → sRGB-encoded [0, 1]."""
    if text == "transparent":
        return None
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise EffigyError(f"“{text}” is not a background: give transparent, or a colour as #rrggbb (#ffffff is white).")
    red, green, blue = (int(text[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue


def render_track(
    avatar: SplatSource,
    track: Track,
    out: Path,
    *,
    size: int,
    fmt: str = "png",
    background: str = "transparent",
    enhanced: bool = True,
    progress: Progress = SILENT,
) -> int:
    """Render every frame of `track`, including flagged ones, and return their number.

    `png` and `exr` make the folder `out` with files %06d numbered like the track's frames; `mp4` makes the file `out`
    at the track's frame rate. An earlier sequence is replaced; a folder that holds other files is refused.
    """
    out = Path(out)
    if fmt not in FRAME_FORMATS:
        raise EffigyError(f"“{fmt}” is not an image format: choose one of {', '.join(FRAME_FORMATS)}.")
    if not 16 <= size <= MAX_SIZE:
        raise EffigyError(f"Images of {size} x {size} cannot be rendered: choose a size from 16 to {MAX_SIZE}.")
    if fmt == "mp4" and size % 2:
        raise EffigyError(f"MP4 needs an even size, and {size} is odd: choose {size - 1} or {size + 1}.")
    colour = parse_background(background)
    if fmt == "mp4" and colour is None:
        colour = (1.0, 1.0, 1.0)
        progress.message("MP4 has no transparency: rendered on white. Give --background #rrggbb for another colour.")
    if fmt != "mp4":
        _check_folder(out, fmt)
    count = len(track.expression)
    with write_beside(out, durable=False) as temporary:
        writer = _writer(fmt, temporary, size, track)
        try:
            for start in range(0, count, BATCH):
                progress.raise_if_cancelled()
                for frame in draw(avatar, track, range(start, min(start + BATCH, count)), size, enhanced):
                    writer.write(frame.color, frame.alpha, frame.depth, colour)
                progress.update("Rendering", min(start + BATCH, count), count)
        finally:
            writer.close()
    return count


def _writer(fmt: str, path: Path, size: int, track: Track) -> PngSequence | ExrSequence | Mp4:
    if fmt == "mp4":
        return Mp4(path, size, track.fps, track.uneven_times)
    return PngSequence(path) if fmt == "png" else ExrSequence(path)


def _check_folder(out: Path, fmt: str) -> None:
    """Refuse to replace a folder that holds other files than an earlier render."""
    if out.is_file():
        raise EffigyError(f"{out} is a file, but {fmt.upper()} images need a folder: choose another name.")
    if out.is_dir():
        names = sorted(path.name for path in out.iterdir())
        strange = next((name for name in names if not re.fullmatch(r"\d{6}\.(png|exr)", name)), None)
        if strange:
            raise EffigyError(
                f"{out} holds other files (such as {strange}), which rendering would replace: choose an empty folder."
            )
