"""What the commands return: one frozen dataclass for each, with the paths that were written and some figures.

The command line makes sentences of them (`backend.service.sentences`), the worker's jobs make JSON
(`backend.service.job_specs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..avatar.avatar import FilePart
    from ..tracking.after.report import Summary
    from ..training.evaluation import Metrics
    from ..training.slider_scores import SliderScores


# States of the doctor's findings
OK: Final = "ok"
MISSING: Final = "missing"
"""Something optional is absent."""
BROKEN: Final = "broken"
"""Effigy does not work until this is repaired."""


@dataclass(frozen=True)
class CaptureResult:
    capture: Path
    frames: int
    good_frames: int
    """Frames without a flag."""
    size: int
    """Side of the frames, pixels."""
    sound_start: float = 0.0
    """Seconds after the footage's first frame at which its sound begins; negative if it begins before."""
    findings: str = ""
    """What the capture shows and whether it is good for training, in one line."""


@dataclass(frozen=True)
class TrackSummary:
    """How well one capture was tracked."""

    capture: Path
    track: Path
    frames: int
    reliable_frames: int
    """Frames without a flag."""
    residual: float | None
    """Median landmark error of the reliable frames, pixels of `size`; None where there are none."""
    size: int
    """Side of the frames, pixels."""


@dataclass(frozen=True)
class TrackResult:
    tracks: tuple[TrackSummary, ...]
    """One for each capture, in the order of the request."""


@dataclass(frozen=True)
class TrainResult:
    avatar: Path
    gaussians: int
    megabytes: float
    playable: Path | None = None
    """What was baked of an avatar of graph U-Nets; None for another one, and where it could not be baked."""


@dataclass(frozen=True)
class RefineResult:
    capture: Path
    track: Path
    """The refined track."""
    frames: int
    """Frames that were fitted; flagged ones stay as tracked."""
    difference_before: float
    """Mean absolute difference between the avatar's images and the footage, in [0, 1], as tracked."""
    difference: float
    """The same as refined."""


@dataclass(frozen=True)
class BakeResult:
    avatar: Path
    megabytes: float
    decibels: float
    """PSNR of its images against those of the networks, in random poses that were not used."""


@dataclass(frozen=True)
class EvaluateResult:
    metrics_file: Path
    sheet: Path
    """An image that sets predicted frames beside the true ones."""
    metrics: Metrics


@dataclass(frozen=True)
class EvaluateSeveralResult:
    metrics_file: Path
    """The figures of all captures."""
    captures: tuple[EvaluateResult, ...]
    """One for each capture, in the order of the request."""


@dataclass(frozen=True)
class RenderResult:
    avatar: Path
    out: Path
    frames: int
    size: int
    """Side of the frames, pixels."""


@dataclass(frozen=True)
class OrbitResult:
    out: Path
    frames: int
    size: int


@dataclass(frozen=True)
class ExtremesResult:
    out: Path
    heads: int
    scores: SliderScores | None = None
    """Where they were asked for."""


@dataclass(frozen=True)
class ExportResult:
    out: Path
    """The file, or the first one."""
    gaussians: int
    """In the file, or at most in each."""
    frame: int
    files: int = 1


@dataclass(frozen=True)
class PageResult:
    out: Path
    megabytes: float


@dataclass(frozen=True)
class ReportResult:
    out: Path
    summary: Summary


@dataclass(frozen=True)
class OverlayResult:
    out: Path
    frames: int


@dataclass(frozen=True)
class RetargetResult:
    out: Path
    frames: int
    fps: Fraction


@dataclass(frozen=True)
class SpeakResult:
    out: Path
    frames: int
    fps: Fraction


@dataclass(frozen=True)
class LiveResult:
    frames: int
    faces: int
    """Frames that show a face."""
    passed_over: int
    """Frames for which there was no time."""
    seconds: float
    milliseconds: dict[str, tuple[float, ...]]
    """Of each step, for each of the last frames; `whole` is from the camera to the result."""


@dataclass(frozen=True)
class LightResult:
    """The light of a clip, in the camera's OpenCV axes; see `tracking.observe.light_fit.HeadLight`."""

    capture: Path
    lamps: tuple[tuple[float, ...], ...]
    """(K, 3) unit vectors towards the lamps, the strongest first."""
    lamp_colors: tuple[tuple[float, ...], ...]
    """(K, 3) linear colour that each lamp gives average skin that faces it."""
    ambient: tuple[tuple[float, ...], ...]
    """(6, 3) the same of the wide lights."""
    ambient_axes: tuple[tuple[float, ...], ...]
    """(6, 3) unit vectors towards the wide lights."""
    half_angle: float
    """Radians, of the cap that a wide light fills."""
    average: tuple[float, ...]
    """(3,) linear colour of average skin, over all normals that face the camera."""


@dataclass(frozen=True)
class BatchRow:
    """What came of one clip of a batch. A figure is None where the clip did not get so far."""

    clip: str
    state: str
    """`done`, `failed`, `stopped` or `waiting`."""
    frames: int | None = None
    tracked: int | None = None
    """Frames whose track is reliable."""
    minutes: float | None = None
    """Of work, earlier runs of the batch included."""
    psnr: float | None = None
    """On the held-out frames, dB."""
    psnr_head: float | None = None
    """The same, inside the head matte only."""
    megabytes: float | None = None
    """Of the avatar's file."""
    reason: str = ""
    """Why the clip failed."""


@dataclass(frozen=True)
class BatchResult:
    out: Path
    table: Path
    """The rows as a CSV file."""
    rows: tuple[BatchRow, ...]
    """One for each clip, in the order of the sheet."""

    @property
    def failed(self) -> int:
        return sum(row.state != "done" for row in self.rows)


@dataclass(frozen=True)
class Finding:
    """The result of one of the doctor's checks."""

    subject: str
    state: str
    """`OK`, `MISSING` or `BROKEN`."""
    explanation: str


@dataclass(frozen=True)
class DoctorResult:
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class AvatarContents:
    """What an avatar's file contains: the doctor's answer where it is given an avatar."""

    avatar: Path
    gaussians: int
    head_name: str
    metrics: dict[str, object]
    """How the avatar was trained, as the file says it."""
    parts: tuple[FilePart, ...]
    bytes: int


Result = (
    CaptureResult
    | TrackResult
    | TrainResult
    | RefineResult
    | BakeResult
    | EvaluateResult
    | EvaluateSeveralResult
    | RenderResult
    | OrbitResult
    | ExtremesResult
    | ExportResult
    | PageResult
    | ReportResult
    | OverlayResult
    | RetargetResult
    | SpeakResult
    | LiveResult
    | LightResult
    | BatchResult
    | DoctorResult
    | AvatarContents
)
