"""The results of an evaluation: the contents of `metrics.json`, and the table that the command line prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .metrics import ImageMetrics

SCHEMA = 1

BASELINE_NAMES = {"nearest": "nearest frame", "vertex_bound": "vertex-bound"}
_COLUMNS = ("psnr", "psnr_head", "psnr_inner", "psnr_rim", "ssim", "vgg_hed", "lpips", "f_lmd", "sd")
_RESHAPED = {
    "mean",
    "interpolated_frames",
    "interpolated",
    "extrapolated_frames",
    "extrapolated",
    "baselines",
    "per_frame",
    "refitted",
    "relit",
    "with_bust",
}


@dataclass(frozen=True)
class FrameMetrics:
    frame: int
    extrapolated: bool
    """The head's pose lies outside the training range."""
    metrics: ImageMetrics


@dataclass(frozen=True)
class Metrics:
    """The contents of `metrics.json`."""

    mean: ImageMetrics
    """Mean over the scored frames."""
    frames: int
    """Held-out frames that were scored."""
    flagged: int
    """Held-out frames that were not scored because the capture or the track flagged them."""
    landmark_frames: int
    """Frames with a face in both images, over which F-LMD is averaged."""
    perceptual_frames: int
    train_psnr: float
    train_psnr_head: float | None
    interpolated_frames: int
    interpolated: ImageMetrics | None
    """Mean over the frames whose head pose lies inside the training range; None without such frames."""
    extrapolated_frames: int
    extrapolated: ImageMetrics | None
    refitted: ImageMetrics | None
    """Mean over all scored frames with their poses fitted through the avatar (`backend.training.track_by_avatar`); None
    unless requested."""
    jitter: float | None
    """Flicker of a face with a constant expression, pixels; see `backend.training.temporal_stability`."""
    baselines: dict[str, ImageMetrics]
    """By name: `nearest`, `vertex_bound`; empty unless requested."""
    baseline_minutes: float | None
    """Training time of the vertex-bound Gaussians."""
    seconds_per_frame: float
    """Median time from a pose of the track to its image, one frame at a time."""
    megabytes: float
    lpips_network: str | None
    protocol: str
    device: str
    settings: dict[str, Any]
    per_frame: tuple[FrameMetrics, ...]
    relit: ImageMetrics | None = None
    """Mean over all scored frames in the light of their capture (`backend.training.own_light`); None unless
    requested."""
    with_bust: ImageMetrics | None = None
    """Mean over all scored frames of the whole person, in place of head and neck; None where avatar or capture show no
    shoulders."""

    def to_json(self) -> dict[str, Any]:
        """The JSON object: the mean metrics are its first fields, then follow the details."""

        def split(count: int, metrics: ImageMetrics | None) -> dict[str, Any]:
            return {"frames": count, **({} if metrics is None else asdict(metrics))}

        rest = {name: value for name, value in vars(self).items() if name not in _RESHAPED}
        return {
            "schema": SCHEMA,
            **asdict(self.mean),
            **rest,
            "interpolated": split(self.interpolated_frames, self.interpolated),
            "extrapolated": split(self.extrapolated_frames, self.extrapolated),
            "refitted": split(self.frames if self.refitted else 0, self.refitted),
            **({"own_light": split(self.frames, self.relit)} if self.relit else {}),
            **({"with_bust": split(self.frames, self.with_bust)} if self.with_bust else {}),
            "baselines": {name: asdict(metrics) for name, metrics in self.baselines.items()},
            "per_frame": [
                {"frame": f.frame, "extrapolated": f.extrapolated, **asdict(f.metrics)} for f in self.per_frame
            ],
        }

    def __str__(self) -> str:
        """The table that the command line prints."""
        rows = {
            "Effigy": (self.frames, self.mean),
            "  poses as in training": (self.interpolated_frames, self.interpolated),
            "  poses beyond it": (self.extrapolated_frames, self.extrapolated),
            "  tracked by avatar": (self.frames, self.refitted),
            "  in its own light": (self.frames, self.relit),
            "  with its bust": (self.frames, self.with_bust),
        }
        rows |= {BASELINE_NAMES[name]: (self.frames, metrics) for name, metrics in self.baselines.items()}
        lines = [f"{'':<22}{'frames':>8}" + "".join(f"{name:>12}" for name in _COLUMNS)]
        for name, (count, metrics) in rows.items():
            if metrics is not None:
                figures = (getattr(metrics, column) for column in _COLUMNS)
                lines.append(f"{name:<22}{count:>8}" + "".join(f"{format_number(f, 4):>12}" for f in figures))
        lines.append(
            f"On training frames PSNR {self.train_psnr:.2f} dB, in the head {format_number(self.train_psnr_head)}. "
            f"With a constant expression, landmarks jitter by {format_number(self.jitter)} px at 512. "
            f"{1000 * self.seconds_per_frame:.0f} ms a frame on {self.device}, {self.megabytes:.2f} MB. "
            f"{self.flagged} flagged frames left out."
        )
        return "\n".join(lines)


def format_number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
