"""How far a track can be trusted, as one image: its worst frames, its curves, and which frames are left out and why."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Final, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.spatial.transform import Rotation

from ...errors import EffigyError
from ...formats.capture import FLAG_REASONS, Capture, FrameFlag, findings_in, reasons_for
from ...formats.image_files import write_png
from ...formats.track import Track
from ...head.model import JAW, NECK, HeadModel
from ...progress import SILENT, Progress
from ...storage import write_beside
from ..model.parameter_layout import ParameterLayout
from .overlay import TrackedHead, captioned, check_fits, overlaid, tracked_landmarks
from .residuals import UNSURE_PIXELS

_DPI: Final = 100
_WIDTH: Final = 16.8
"""Inches of the whole report."""
_SHOWN: Final = 5
"""Frames in a row."""
_TILE: Final = 320
"""Pixels of a shown frame's side."""
_TITLE_HEIGHT, _LINE_HEIGHT, _TILES_HEIGHT, _CHART_HEIGHT, _RUN_HEIGHT = 0.68, 0.22, 3.5, 2.2, 0.2
"""Inches of the report's rows; `_LINE_HEIGHT` for each line below the title, and the last one for each line of the list
of left-out frames."""
_LINE: Final = 190
"""Characters of a line below the title."""
_RUN_COLUMNS, _MAX_RUNS = 4, 24
_FLAG_COLOURS: Final = {
    FrameFlag.NO_FACE: "#3c3c3c",
    FrameFlag.SEVERAL_FACES: "#965aaa",
    FrameFlag.CUT_OFF: "#e6aa28",
    FrameFlag.TRACK_UNSURE: "#c44028",
}
_CURVE_COLOURS: Final = ("#2878be", "#46964a", "#965aaa")


@dataclass(frozen=True)
class Summary:
    """The figures of a report."""

    frames: int
    training: int
    """Frames of the training part that training may use."""
    left_out: int
    """Frames of the whole clip that are flagged."""
    reasons: dict[str, int]
    """How many frames each reason holds for; a frame may have several."""
    median: float
    """Pixels at the capture's size, over the frames that are not left out."""
    worst: tuple[int, ...]
    """Frames that are not left out, the largest error first."""

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {word}" for word, count in self.reasons.items())
        left_out = f"{self.left_out} left out" + (f" ({reasons})" if reasons else "")
        return (
            f"{self.frames} frames, {left_out}; in the others the head typically lies {self.median:.2f} px beside the "
            f"detector's landmarks; training uses {self.training}."
        )


@dataclass(frozen=True)
class _Chart:
    """One chart over time."""

    title: str
    curves: list[tuple[str, np.ndarray]]
    """Names and values (F,); NaN leaves a gap."""
    span: tuple[float, float]
    """The range of the vertical axis."""
    limit: float | None = None
    """A value to mark by a line."""


def summarise(track: Track) -> Summary:
    good = track.flags == 0
    reasons = {word: int(((track.flags & flag) != 0).sum()) for flag, word in FLAG_REASONS.items()}
    error = np.where(good, np.nan_to_num(track.residual), -1)
    order = np.argsort(-error, kind="stable")
    return Summary(
        track.frame_count,
        int(good[: track.training_count].sum()),
        int((~good).sum()),
        {word: count for word, count in reasons.items() if count},
        float(np.nanmedian(track.residual[good])) if good.any() else float("nan"),
        tuple(int(index) for index in order if error[index] >= 0),
    )


