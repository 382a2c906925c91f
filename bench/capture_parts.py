"""Parts of a tracked capture as captures of their own, for trainings on several captures whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from backend.formats.capture import Capture, save_capture
from backend.formats.track import Track, save_track


def make_part(
    capture: Capture,
    track: Track,
    shown: slice | np.ndarray,
    folder: Path,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[Capture, Track]:
    """Write the frames `shown` (a slice, or indices) of a tracked capture as a capture of their own, into the new
    `folder`. `change` makes other colours of (H, W, 3) RGB in [0, 1].
    """
    which = np.arange(capture.frame_count)[shown]
    arrays = ("frame_numbers", "frame_times", "landmarks", "scores", "detector_pose", "flags")
    part = replace(capture, folder=folder, seen={}, **{name: getattr(capture, name)[which] for name in arrays})
    for name in ("frames", "mattes", "head_mattes"):
        (folder / name).mkdir(parents=True)
    for new, old in enumerate(which.tolist()):
        image = cv2.imread(str(capture.frame_path(old)))
        if change:
            image = (change(image[..., ::-1] / 255.0)[..., ::-1].clip(0, 1) * 255).round().astype(np.uint8)
        cv2.imwrite(str(part.frame_path(new)), image)
        for path in ("matte_path", "head_matte_path"):
            getattr(part, path)(new).write_bytes(getattr(capture, path)(old).read_bytes())
    posed = ("expression", "rotations", "head_to_camera", "residual", "flags")
    own = replace(
        track,
        training_count=part.training_count,
        sigma=None,
        frame_times=None,
        **{name: getattr(track, name)[which] for name in posed},
    )
    save_capture(part)
    save_track(own, folder / "track.npz")
    return part, own
