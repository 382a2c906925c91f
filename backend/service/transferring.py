"""Performance and target as files, for `retarget`: whatever holds a performance drives whatever holds a head."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import EffigyError
from ..formats.track import Track, load_track, save_track
from ..head.formats import load_head
from ..head.model import HeadModel
from ..head.registry import find_head
from ..progress import Progress
from ..retargeting.livelink import read_livelink
from ..retargeting.retarget import retarget


def transfer(
    performance: Path,
    target: Path,
    out: Path,
    *,
    intensity: float,
    smoothing: float,
    motion: float,
    fps: Fraction | None,
    progress: Progress,
) -> Track:
    """Write the performance on the target's head to `out`, a track."""
    if out.suffix.lower() != ".npz":
        raise EffigyError(f"A transferred performance is a track: give a name that ends in .npz, not {out.name}.")
    given, performer = open_performance(performance, progress)
    theirs, model = open_target(target)
    made = retarget(given, performer, theirs, model, intensity=intensity, smoothing=smoothing, motion=motion, fps=fps)
    save_track(made, out)
    return made


def open_performance(path: Path, progress: Progress) -> tuple[Track, HeadModel]:
    """A capture, a track or a CSV of the 52 ARKit channels, and the head model that it is told in."""
    if path.suffix.lower() == ".csv":
        model = load_head()
        return read_livelink(path, model, progress), model
    return _tracked(path, "The performance")


def open_target(path: Path) -> tuple[Track, HeadModel]:
    """A capture, a track or an avatar. An avatar's file says nothing of its person's neutral face: it is taken at rest,
    before a portrait lens."""
    if path.suffix.lower() == ".effigy":
        from ..avatar.avatar import load_avatar
        from ..training.turntable import track_around

        avatar = load_avatar(path)
        return track_around(avatar, np.zeros(1), np.zeros(1)), avatar.head_model
    return _tracked(path, "The target")


def _tracked(path: Path, what: str) -> tuple[Track, HeadModel]:
    if path.is_dir():
        path = path / "track.npz"
    elif path.suffix.lower() != ".npz":
        raise EffigyError(
            f"{what} {path} is not known: give a capture, a track (.npz)"
            + (", an avatar (.effigy)." if "target" in what else " or a Live Link Face table (.csv).")
        )
    track = load_track(path)
    return track, find_head(track.head_name, track.head_fingerprint, what)
