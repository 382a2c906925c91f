"""Head mattes: the person's matte without the body below the rig's neck, for every frame of a capture.

The avatar ends where the rig ends, so the body can neither be modelled nor scored. `neck_cut.NeckCutter` cuts it away
by the tracked head; what belongs to the room behind the person is removed by the clean plate (`footage.plate`) and by
its standing still while the head moves (`room.Room`). What the cut takes away becomes the body matte.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from ...cores import core_count
from ...footage.plate import find_plate
from ...formats.capture import PNG_FAST, Capture, read_frame, read_matte
from ...formats.track import Track
from ...head.model import HeadModel
from ...progress import SILENT, Progress
from ...storage import write_beside
from .camera_vertices import camera_vertices
from .neck_cut import NeckCutter
from .room import find_room

_BATCH = 64


def make_head_mattes(capture: Capture, track: Track, model: HeadModel, progress: Progress = SILENT) -> None:
    """Write `capture.head_matte_path(i)` for every frame, a grey PNG in which 255 is head or neck, and
    `capture.body_matte_path(i)`, in which 255 is the rest of the person.

    A frame without a pose gets a black matte. The mattes of an earlier track are replaced when all new ones are
    written.
    """
    cutter, plate, room = NeckCutter(model), find_plate(capture), find_room(capture, track, model)
    # A capture of the same crop at another size differs by a factor.
    factor = capture.size / track.size
    intrinsics = track.intrinsics * np.array([[factor], [factor], [1.0]])
    with (
        write_beside(capture.head_matte_path(0).parent) as heads,
        write_beside(capture.body_matte_path(0).parent) as bodies,
        ThreadPoolExecutor(min(4, core_count())) as pool,
    ):
        heads.mkdir()
        bodies.mkdir()
        for start in range(0, capture.frame_count, _BATCH):
            frames = range(start, min(start + _BATCH, capture.frame_count))
            vertices = camera_vertices(cutter.head, track, frames)

            def write(index: int, vertices: np.ndarray = vertices, start: int = start) -> None:
                frame, posed = read_frame(capture, index), vertices[index - start]
                person = plate.remove_from(read_matte(capture, index), frame)
                person = room.remove_from(person, frame, posed, intrinsics)
                head = cutter.cut(person, posed, intrinsics)
                for folder, matte in ((heads, head), (bodies, person - head)):
                    # Encoded here and not by cv2.imwrite, which fails without a reason and, on Windows, on many paths.
                    encoded = cv2.imencode(".png", matte, PNG_FAST)[1]
                    (folder / capture.head_matte_path(index).name).write_bytes(encoded.tobytes())

            for done, _ in enumerate(pool.map(write, frames), start + 1):
                progress.update("head mattes", done, capture.frame_count)
            progress.raise_if_cancelled()
