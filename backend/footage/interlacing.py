"""Interlaced material: recognised, and made into whole images.

A camera or a tape of television holds two half images, the odd and the even rows, of two moments in each frame. What
moves has combed edges, which the detector takes for texture. FFmpeg's filter `idet` recognises the combs, whether the
file is marked as interlaced or not: many are marked and hold whole images, and many were encoded again without a mark.
`bwdif` then makes one whole image of each frame, at the time of the frame's first half image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import av
from av.error import BlockingIOError as NothingReady
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.filter import Graph
from av.video.stream import VideoStream

TOP_FIRST, BOTTOM_FIRST = "tff", "bff"
"""Which half image is the earlier one, as FFmpeg's filters call it."""
_TALLEST: Final = 1088
"""Rows of a frame: no camera records larger frames interlaced."""
_ENOUGH: Final = 300
"""Frames after which the search ends, of those of which `idet` is sure."""
_LEAST_COMBED: Final = 5
"""Frames in which combs of one order must be found."""
_LEAST_SHARE: Final = 0.2
"""Share of the frames with combs. Cinema film on television (3:2 pulldown) has them in 0.4 of its frames; in the clips
without any that were measured, `idet` takes less than 0.02 for combed."""


class FieldSearch:
    """Looks for combs in successive frames of a clip."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._counts: dict[str, float] = {}
        self._ended = False

    def look(self, frame: av.VideoFrame, stream: VideoStream) -> None:
        """Takes the next decoded frame into account."""
        if self._ended:
            return
        try:
            self._look(frame, stream)
        except (FFmpegError, ValueError):
            # A frame of another size or format than the first one.
            self._ended = True

    def _look(self, frame: av.VideoFrame, stream: VideoStream) -> None:
        if self._graph is None:
            if frame.height > _TALLEST or frame.height % 2:
                self._ended = True
                return
            self._graph = _graph(frame, stream, ("idet", ""))
        self._graph.vpush(frame)
        for found in _ready(self._graph):
            self._counts = {
                name: float(found.metadata.get(f"lavfi.idet.multiple.{name}", 0))
                for name in (TOP_FIRST, BOTTOM_FIRST, "progressive")
            }
        self._ended = sum(self._counts.values()) >= _ENOUGH

    @property
    def order(self) -> str:
        """TOP_FIRST or BOTTOM_FIRST; empty if the frames are whole images."""
        if not self._counts:
            return ""
        order = max((TOP_FIRST, BOTTOM_FIRST), key=lambda name: self._counts[name])
        combed, sure = self._counts[order], sum(self._counts.values())
        return order if combed >= _LEAST_COMBED and combed >= _LEAST_SHARE * sure else ""


def deinterlaced(frames: Iterator[av.VideoFrame], stream: VideoStream, order: str) -> Iterator[av.VideoFrame]:
    """One whole image for each interlaced frame, at its time. `order` is TOP_FIRST or BOTTOM_FIRST."""
    graph: Graph | None = None
    layout = None
    for frame in frames:
        if graph is not None and layout != (frame.width, frame.height, frame.format.name):
            yield from _rest(graph)
            graph = None
        if graph is None:
            layout = frame.width, frame.height, frame.format.name
            graph = _graph(frame, stream, ("bwdif", f"mode=send_frame:parity={order}:deint=all"))
        graph.vpush(frame)
        yield from _ready(graph)
    if graph is not None:
        yield from _rest(graph)


def _graph(frame: av.VideoFrame, stream: VideoStream, filter_: tuple[str, str]) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or stream.time_base
    )
    graph.link_nodes(source, graph.add(*filter_), graph.add("buffersink")).configure()
    return graph


def _rest(graph: Graph) -> Iterator[av.VideoFrame]:
    graph.vpush(None)
    yield from _ready(graph)


def _ready(graph: Graph) -> Iterator[av.VideoFrame]:
    """The frames that have passed the graph."""
    while True:
        try:
            yield graph.vpull()
        except (NothingReady, EndOfFile):
            return
