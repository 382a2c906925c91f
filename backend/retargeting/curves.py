"""Reading performances that other programs than Live Link Face write, with ARKit's channels by name.

- Audio2Face (NVIDIA), JSON: `exportFps`, `facsNames`, `weightMat`, a row of weights for each frame. Its own solver has
  other names than ARKit's (`innerBrowRaiser`); such an export is refused with its names.
- LAM Audio2Expression, JSON: `names`, and `frames` with `weights` and `time`; `metadata.fps`, else the times tell it.
- Face Cap (Bannaflak), text: rows that begin with `info`, `bs` (the channels' names) and `k`: milliseconds, the head's
  position (3) and rotation (3 degrees), the eyes' rotations (2 + 2 degrees), and the channels. Which way its head turns
  is not documented, so the head's and the eyes' rotations are left out; the gaze comes from the eyeLook channels.

Sources: the importers of openfacefx (`a2f`), import_daz (`facecap.py`) and Faceit, which agree with one another.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..formats.track import Track
from ..head.model import HeadModel
from ..progress import SILENT, Progress
from ..reading import Damaged, Unlike, frame_rate_of, parse_json, read_text, reading
from .channels import MOST_FRAMES, NOUN, READ, REMEDY, Recording, check_names, check_range, columns_of, track_of
from .livelink import read_livelink
from .timecodes import DEFAULT_RATE, times_of

SUFFIXES: Final = (".csv", ".tsv", ".txt", ".json")
"""Of files that may hold ARKit's channels."""
MOST_BYTES: Final = 64 * 2**20
"""Of a JSON or a Face Cap recording: half an hour of 52 channels at 60 frames a second with five digits each."""


def read_performance(path: Path, model: HeadModel, progress: Progress = SILENT) -> Track:
    """The performance in a file of one of `SUFFIXES` as a track of `model`, which must have the 52 ARKit names."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        with reading(path, NOUN, REMEDY):
            recording = _of_json(parse_json(read_text(path, NOUN, REMEDY, MOST_BYTES)), progress)
            check_range(recording.channels)
        return track_of(recording, model, path, progress)
    if suffix == ".txt" and _is_face_cap(path):
        with reading(path, NOUN, REMEDY):
            recording = _of_face_cap(read_text(path, NOUN, REMEDY, MOST_BYTES).splitlines(), progress)
            check_range(recording.channels)
        progress.message(f"{path.name} is a Face Cap recording: the turns of its head and eyes are not taken over.")
        return track_of(recording, model, path, progress)
    return read_livelink(path, model, progress)


def _of_json(content: Any, progress: Progress) -> Recording:
    if isinstance(content, dict) and {"facsNames", "weightMat"} <= content.keys():
        rate = content.get("exportFps", content.get("fps"))
        return _recording(content["facsNames"], content["weightMat"], rate, progress)
    if isinstance(content, dict) and {"names", "frames"} <= content.keys():
        frames = content["frames"]
        rate = (content.get("metadata") or {}).get("fps")
        if rate is None and len(frames) > 1 and all("time" in frame for frame in frames):
            found = times_of([str(frame["time"]) for frame in frames], progress)
            rate = found and float(found[1])
        return _recording(content["names"], [frame["weights"] for frame in frames], rate, progress)
    listed = ", ".join(map(str, content))[:120] if isinstance(content, dict) else "no channels"
    raise Unlike(f"it holds {listed or 'nothing'}", READ)


def _recording(names: Any, rows: Any, rate: object, progress: Progress) -> Recording:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Damaged("its channels have no names")
    check_names(names)
    if not isinstance(rows, list) or not 2 <= len(rows) <= MOST_FRAMES:
        raise Damaged(f"it has {len(rows) if isinstance(rows, list) else 'no'} frames")
    if rate is None:
        progress.message(f"The performance does not say its rate: its rows are taken as {DEFAULT_RATE} a second.")
        rate = float(DEFAULT_RATE)
    try:
        values, fps = np.array(rows, np.float64), frame_rate_of(float(str(rate)))
    except ValueError as error:
        raise Damaged("its weights or its frame rate are no numbers") from error
    if values.shape != (len(rows), len(names)) or not np.isfinite(values).all():
        raise Damaged("its weights are not as many in each frame as there are names")
    fps = fps.limit_denominator(1001)
    return _with(values, columns_of(names), np.arange(len(rows)) / float(fps), fps)


def _with(values: np.ndarray, columns: dict[int | str, int], times: np.ndarray, rate: Fraction) -> Recording:
    channels = np.full((len(values), len(SCORE_NAMES)), np.nan)
    for key, column in columns.items():
        if isinstance(key, int):
            channels[:, key] = values[:, column]
    unknown = np.full((len(values), 4), np.nan)
    return Recording(times, rate, channels, unknown[:, :3], unknown.reshape(-1, 2, 2))


def _is_face_cap(path: Path) -> bool:
    with reading(path, NOUN, REMEDY):
        beginning = read_text(path, NOUN, REMEDY, MOST_BYTES)[:20_000] if path.stat().st_size <= MOST_BYTES else ""
    return any(line.startswith("bs,") for line in beginning.splitlines()[:20])


def _of_face_cap(lines: list[str], progress: Progress) -> Recording:
    names: list[str] = []
    keys: list[list[str]] = []
    for line in lines:
        kind, _, rest = line.strip().partition(",")
        if kind == "bs":
            names = rest.split(",")
        elif kind == "k":
            keys.append(rest.split(","))
    check_names(names)
    if not 2 <= len(keys) <= MOST_FRAMES:
        raise EffigyError(f"A Face Cap recording needs from 2 to {MOST_FRAMES} frames, and this one has {len(keys)}.")
    if any(len(key) != 11 + len(names) for key in keys):
        raise Damaged("its frames do not have as many numbers as there are channels")
    try:
        values = np.array(keys, np.float64)
    except ValueError as error:
        raise Damaged("it holds text where numbers should be") from error
    if not np.isfinite(values).all():
        raise Damaged("it holds numbers that are not finite")
    found = times_of([f"{time / 1000:.4f}" for time in values[:, 0]], progress)
    times, rate = found or (np.arange(len(keys)) / float(DEFAULT_RATE), DEFAULT_RATE)
    return _with(values[:, 11:], columns_of(names), times, rate)