def write_report(
    capture: Capture, track: Track, model: HeadModel, out: Path, *, progress: Progress = SILENT
) -> Summary:
    """Write the report as a PNG.

    At the top, the tracked head over the frames that it fits worst and over some that are left out. In the middle,
    curves over time: landmark error, head rotation, jaw and eyelids, and uncertainty. At the bottom, every run of
    frames that is left out, and why.
    """
    if Path(out).suffix.lower() != ".png":
        raise EffigyError(f"A report is an image: give a name that ends in .png, not {Path(out).name}.")
    check_fits(capture, track)
    summary = summarise(track)
    strips = []
    head, tracked = TrackedHead(track, model), tracked_landmarks(track, model)
    for title, chosen in (
        ("Frames in use that the head fits worst", _spread_out(summary.worst, track.frame_count)),
        ("Left out", _some_left_out(track)),
    ):
        if chosen:
            progress.raise_if_cancelled()
            tiles = [captioned(overlaid(capture, head, tracked, index, _TILE), index, track) for index in chosen]
            strips.append((title, tiles))
            progress.update("report", len(strips), 4)
    said = [line for text in (findings_in(capture.folder), str(summary)) for line in wrap(text, _LINE)]
    image = _draw(capture, said, strips, _charts(track, model), track)
    with write_beside(Path(out), durable=False) as temporary:
        write_png(temporary, image)
    progress.update("report", 4, 4)
    return summary


def _charts(track: Track, model: HeadModel) -> list[_Chart]:
    rotation = Rotation.from_matrix(track.head_to_camera[:, :3, :3])
    rotation = rotation * Rotation.from_rotvec(track.rotations[:, NECK])
    # Seen from the camera, which looks along +z with y down, an upright face is rotated by half a turn about x.
    angles = np.rad2deg((Rotation.from_euler("x", np.pi) * rotation).as_euler("YXZ"))
    limit = UNSURE_PIXELS * track.size / 512
    highest = float(np.nanmax(track.residual)) if np.isfinite(track.residual).any() else 0.0
    margin = 0.05 * float(np.ptp(angles)) + 1
    face = [("jaw opening, degrees / 30", np.rad2deg(track.rotations[:, JAW, 0]) / 30)]
    for name, words in (("eyeBlinkLeft", "left eyelids"), ("eyeBlinkRight", "right eyelids")):
        if name in model.expression_names:
            face.append((words, track.expression[:, model.expression_names.index(name)]))
    charts = [
        _Chart(
            "Distance from the landmarks, pixels; left out above the line",
            [("median of each frame", track.residual)],
            (0, max(1.3 * limit, highest)),
            limit,
        ),
        _Chart(
            "Head rotation, degrees",
            list(zip(("to its left", "down", "tilted to its right"), angles.T, strict=True)),
            (float(angles.min()) - margin, float(angles.max()) + margin),
        ),
        _Chart("Jaw and eyelids; eyelids are closed at 1", face, (-0.1, 1.1)),
    ]
    if track.sigma is not None:
        charts.append(_Chart("Uncertainty: one standard deviation, degrees", uncertainty(track.sigma), (0, 12)))
    return charts


