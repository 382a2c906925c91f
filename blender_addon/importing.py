"""Footage into a scene: a job makes capture and track, then the rig, its camera and its performance are built from
them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import bpy

from . import avatars, preferences, tasks
from .camera_view import look_through_camera
from .errors import EffigyError
from .paths import stored
from .rig.build import build_rig_steps
from .rig.camera import add_camera, set_scene, show_footage
from .rig.data import RigData, TrackData
from .rig.performance import apply_track_steps
from .rig.rig_properties import Rig
from .rig.steps import Steps
from .tasks import Task

SUFFIX: Final = ".capture"
STAGED: Final = "effigy_staged"
"""On a scene that has taken camera, size, rate and range from its first footage; a second person does not change
them."""
VIDEO_EXTENSIONS: Final = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mts", ".m2ts", ".mxf", ".mpg", ".ogv")
EXTENSIONS: Final = (*VIDEO_EXTENSIONS, ".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""A photograph is footage of one frame. It is chosen by hand only: a picture that is dropped into Blender is a reference."""


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
    """Start capturing and tracking `video`, from its frame `first` (counted from 1) to `last` (0: its end)."""
    if not video.is_file():
        raise EffigyError(f"There is no video at {video}.")
    if last and last < first:
        raise EffigyError(f"The last frame ({last}) lies before the first ({first}).")
    capture = capture or _place_for(video)
    params: dict[str, Any] = {
        "video": str(video),
        "capture": str(capture),
        "size": size,
        "landmarks_only": landmarks_only,
    }
    if first > 1 or last:
        rate = frame_rate_of(video)
        # The middle between two frames, so that rounding takes none too many.
        params["start"] = float(max(Fraction(0), (first - Fraction(3, 2)) / rate))
        if last:
            params["max_frames"] = last - first + 1
    if head := preferences.head_file():
        params["head"] = str(head)
    return _start(f"Import {video.name}", scene, video.stem, capture, "import", params)


def import_capture(scene: bpy.types.Scene, capture: Path) -> Task:
    """Build the rig of a capture that exists; one that is not tracked yet is tracked first."""
    if not (capture / "capture.json").is_file():
        raise EffigyError(
            f"{capture} is no capture of Effigy's: choose a folder that Import Video has made, with capture.json in it."
        )
    if (capture / "track.npz").is_file():
        return tasks.start_local(f"Add {capture.stem}", lambda: _build(scene, capture.stem, capture))
    params = {"capture": str(capture)} | ({"head": str(head)} if (head := preferences.head_file()) else {})
    return _start(f"Track {capture.stem}", scene, capture.stem, capture, "track", params)


def _start(title: str, scene: bpy.types.Scene, name: str, capture: Path, kind: str, params: dict[str, Any]) -> Task:
    elsewhere = f"The capture is in {capture}: add it to any file with Import ▸ Capture."
    return tasks.start(title, kind, params, lambda result: _build(scene, name, capture, result), elsewhere)


def frame_rate_of(video: Path) -> Fraction:
    """Frames a second, as Blender reads them."""
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
            f"{video.name} does not say its frame rate, so its frames cannot be counted: import all of it."
        )
    return rate


def _place_for(video: Path) -> Path:
    """A new folder beside the .blend, or beside the video while that is unsaved."""
    folder = Path(bpy.data.filepath).parent if bpy.data.filepath else video.parent
    taken = tuple(Path(task.params.get("capture", "")) for task in tasks.running())
    return avatars.unused(folder / (video.stem + SUFFIX), taken)


def _build(scene: bpy.types.Scene, name: str, capture: Path, result: dict[str, Any] | None = None) -> Steps[str]:
    """The rig, the camera and the performance of a capture, in steps."""
    track = TrackData.from_answer((yield from tasks.fetch("track.read", {"path": str(capture / "track.npz")})))
    head = {"name": track.head_name, "fingerprint": track.head_fingerprint}
    data = RigData.from_answer((yield from tasks.fetch("head.rig", {"head": head, "identity": track.identity})))
    with _unseen() as workshop:
        rig = yield from build_rig_steps(data, name, workshop)
        shot = yield from apply_track_steps(rig, track)
        collection = rig.mesh.users_collection[0]
        camera = add_camera(track, shot, f"{name} camera", collection)
        yield 0.98
        show_footage(camera, capture / "frames", track.frame_count, shot)
        yield 0.99
        rig.armature.effigy.capture = stored(capture)
        scene.collection.children.link(collection)
    if scene.camera is None or not scene.get(STAGED):
        set_scene(scene, track, camera, shot)
        scene[STAGED] = True
        look_through_camera(scene)
    make_active(scene, rig)
    sure = (result or {}).get("sure")
    return f"“{rig.armature.name}”: {track.frame_count} frames" + (
        f", {sure} of them sure." if sure is not None else "."
    )


@contextmanager
def _unseen() -> Iterator[bpy.types.Collection]:
    """A collection outside every scene. What is built in it is not evaluated and redrawn after each step, and goes if
    it is not finished."""
    workshop = bpy.data.collections.new("Effigy")
    try:
        yield workshop
    except BaseException:
        for made in workshop.children:
            objects = list(made.objects)
            bpy.data.batch_remove([*objects, *(obj.data for obj in objects), made])
        raise
    finally:
        bpy.data.collections.remove(workshop)


def add_avatar(scene: bpy.types.Scene, path: Path, info: dict[str, Any]) -> Task:
    """A rig of the avatar's person with the avatar on it; `info` is what `avatars.describe` said."""
    return tasks.start_local(f"Add {path.stem}", lambda: _build_for_avatar(scene, path, info))


def _build_for_avatar(scene: bpy.types.Scene, path: Path, info: dict[str, Any]) -> Steps[str]:
    head = {"name": info["head_name"], "fingerprint": info["head_fingerprint"]}
    answer = yield from tasks.fetch("head.rig", {"head": head, "identity": info["identity"]})
    with _unseen() as workshop:
        rig = yield from build_rig_steps(RigData.from_answer(answer), path.stem, workshop)
        avatars.set_avatar(rig, path, info)
        scene.collection.children.link(rig.mesh.users_collection[0])
    make_active(scene, rig)
    return f"“{rig.armature.name}” shows {path.name}."


def make_active(scene: bpy.types.Scene, rig: Rig) -> None:
    """Select the rig in every view layer of its scene that shows it, so that the panel follows it."""
    for layer in scene.view_layers:
        # A collection that was linked just now is in the layer, and its objects are only after this.
        layer.update()
        if rig.armature.name in layer.objects:
            for other in layer.objects:
                other.select_set(other is layer.objects[rig.armature.name], view_layer=layer)
            layer.objects.active = rig.armature
