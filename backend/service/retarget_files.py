"""Retargeting between files.

A capture, a track or a table of ARKit channels drives the head of a capture, a track or an avatar.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import EffigyError
from ..formats.track import Track, load_track, save_track
from ..head.formats import load_head
from ..head.model import HeadModel
from ..head.registry import find_head
from ..progress import Progress
from ..reading import Unlike, check_regular, reading, shown
from ..retargeting.channels import NOUN, READ
from ..retargeting.curves import SUFFIXES, read_performance
from ..retargeting.retarget import retarget
from .requests import RetargetRequest


def retarget_files(request: RetargetRequest, progress: Progress) -> Track:
    """Write the performance, retargeted to the target's head, to `request.out` as a track, and return the track."""
    if request.out.suffix.lower() != ".npz":
        raise EffigyError(
            f"A transferred performance is a track: give a name that ends in .npz, not {request.out.name}."
        )
    performance, performance_head = open_performance(request.performance, progress)
    target, target_head = open_target(request.target)
    made = retarget(
        performance,
        performance_head,
        target,
        target_head,
        intensity=request.intensity,
        smoothing=request.smoothing,
        motion=request.motion,
        fps=request.fps,
    )
    save_track(made, request.out)
    return made


def open_performance(path: Path, progress: Progress) -> tuple[Track, HeadModel]:
    """A performance and the head model that its expression coefficients belong to.

    `path` is a capture folder, a track, or a recording of the 52 ARKit channels.
    """
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        model = load_head()
        return read_performance(path, model, progress), model
    return _open_track(path, "The performance", NOUN, READ)


def open_target(path: Path) -> tuple[Track, HeadModel]:
    """The target's track and head model. `path` is a capture folder, a track or an avatar.

    An avatar's file does not hold its person's neutral face, so the avatar is taken at rest, seen through a portrait
    lens.
    """
    if path.suffix.lower() == ".effigy":
        from ..avatar.avatar import load_avatar
        from ..training.turntable import orbit_track

        avatar = load_avatar(path)
        return orbit_track(avatar, np.zeros(1), np.zeros(1)), avatar.head_model
    return _open_track(path, "The target", "target", "choose a capture, a track (.npz) or an avatar (.effigy)")


def _open_track(path: Path, subject: str, noun: str, remedy: str) -> tuple[Track, HeadModel]:
    """`subject` begins the error sentences; `remedy` lists the files that are read."""
    if path.is_dir():
        path = path / "track.npz"
    elif path.suffix.lower() != ".npz":
        with reading(path, noun, remedy):
            check_regular(path, noun)
            raise Unlike(f"its name ends in {shown(path.suffix) or 'nothing'}", remedy)
    track = load_track(path)
    return track, find_head(track.head_name, track.head_fingerprint, subject)
