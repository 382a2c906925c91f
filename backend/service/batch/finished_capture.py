"""A clip whose sheet names a finished capture instead of footage."""

from __future__ import annotations

import shutil
from typing import Any

from ...storage import write_beside
from .sheet import Clip
from .stages import CAPTURE, TRACK, ClipFiles


def take_over(clip: Clip, stage: str, files: ClipFiles) -> dict[str, Any] | None:
    """The figures of a stage that is finished because the sheet names a finished capture; None for any other stage.

    The capture is copied, because tracking and training write into it.
    """
    if clip.capture is None or stage not in (CAPTURE, TRACK):
        return None
    from ...formats.capture import load_capture, unchanged
    from ...formats.track import load_track

    if stage == TRACK:
        if clip.head or not files.track.is_file():
            return None
        flags = load_track(files.track).flags
        return {"frames": len(flags), "tracked": int((flags == 0).sum())}
    source = load_capture(clip.capture)
    with write_beside(files.capture) as temporary, unchanged(source), unchanged(source, "head_mattes"):
        temporary.mkdir()
        for name in ("capture.json", "landmarks.npz", "track.npz"):
            if (path := source.folder / name).is_file():
                shutil.copyfile(path, temporary / name)
        # By the names that a capture has: nothing else in the folder is copied, and no name comes from a file.
        for path_of in (source.frame_path, source.matte_path, source.head_matte_path, source.body_matte_path):
            paths = [path_of(index) for index in range(source.frame_count)]
            for path in paths:
                (temporary / path.parent.name).mkdir(exist_ok=True)
                if path.is_file():
                    shutil.copyfile(path, temporary / path.parent.name / path.name)
    return {"frames": source.frame_count}
