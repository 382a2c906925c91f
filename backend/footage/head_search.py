"""The first pass over footage: where the head is, which way is up, where the picture ends, and whether its frames are
interlaced.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from ..errors import EffigyError
from ..progress import SILENT, Progress
from .crop import SEARCH_SIDE, HeadSearch, Sighting
from .decode import FootageFrame, FootageInfo, read_frames
from .detector import Face, FaceDetector, FaceScore
from .interlacing import FieldSearch
from .model_threads import ModelThreads
from .picture_area import Area, BorderSearch

_SEARCHES_PER_SECOND: Final = 10
_MOST_TURNED: Final = 12
"""Frames, spread over the clip, that are searched on their sides and upside down."""
_UPRIGHT: Final = 45.0
"""Degrees by which an upright head leans at most."""
_LYING: Final = 60.0
"""Degrees from which a head lies. Nobody leans so far in most frames of a film."""
_FEW: Final = 0.5
"""Share of the searched frames: where a face is found in fewer, the images may lie on their side."""
_SURER: Final = 0.15
"""By how much the detector is surer of the faces of a clip that is upside down when they are turned: by 0.27 to 0.42 in
four clips. The landmarker takes an upside-down face for an upright one in up to 0.7 of the frames."""
_MANY: Final = 0.5
"""Share of the turned frames with an upright face from which the clip is to be turned."""


@dataclass(frozen=True)
class Found:
    """What the first pass has found."""

    sightings: list[Sighting]
    crowded: set[int]
    """Numbers of frames with several faces."""
    area: Area
    """Where the picture is, in the upright image."""
    info: FootageInfo
    """With the order of its fields."""


def find_head(info: FootageInfo, span: dict[str, Any], expected: int, progress: Progress) -> Found:
    """Searches the person in frames every tenth of a second. Raises `EffigyError` where there is nobody, there are two,
    or the person lies on the side.
    """
    every = max(1, math.floor(info.fps / _SEARCHES_PER_SECOND))
    scale = min(1.0, SEARCH_SIDE / max(info.width, info.height))
    sightings, searched, borders, fields, kept = [], 0, BorderSearch(), FieldSearch(), _Spread(_MOST_TURNED)
    # A sequence reports its damaged images when all of them are read.
    said = SILENT if info.sequence else progress
    frames = read_frames(info, **span, every=every, longest_side=SEARCH_SIDE, fields=fields, progress=said)
    with closing(FaceDetector()) as detector, ModelThreads(FaceDetector) as threads:
        search = HeadSearch(detector)
        for searched, (frame, faces) in enumerate(threads.map(_with_faces, frames), start=1):
            sighting = search.find(frame.number, frame.image, scale, faces)
            if sighting is not None:
                sightings.append(sighting)
            borders.look(frame.image)
            kept.add(frame.image)
            progress.update("finding the head", searched * every, max(expected, searched * every))
            progress.raise_if_cancelled()
        name = info.path.name
        if not searched:
            raise EffigyError(f"No frame of {name} lies in the chosen part: {_extent_of(info)}.")
        if turn := _turn_of(sightings, searched, kept.images, detector):
            raise EffigyError(_sideways(name, turn, info.turn))
    if not sightings:
        raise EffigyError(
            f"No face was found in {name} ({searched} frames were searched): "
            "the person must face the camera, well lit, with a face wider than 6 % of the image."
        )
    crowded = [s.number for s in sightings if s.several]
    if len(crowded) > len(sightings) / 2:
        raise EffigyError(
            f"{name} shows two faces in most of its frames: an avatar shows one person. "
            "Crop the video to that person, or choose a part of the clip by start and end."
        )
    return Found(
        sightings,
        # The result of one searched frame applies to all frames up to the next searched one.
        {number + ahead for number in crowded for ahead in range(every)},
        borders.area(info.width, info.height),
        replace(info, field_order=fields.order),
    )


def _with_faces(frame: FootageFrame, detector: FaceDetector) -> tuple[FootageFrame, list[Face]]:
    return frame, detector.detect(frame.image)


def _extent_of(info: FootageInfo) -> str:
    if info.sequence:
        return f"its images have the numbers {info.sequence.numbers[0]} to {info.sequence.numbers[-1]}"
    return f"the clip lasts {info.duration:.1f} s"


class _Spread:
    """Up to twice `count` of the images that it is given, spread evenly over all of them."""

    def __init__(self, count: int) -> None:
        self.images: list[np.ndarray] = []
        self._count, self._step, self._seen = count, 1, 0

    def add(self, image: np.ndarray) -> None:
        if self._seen % self._step == 0:
            self.images.append(image)
            if len(self.images) > 2 * self._count:
                self.images, self._step = self.images[::2], 2 * self._step
        self._seen += 1


def _turn_of(sightings: list[Sighting], searched: int, images: list[np.ndarray], detector: FaceDetector) -> int:
    """Degrees clockwise by which the images must be turned for the person to be upright; 0 if the person is."""
    lying = [s.roll for s in sightings if abs(s.roll) > _LYING]
    if len(lying) > len(sightings) / 2:
        quarters = np.bincount([round(-roll / 90) % 4 for roll in lying], minlength=4)
        return 90 * int(quarters.argmax())
    images = images[:: max(1, math.ceil(len(images) / _MOST_TURNED))]
    with closing(FaceScore()) as score:
        upright, turned = (np.median([score.of(image[::step, ::step]) for image in images]) for step in (1, -1))
    if turned > upright + _SURER:
        return 180
    if len(sightings) >= _FEW * searched:
        return 0
    upright = [_upright_share(images, turn, detector) for turn in range(4)]
    best = int(np.argmax(upright))
    return 90 * best if upright[best] >= _MANY and upright[best] > 2 * upright[0] else 0


def _upright_share(images: list[np.ndarray], quarter_turns: int, detector: FaceDetector) -> float:
    """Share of the images that show an upright face when they are turned clockwise."""
    found = 0
    for image in images:
        faces = detector.detect(np.ascontiguousarray(np.rot90(image, -quarter_turns)))
        found += bool(faces) and abs(faces[0].roll) < _UPRIGHT
    return found / max(1, len(images))


def _sideways(name: str, turn: int, turned: int) -> str:
    how = "stands on the head" if turn == 180 else "lies on the side"
    total = (turn + turned) % 360
    remedy = f"turn it with Turn, {total}° clockwise (--rotate {total})" if total else "import it without Turn"
    return f"The person in {name} {how}: {remedy}."
