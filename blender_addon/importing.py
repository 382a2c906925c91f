"""Imports footage, captures and avatars into a scene.

A job of the worker makes the capture and the track. The rig, its camera and its performance are then built from them in
short steps (see `rig.steps` and `tasks`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import bpy

from . import avatars, preferences, tasks
from .camera_view import look_through_camera
from .errors import EffigyError
from .paths import stored
from .renaming import unused
from .rig.build import build_rig_steps
from .rig.camera import add_camera, set_up_scene, show_footage
from .rig.data import RigData, TrackData
from .rig.performance import apply_track_steps
from .rig.rig_properties import Rig
from .rig.steps import Steps
from .tasks import Task

SUFFIX: Final = ".capture"
SCENE_PROPERTY: Final = "effigy_staged"
"""Custom property on a scene that has taken its camera, resolution, frame rate and range from imported footage.
Importing a second person does not change them."""
VIDEO_EXTENSIONS: Final = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mts", ".m2ts", ".mxf", ".mpg", ".ogv")
"""Files that can be dropped into Blender. Images cannot, because Blender uses a dropped image as a reference."""
EXTENSIONS: Final = (*VIDEO_EXTENSIONS, ".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""Files that can be chosen in the file browser. A photograph is footage of one frame."""


@dataclass(frozen=True)
class ImportRequest:
    """The worker's job `import`: capture a video and track it."""

    video: Path
    capture: Path
    size: int
    """Side of the capture's square frames, pixels."""
    landmarks_only: bool
    start: float | None = None
    """Seconds; None: from the beginning."""
    max_frames: int | None = None
    """None: to the end."""
    head: Path | None = None
    """FLAME file; None: the open head."""

    def params(self) -> dict[str, Any]:
        """The job's parameters in the worker protocol."""
        required = {
            "video": str(self.video),
            "capture": str(self.capture),
            "size": self.size,
            "landmarks_only": self.landmarks_only,
        }
        optional = {"start": self.start, "max_frames": self.max_frames, "head": self.head and str(self.head)}
        return required | {name: value for name, value in optional.items() if value is not None}


@dataclass(frozen=True)
class TrackRequest:
    """The worker's job `track`: track an existing capture."""

    capture: Path
    head: Path | None = None
    """FLAME file; None: the open head."""

    def params(self) -> dict[str, Any]:
        """The job's parameters in the worker protocol."""
        return {"capture": str(self.capture)} | ({"head": str(self.head)} if self.head else {})


def import_video(
    scene: bpy.types.Scene,
    video: Path,
    *,
    first: int = 1,
    last: int = 0,
    size: int = 512,
    capture: Path | None = None,
    landmarks_only: bool = False,
) -> Task:
    """Starts capturing and tracking `video`, from its frame `first` (counted from 1) to its frame `last` (0: to its
    end).

    `capture` is the folder to write; without it the capture goes beside the .blend file (see `_new_capture_folder`).
    """
    if not video.is_file():
        raise EffigyError(f"There is no video at {video}.")
    if last and last < first:
        raise EffigyError(f"The last frame ({last}) lies before the first ({first}).")
    start = max_frames = None
    if first > 1 or last:
        rate = frame_rate_of(video)
        # Half a frame earlier, so that rounding does not skip the first frame.
        start = float(max(Fraction(0), (first - Fraction(3, 2)) / rate))
        if last:
            max_frames = last - first + 1
    request = ImportRequest(
        video, capture or _new_capture_folder(video), size, landmarks_only, start, max_frames, preferences.head_file()
    )
    return _start(f"Import {video.name}", scene, video.stem, "import", request)


def import_capture(scene: bpy.types.Scene, capture: Path) -> Task:
    """Starts building the rig of an existing capture. A capture without a track is tracked first."""
    if not (capture / "capture.json").is_file():
        raise EffigyError(
            f"{capture} is no capture of Effigy's: choose a folder that Import Video has made, with capture.json in it."
        )
    if (capture / "track.npz").is_file():
        return tasks.start_local(f"Add {capture.stem}", lambda: _build(scene, capture.stem, capture))
    request = TrackRequest(capture, preferences.head_file())
    return _start(f"Track {capture.stem}", scene, capture.stem, "track", request)


def _start(title: str, scene: bpy.types.Scene, name: str, kind: str, request: ImportRequest | TrackRequest) -> Task:
    capture = request.capture
    elsewhere = f"The capture is in {capture}: add it to any .blend file with Import ▸ Add Capture."
    return tasks.start(title, kind, request.params(), lambda result: _build(scene, name, capture, result), elsewhere)


