"""How far a track can be trusted, as one picture: its worst frames, its curves, and which frames are left out and why."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.transform import Rotation

from ...errors import EffigyError
from ...formats.capture import FLAG_REASONS, Capture, FrameFlag, reasons_for
from ...formats.image_files import write_png
from ...formats.track import Track
from ...head.model import JAW, NECK, HeadModel
from ...progress import SILENT, Progress
from ...storage import write_beside
from .overlay import TrackedHead, captioned, check_fits, overlaid, tracked_landmarks
from .residuals import UNSURE_PIXELS

WIDTH: Final = 1680
SHOWN, TILE = 5, 320
"""Frames in a row and the side of each, pixels."""
PLOT: Final = 170
MARGIN: Final = 48
_INK, _FAINT, _PAPER = (35, 38, 42), (205, 208, 212), (252, 252, 250)
_COLOURS = ((196, 64, 40), (40, 120, 190), (70, 150, 70), (150, 90, 170))
_FLAG_COLOURS = {
    FrameFlag.NO_FACE: (60, 60, 60),
    FrameFlag.SEVERAL_FACES: (150, 90, 170),
    FrameFlag.CUT_OFF: (230, 170, 40),
    FrameFlag.TRACK_UNSURE: (196, 64, 40),
}


@dataclass(frozen=True)
class Summary:
    frames: int
    training: int
    """Frames of the training part that training may see."""
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
        return (
            f"{self.frames} frames, {self.left_out} left out"
            + (f" ({reasons})" if reasons else "")
            + f"; the others lie typically {self.median:.2f} px from the detector's "
            f"landmarks; training sees {self.training}."
        )


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
    """A PNG. The tracked head over the frames it explains worst, and over some that are left out; over time the landmark
    error, the head's turns, the jaw and the lids; at the foot, every run of frames that is left out, and why.
    """
    if Path(out).suffix.lower() != ".png":
        raise EffigyError(f"A report is a picture: give a name that ends in .png, not {Path(out).name}.")
    check_fits(capture, track)
    summary = summarise(track)
    head, tracked = TrackedHead(track, model), tracked_landmarks(track, model)
    bands = [_title(capture, summary)]
    rows = (
        ("The frames that are explained worst, of those in use", _apart(summary.worst, track.frame_count)),
        ("Left out", _some_left_out(track)),
    )
    for title, chosen in rows:
        if chosen:
            progress.raise_if_cancelled()
            tiles = []
            for index in chosen:
                tiles.append(captioned(overlaid(capture, head, tracked, index, TILE), index, track))
            bands.append(_strip(title, tiles))
            progress.update("report", len(bands), 8)
    turns = Rotation.from_matrix(track.head_to_camera[:, :3, :3]) * Rotation.from_rotvec(track.rotations[:, NECK])
    # Seen from the camera, which looks along +z with y down: an upright face is turned by half a turn about x.
    angles = np.rad2deg((Rotation.from_euler("x", np.pi) * turns).as_euler("YXZ"))
    limit = UNSURE_PIXELS * track.size / 512
    bands.append(
        _plot(
            "Landmark error, pixels; frames above the line are left out",
            track,
            [("median of a frame", track.residual)],
            (0, max(1.3 * limit, _highest(track.residual))),
            limit,
        )
    )
    bands.append(
        _plot(
            "The head, degrees",
            track,
            list(zip(("to its left", "down", "to its right shoulder"), angles.T, strict=True)),
            _span(angles),
        )
    )
    face = [("jaw, degrees / 30", np.rad2deg(track.rotations[:, JAW, 0]) / 30)]
    face += [
        (name, track.expression[:, model.expression_names.index(name)])
        for name in ("eyeBlinkLeft", "eyeBlinkRight")
        if name in model.expression_names
    ]
    bands.append(_plot("Jaw and lids; 1 is shut lids", track, face, (-0.1, 1.1)))
    if track.sigma is not None:
        bands.append(
            _plot("How far it may be off: one standard deviation, degrees", track, uncertainty(track), (0, 12))
        )
    bands.append(_runs(track))
    with write_beside(Path(out)) as temporary:
        write_png(temporary, np.concatenate(bands))
    progress.update("report", 8, 8)
    return summary


def uncertainty(track: Track) -> list[tuple[str, np.ndarray]]:
    """(F,) degrees of the head's turn, the eyes and the jaw, each in the direction that is known least."""
    assert track.sigma is not None, "asked only of tracks that have it"
    degrees = np.rad2deg(track.sigma)
    return [
        ("the head", degrees[:, -6:-3].max(1)),
        ("the eyes", degrees[:, -10:-6].max(1)),
        ("the jaw", degrees[:, -13:-10].max(1)),
    ]