def uncertainty(sigma: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(F,) degrees for head rotation, eyes and jaw, each in its least certain direction, from `Track.sigma`."""
    degrees, layout = np.rad2deg(sigma), ParameterLayout(sigma.shape[1] - 13)
    return [
        ("head", degrees[:, layout.rotation].max(1)),
        ("eyes", degrees[:, layout.eyes].max(1)),
        ("jaw", degrees[:, layout.jaw].max(1)),
    ]


def _spread_out(order: tuple[int, ...], frames: int) -> list[int]:
    """The first few frames of `order` that are not near each other: one bad moment is shown once."""
    chosen: list[int] = []
    for index in order:
        if all(abs(index - other) > frames // 40 for other in chosen):
            chosen.append(index)
        if len(chosen) == _SHOWN:
            break
    return chosen


def _some_left_out(track: Track) -> list[int]:
    flagged = np.flatnonzero(track.flags)
    if len(flagged) == 0:
        return []
    return sorted(set(flagged[np.linspace(0, len(flagged) - 1, _SHOWN).round().astype(int)].tolist()))


def _runs(track: Track) -> list[str]:
    """Every run of frames that is left out, and why, one line each."""
    lines = []
    for value, run in groupby(enumerate(track.flags.tolist()), key=lambda pair: pair[1]):
        frames = [index for index, _ in run]
        if value:
            where = f"{frames[0]}" if len(frames) == 1 else f"{frames[0]} to {frames[-1]}"
            lines.append(f"{where}: {reasons_for(value)}")
    shown = lines[:_MAX_RUNS] + ([f"and {len(lines) - _MAX_RUNS} more"] if len(lines) > _MAX_RUNS else [])
    return shown or ["No frame is left out."]


def _draw(
    capture: Capture,
    said: list[str],
    strips: list[tuple[str, list[np.ndarray]]],
    charts: list[_Chart],
    track: Track,
) -> np.ndarray:
    """The whole report, (H, W, 3) uint8 RGB."""
    runs = _runs(track)
    runs_height = 0.3 + _RUN_HEIGHT * -(-len(runs) // _RUN_COLUMNS)
    title_height = _TITLE_HEIGHT + _LINE_HEIGHT * len(said)
    heights = [title_height, *[_TILES_HEIGHT] * len(strips), _CHART_HEIGHT * len(charts), runs_height]
    figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=_DPI, facecolor="#fcfcfa", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    rows = cast("list[SubFigure]", figure.subfigures(len(heights), 1, height_ratios=heights))
    for row in rows:
        row.set_facecolor("none")
    rows[0].text(0.02, 1 - 0.34 / title_height, f"Track of {capture.source_name}", fontsize=19, va="center")
    rows[0].text(0.02, 1 - 0.6 / title_height, "\n".join(said), fontsize=11.5, va="top")
    for row, (title, tiles) in zip(rows[1:], strips, strict=False):
        row.suptitle(title, x=0.02, ha="left", fontsize=12)
        for axes, tile in zip(row.subplots(1, _SHOWN), [*tiles, *[None] * (_SHOWN - len(tiles))], strict=True):
            axes.set_axis_off()
            if tile is not None:
                axes.imshow(tile, interpolation="lanczos")
    for axes, chart in zip(np.ravel(rows[-2].subplots(len(charts), 1)), charts, strict=True):
        _draw_chart(axes, chart, track)
    for number, line in enumerate(runs):
        x = 0.02 + 0.245 * (number % _RUN_COLUMNS)
        y = 1 - (0.2 + _RUN_HEIGHT * (number // _RUN_COLUMNS)) / runs_height
        rows[-1].text(x, y, line, fontsize=9.5, va="center")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_chart(axes: Axes, chart: _Chart, track: Track) -> None:
    frames = np.arange(track.frame_count)
    unshaded = np.ones(track.frame_count, bool)
    for flag, colour in _FLAG_COLOURS.items():
        # A frame with several flags gets the colour of the first one.
        shaded = unshaded & (track.flags & flag != 0)
        unshaded &= ~shaded
        for first, end in np.flatnonzero(np.diff(np.pad(shaded.astype(np.int8), 1))).reshape(-1, 2):
            axes.axvspan(first - 0.5, end - 0.5, color=colour, alpha=0.25, lw=0)
    for (name, values), colour in zip(chart.curves, _CURVE_COLOURS, strict=False):
        axes.plot(frames, np.clip(values, *chart.span), color=colour, lw=1.4, label=name)
    if chart.limit is not None:
        axes.axhline(chart.limit, color=_FLAG_COLOURS[FrameFlag.TRACK_UNSURE], lw=1)
    if 0 < track.training_count < track.frame_count:
        start = track.training_count - 0.5
        axes.axvline(start, color="#232629", lw=1)
        axes.annotate(
            "held out", (start, 1), (4, -12), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=9
        )
    axes.set_xlim(-0.5, max(track.frame_count - 0.5, 0.5))
    axes.set_ylim(*chart.span)
    axes.set_title(chart.title, loc="left", fontsize=12)
    axes.grid(axis="y", color="#cdd0d4", lw=0.7)
    axes.tick_params(labelsize=9, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    handles: list[Line2D | Patch] = [*axes.get_lines()[: len(chart.curves)]]
    for flag, colour in _FLAG_COLOURS.items():
        if (track.flags & flag).any():
            handles.append(Patch(color=colour, alpha=0.25, label=FLAG_REASONS[flag]))
    axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(handles), fontsize=9, frameon=False
    )
