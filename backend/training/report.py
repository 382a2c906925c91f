"""What an evaluation found: the contents of `metrics.json`, and the table that the command line prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .metrics import PictureMetrics

SCHEMA = 1

BASELINE_NAMES = {"nearest": "nearest frame", "vertex_bound": "vertex-bound"}
_COLUMNS = ("psnr", "psnr_head", "psnr_inner", "ssim", "vgg_hed", "lpips", "f_lmd", "sd")
_RESHAPED = {
    "mean",
    "interpolated_frames",
    "interpolated",
    "extrapolated_frames",
    "extrapolated",
    "baselines",
    "per_frame",
    "refitted_frames",
    "refitted",
    "refitted_as_tracked",
}


@dataclass(frozen=True)
class FrameMetrics:
    frame: int
    extrapolated: bool
    """The head's pose lies outside the training range."""
    metrics: PictureMetrics


@dataclass(frozen=True)
class Metrics:
    """What `metrics.json` holds."""

    mean: PictureMetrics
    """Over the scored frames."""
    frames: int
    """Held-out frames that were scored."""
    flagged: int
    """Held-out frames left out because capture or track flagged them."""
    landmark_frames: int
    """Frames in which a face was found in both pictures, so that F-LMD counts them."""
    perceptual_frames: int
    train_psnr: float
    train_psnr_head: float | None
    interpolated_frames: int
    interpolated: PictureMetrics | None
    """Over those frames whose head pose lies inside the training range; None where there are none."""
    extrapolated_frames: int
    extrapolated: PictureMetrics | None
    refitted_frames: int
    refitted: PictureMetrics | None
    """Over some frames with the pose fitted again at test time; None unless asked for."""
    refitted_as_tracked: PictureMetrics | None
    """The same frames as tracked."""
    jitter: float | None
    """How much a face that holds still trembles; see `backend.training.temporal_stability`."""
    baselines: dict[str, PictureMetrics]
    """By name: `nearest`, `vertex_bound`; empty unless asked for."""
    baseline_minutes: float | None
    """How long the vertex-bound Gaussians were trained."""
    seconds_per_frame: float
    """From the track's pose to the picture, one frame at a time; the median."""
    megabytes: float
    lpips_network: str | None
    protocol: str
    device: str
    settings: dict[str, Any]
    per_frame: tuple[FrameMetrics, ...]

    def to_json(self) -> dict[str, Any]:
        """The means stand at the top, as the documented fields; what explains them follows."""

        def split(count: int, metrics: PictureMetrics | None) -> dict[str, Any]:
            return {"frames": count, **({} if metrics is None else asdict(metrics))}

        rest = {name: value for name, value in vars(self).items() if name not in _RESHAPED}
        return {
            "schema": SCHEMA,
            **asdict(self.mean),
            **rest,
            "interpolated": split(self.interpolated_frames, self.interpolated),
            "extrapolated": split(self.extrapolated_frames, self.extrapolated),
            "refitted": split(self.refitted_frames, self.refitted),
            "refitted_as_tracked": split(self.refitted_frames, self.refitted_as_tracked),
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
        }
        rows |= {
            "  some, as tracked": (self.refitted_frames, self.refitted_as_tracked),
            "  the same, refitted": (self.refitted_frames, self.refitted),
        }
        rows |= {BASELINE_NAMES[name]: (self.frames, metrics) for name, metrics in self.baselines.items()}
        lines = [f"{'':<22}{'frames':>8}" + "".join(f"{name:>12}" for name in _COLUMNS)]
        for name, (count, metrics) in rows.items():
            if metrics is not None:
                figures = (getattr(metrics, column) for column in _COLUMNS)
                lines.append(f"{name:<22}{count:>8}" + "".join(f"{figure(f, 4):>12}" for f in figures))
        lines.append(
            f"On training frames PSNR {self.train_psnr:.2f} dB, in the head {figure(self.train_psnr_head)}. "
            f"Held still, landmarks tremble by {figure(self.jitter)} px at 512. "
            f"{1000 * self.seconds_per_frame:.0f} ms a frame on {self.device}, {self.megabytes:.2f} MB. "
            f"{self.flagged} flagged frames left out."
        )
        return "\n".join(lines)


def figure(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