def frame_rate_of(video: Path) -> Fraction:
    """Frames per second, as Blender reads them from the file."""
    try:
        clip = bpy.data.movieclips.load(str(video), check_existing=False)
    except RuntimeError as error:
        raise EffigyError(
            f"{video.name} cannot be read as a video, so its frames cannot be counted: import all of it."
        ) from error
    try:
        rate = Fraction(clip.fps).limit_denominator(1001)
    finally:
        bpy.data.movieclips.remove(clip)
    if rate <= 0:
        raise EffigyError(
            f"{video.name} does not state its frame rate, so its frames cannot be counted: import all of it."
        )
    return rate


def _new_capture_folder(video: Path) -> Path:
    """A folder that does not exist yet, beside the .blend file, or beside the video if the .blend is unsaved."""
    folder = Path(bpy.data.filepath).parent if bpy.data.filepath else video.parent
    taken = tuple(Path(task.params.get("capture", "")) for task in tasks.running())
    return unused(folder / (video.stem + SUFFIX), taken)


def _build(scene: bpy.types.Scene, name: str, capture: Path, result: Mapping[str, Any] | None = None) -> Steps[str]:
    """Builds the rig, the camera and the performance of a capture in steps, and returns a message for the artist.

    `result` is that of the job that tracked the capture, if there was one.
    """
    track = TrackData.from_answer((yield from tasks.fetch("track.read", {"path": str(capture / "track.npz")})))
    data = yield from _rig_data(track.head_name, track.head_fingerprint, track.identity)
    with _outside_every_scene() as workshop:
        rig = yield from build_rig_steps(data, name, workshop)
        placement = yield from apply_track_steps(rig, track)
        collection = rig.mesh.users_collection[0]
        camera = add_camera(track, placement, f"{name} camera", collection)
        yield 0.98
        show_footage(camera, capture / "frames", track.frame_count, placement)
        yield 0.99
        rig.armature.effigy.capture = stored(capture)
        scene.collection.children.link(collection)
    if scene.camera is None or not scene.get(SCENE_PROPERTY):
        set_up_scene(scene, track, camera, placement)
        scene[SCENE_PROPERTY] = True
        look_through_camera(scene)
    make_active(scene, rig)
    reliable = (result or {}).get("sure")
    return f"“{rig.armature.name}”: {track.frame_count} frames" + (
        f", {reliable} of them tracked reliably." if reliable is not None else "."
    )


def _rig_data(head_name: str, head_fingerprint: str, identity: Any) -> Steps[RigData]:
    """Asks the worker for the head model with a person's identity coefficients."""
    head = {"name": head_name, "fingerprint": head_fingerprint}
    return RigData.from_answer((yield from tasks.fetch("head.rig", {"head": head, "identity": identity})))


@contextmanager
def _outside_every_scene() -> Iterator[bpy.types.Collection]:
    """A temporary collection that is in no scene. What is built in it is not evaluated and redrawn after each step, and
    is deleted if the build does not finish.
    """
    workshop = bpy.data.collections.new("Effigy")
    try:
        yield workshop
    except BaseException:
        for collection in workshop.children:
            objects = list(collection.objects)
            bpy.data.batch_remove([*objects, *(obj.data for obj in objects), collection])
        raise
    finally:
        bpy.data.collections.remove(workshop)


def add_avatar(scene: bpy.types.Scene, path: Path, info: Mapping[str, Any]) -> Task:
    """Starts building a rig of the avatar's person with the avatar on it. `info` is from `avatars.read_info`."""
    return tasks.start_local(f"Add {path.stem}", lambda: _build_for_avatar(scene, path, info))


def _build_for_avatar(scene: bpy.types.Scene, path: Path, info: Mapping[str, Any]) -> Steps[str]:
    data = yield from _rig_data(info.head_name, info.head_fingerprint, info.identity)
    with _outside_every_scene() as workshop:
        rig = yield from build_rig_steps(data, path.stem, workshop)
        avatars.set_avatar(rig, path, info)
        scene.collection.children.link(rig.mesh.users_collection[0])
    make_active(scene, rig)
    return f"“{rig.armature.name}” shows {path.name}."


def make_active(scene: bpy.types.Scene, rig: Rig) -> None:
    """Selects the rig in every view layer of its scene that contains it, so that the panels show it."""
    for layer in scene.view_layers:
        # The objects of a collection that was linked just now are in the layer only after this.
        layer.update()
        if rig.armature.name in layer.objects:
            for other in layer.objects:
                other.select_set(other is layer.objects[rig.armature.name], view_layer=layer)
            layer.objects.active = rig.armature