def _apart(order: tuple[int, ...], frames: int) -> list[int]:
    """The first few that are not neighbours: one bad moment is enough of itself."""
    chosen: list[int] = []
    for index in order:
        if all(abs(index - other) > frames // 40 for other in chosen):
            chosen.append(index)
        if len(chosen) == SHOWN:
            break
    return chosen


def _some_left_out(track: Track) -> list[int]:
    flagged = np.flatnonzero(track.flags)
    return (
        []
        if len(flagged) == 0
        else sorted(set(flagged[np.linspace(0, len(flagged) - 1, SHOWN).round().astype(int)].tolist()))
    )


def _band(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (WIDTH, height), _PAPER)
    return image, ImageDraw.Draw(image)


def _title(capture: Capture, summary: Summary) -> np.ndarray:
    image, draw = _band(86)
    draw.text((MARGIN, 16), f"Track of {capture.source_name}", _INK, ImageFont.load_default(26))
    draw.text((MARGIN, 54), str(summary), _INK, ImageFont.load_default(17))
    return np.asarray(image)


def _strip(title: str, tiles: list[np.ndarray]) -> np.ndarray:
    image, draw = _band(TILE + 40)
    draw.text((MARGIN, 6), title, _INK, ImageFont.load_default(17))
    for column, tile in enumerate(tiles):
        image.paste(Image.fromarray(tile), (MARGIN // 2 + column * (TILE + 6), 32))
    return np.asarray(image)


def _plot(
    title: str, track: Track, curves: list[tuple[str, np.ndarray]], span: tuple[float, float], line: float | None = None
) -> np.ndarray:
    image, draw = _band(PLOT + 58)
    small, top, right = ImageFont.load_default(13), 34, WIDTH - MARGIN
    draw.text((MARGIN, 6), title, _INK, ImageFont.load_default(17))
    x = (MARGIN + np.arange(track.frame_count) / max(1, track.frame_count - 1) * (right - MARGIN)).tolist()
    low, high = span

    def y(value: float) -> float:
        return float(top + PLOT - (np.clip(value, low, high) - low) / (high - low) * PLOT)

    for index in np.flatnonzero(track.flags):
        colour = next((_FLAG_COLOURS[flag] for flag in _FLAG_COLOURS if track.flags[index] & flag), _FAINT)
        pale = tuple(round(0.75 * 250 + 0.25 * part) for part in colour)
        wide = (right - MARGIN) / max(1, track.frame_count - 1) / 2
        draw.rectangle((x[index] - wide, top, x[index] + wide, top + PLOT), fill=pale)
    if 0 < track.training_count < track.frame_count:
        held = x[track.training_count] - 1
        draw.line((held, top, held, top + PLOT), fill=_INK)
        draw.text((held + 4, top + 2), "held out", _INK, small)
    for value in np.linspace(low, high, 5):
        draw.line((MARGIN, y(value), right, y(value)), fill=_FAINT)
        draw.text((MARGIN - 6, y(value)), f"{value:.3g}", _INK, small, anchor="rm")
    if line is not None:
        draw.line((MARGIN, y(line), right, y(line)), fill=_COLOURS[0])
    for number, (name, values) in enumerate(curves):
        colour = _COLOURS[(number + (line is not None)) % len(_COLOURS)]
        for known, run in groupby(range(len(values)), key=lambda index: bool(np.isfinite(values[index]))):
            places = list(run)
            if known and len(places) > 1:
                draw.line([(x[index], y(values[index])) for index in places], fill=colour, width=2)
        place = right - 190 * (len(curves) - number)
        draw.line((place, 17, place + 16, 17), fill=colour, width=2)
        draw.text((place + 22, 9), name, colour, small)
    for index in np.linspace(0, track.frame_count - 1, 9).round().astype(int):
        draw.text((x[index], top + PLOT + 12), str(index), _INK, small, anchor="mm")
    return np.asarray(image)


def _runs(track: Track) -> np.ndarray:
    """What is left out, in words, run by run."""
    lines = []
    for value, run in groupby(enumerate(track.flags.tolist()), key=lambda pair: pair[1]):
        places = [index for index, _ in run]
        if value:
            where = f"{places[0]}" if len(places) == 1 else f"{places[0]} to {places[-1]}"
            lines.append(f"{where}: {reasons_for(value)}")
    shown = lines[:24] + ([f"and {len(lines) - 24} more runs"] if len(lines) > 24 else [])
    shown = shown or ["No frame is left out."]
    image, draw = _band(36 + 20 * -(-len(shown) // 4))
    for number, text in enumerate(shown):
        place = (MARGIN + (number % 4) * (WIDTH - 2 * MARGIN) / 4, 10 + 20 * (number // 4))
        draw.text(place, text, _INK, ImageFont.load_default(14))
    return np.asarray(image)


def _highest(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else 0.0


def _span(values: np.ndarray) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low - 0.05 * (high - low) - 1, high + 0.05 * (high - low) + 1
