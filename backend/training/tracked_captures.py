"""The captures that are trained on: their tracks, whether they are of one person, and what tells them from others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import EffigyError
from ..formats.capture import Capture
from ..formats.track import Track, load_track
from ..head.model import same_coefficients
from .checkpoint import CAPTURES
from .pose_refinement import REFINED_TRACK


def load_training_track(capture: Capture, refined: bool) -> Track:
    """The track of a capture, or its REFINED_TRACK. Raises an `EffigyError` where it is missing or does not fit."""
    file = capture.folder / (REFINED_TRACK if refined else "track.npz")
    if refined and not file.exists():
        raise EffigyError(
            f"{capture.folder} has no refined track: train an avatar on it and run `refine` with it first, or train "
            "without --refined."
        )
    track = load_track(file)
    if len(track.flags) != capture.frame_count:
        raise EffigyError(
            f"{file} has {len(track.flags)} frames, the capture has {capture.frame_count}: "
            f"{'refine its track' if refined else 'track the capture'} again."
        )
    return track


def check_one_person(captures: Sequence[Capture], tracks: Sequence[Track]) -> None:
    """Raise an `EffigyError` where a capture is given twice, or its track has another head model or identity than the
    first capture's.
    """
    first, *others = zip(captures, tracks, strict=True)
    remedy = f"track them together, with `python -m backend track {' '.join(str(each.folder) for each in captures)}`."
    for number, (capture, track) in enumerate(others, start=1):
        if any(capture.folder.samefile(other.folder) for other in captures[:number]):
            raise EffigyError(f"{capture.folder} is given twice: name each capture once.")
        if not same_coefficients(track.head_fingerprint, first[1].head_fingerprint):
            raise EffigyError(
                f"{capture.folder} is tracked on the head model “{track.head_name}”, {first[0].folder} on "
                f"“{first[1].head_name}”: {remedy}"
            )
        if not np.array_equal(track.identity, first[1].identity):
            raise EffigyError(
                f"{capture.folder} is tracked with another identity than {first[0].folder}: if they show the same "
                f"person, {remedy}"
            )


def identification(captures: Sequence[Capture]) -> dict[str, object]:
    """The part of a checkpoint's `job` that tells one list of captures from another."""
    if len(captures) == 1:
        return {"capture": captures[0].source_sha256, "frames": captures[0].frame_count}
    # Parts of one film have the film's hash, so their first frames are compared as well.
    return {
        CAPTURES: [[each.source_sha256, each.frame_count, int(each.frame_numbers[0])] for each in captures],
    }
