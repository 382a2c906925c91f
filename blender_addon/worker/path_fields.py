"""Which parameters of requests and jobs are paths, and which files belong to them.

A worker on another machine needs this to send what a request reads and to fetch what it writes (`remote`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

CAPTURE: Final = (
    "capture.json",
    "landmarks.npz",
    "frames",
    "mattes",
    "head_mattes",
    "body_mattes",
    "track.npz",
    "track_refined.npz",
)
"""The files and folders in a capture that the backend reads; other files in its folder are the artist's."""
CHECKPOINT: Final = ".checkpoint"
"""Suffix of the file that a stopped training leaves beside its avatar."""


@dataclass(frozen=True)
class PathField:
    """One parameter with a path, or one in each entry of a list."""

    keys: tuple[str, ...]
    """The way to it through the parameters; `*` stands for every entry of a list. Every entry of a list at its end
    is a path."""
    noun: str
    """What the file is, for the progress: “footage”."""
    reads: bool = True
    """Whether the worker reads what is there."""
    parts: tuple[str, ...] = ()
    """Of a folder that is read: the names in it that are sent."""
    writes: tuple[str, ...] | None = None
    """The names below the folder that the worker writes; `("",)` for the file or folder itself; None: it writes
    nothing."""
    beside: tuple[str, ...] = ()
    """Suffixes of files that are written beside the file, and read where they are there."""
    is_avatar: bool = False
    """Whether the file must begin like an avatar to be sent: a .blend file of a stranger may name any file."""
    whole: bool = False
    """Whether a folder that is written replaces the one that is there."""
    images: bool = False
    """Whether numbered images may stand here, named by their folder or by a pattern (`image_run`)."""

    @property
    def name(self) -> str:
        return self.keys[-1]


def _avatar(*keys: str) -> PathField:
    return PathField(keys, "the avatar", is_avatar=True)


_HEAD: Final = PathField(("head",), "the head model")
_CAMERAS: Final = PathField(("cameras",), "the cameras")
_CAPTURE: Final = PathField(("capture",), "the capture", parts=CAPTURE)
_VIDEO: Final = PathField(("video",), "footage", images=True)
_NEW_CAPTURE: Final = PathField(("capture",), "the capture", reads=False, writes=("",), whole=True)
_OUT: Final = PathField(("out",), "the result", reads=False, writes=("",))

METHODS: Final[Mapping[str, tuple[PathField, ...]]] = {
    "head.rig": (PathField(("head", "file"), "the head model"),),
    "head.remember": (PathField(("file",), "the head model"),),
    "track.read": (PathField(("path",), "the track"),),
    "capture.read": (PathField(("path",), "the capture", parts=("capture.json", "landmarks.npz")),),
    "avatar.open": (_avatar("path"),),
    "avatar.splats": (_avatar("avatar"),),
    "avatar.render": (_avatar("subjects", "*", "avatar"),),
    "avatar.export": (
        _avatar("subjects", "*", "avatar"),
        PathField(("path",), "the splats", reads=False, writes=("",)),
    ),
}
"""The worker's methods that take paths."""

JOBS: Final[Mapping[str, tuple[PathField, ...]]] = {
    "import": (_VIDEO, _NEW_CAPTURE, _HEAD, _CAMERAS),
    "capture": (_VIDEO, _NEW_CAPTURE),
    "track": (
        # The track is fetched last: where it is, everything that tracking makes is.
        PathField(("capture",), "the capture", parts=CAPTURE[:4], writes=("head_mattes", "body_mattes", "track.npz")),
        _HEAD,
        _CAMERAS,
    ),
    "train": (
        PathField(("capture",), "the capture", parts=CAPTURE, writes=("track_refined.npz",)),
        PathField(("avatar",), "the avatar", reads=False, writes=("",), beside=(CHECKPOINT,)),
    ),
    "refine": (
        PathField(("capture",), "the capture", parts=CAPTURE[:-1], writes=("track_refined.npz",)),
        _avatar("avatar"),
    ),
    "bake": (
        _avatar("avatar"),
        PathField(("capture",), "the capture", parts=("track.npz",)),
        PathField(("out",), "the baked avatar", reads=False, writes=("",)),
    ),
    "evaluate": (_avatar("avatar"), _CAPTURE, _OUT),
    "render": (_avatar("avatar"), PathField(("track",), "the track"), _OUT),
    "speak": (
        PathField(("sound",), "the sound"),
        PathField(("target",), "the person's track", parts=("track.npz",)),
        PathField(("phones",), "the phone table"),
        _OUT,
    ),
    "light": (
        PathField(
            ("capture",), "the capture", parts=("capture.json", "landmarks.npz", "frames", "mattes", "track.npz")
        ),
    ),
    # Its camera is one of this machine (`live.webcam`).
    "live": (),
    "retarget": (
        PathField(("performance",), "the performance", parts=("track.npz",)),
        PathField(("target",), "the person's track", parts=("track.npz",)),
        _OUT,
    ),
}
"""The kinds of jobs."""


def paths_in(fields: tuple[PathField, ...], params: Mapping[str, Any]) -> Iterator[tuple[PathField, str]]:
    """Each path in the parameters, with its field."""
    for field in fields:
        found: list[str] = []
        _change(params, field.keys, lambda path, found=found: found.append(path) or path)
        for path in found:
            yield field, path


def with_paths(
    fields: tuple[PathField, ...], params: Mapping[str, Any], change: Callable[[PathField, str], str]
) -> Any:
    """The parameters with `change(field, path)` in place of each path."""
    for field in fields:
        params = _change(params, field.keys, lambda path, field=field: change(field, path))
    return params


def _change(value: Any, keys: tuple[str, ...], change: Callable[[str], str]) -> Any:
    if not keys:
        if isinstance(value, (list, tuple)):
            return [_change(entry, (), change) for entry in value]
        return value if value is None else change(str(value))
    if keys[0] == "*":
        return [_change(entry, keys[1:], change) for entry in value] if isinstance(value, (list, tuple)) else value
    if isinstance(value, Mapping) and value.get(keys[0]) is not None:
        return {**value, keys[0]: _change(value[keys[0]], keys[1:], change)}
    return value
