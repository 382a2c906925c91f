"""Imports footage, captures and avatars into a scene.

A job of the worker makes the capture and the track. The rig, its camera and its performance are then built from them in
short steps (see `rig.steps` and `tasks`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import bpy

from . import avatars, image_run, preferences, scene_set_up, tasks
from .camera_view import look_through_camera
from .errors import EffigyError
from .file_names import datablock_name, file_name
from .film_sound import add_sound
from .paths import stored
from .reading import check_file, reading, unlike
from .renaming import unused
from .rig import open_head
from .rig.build import build_rig_steps
from .rig.camera import add_camera, exact_rate, frames_per_frame, set_up_scene, show_footage
from .rig.conventions import default_camera_pose
from .rig.data import RigData, TrackData
from .rig.fit import remember_fit
from .rig.performance import Placement, apply_track_steps
from .rig.rig_properties import Rig, find_rigs
from .rig.room import room_beside
from .rig.steps import Steps, part
from .tasks import Task
from .threads import run_in_thread
from .worker import session

SUFFIX: Final = ".capture"
VIDEO_EXTENSIONS: Final = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mts", ".m2ts", ".mxf", ".mpg", ".ogv")
"""Files that can be dropped into Blender. Images cannot, because Blender uses a dropped image as a reference."""
EXTENSIONS: Final = (*VIDEO_EXTENSIONS, *image_run.SUFFIXES)
"""Files that can be chosen in the file browser. An image is a photograph, which is footage of one frame, or one of a
film's numbered images."""
_MOST_SUMMARY: Final = 16 * 2**20
"""Bytes of a capture.json, as in the backend (`reading.MOST_TEXT`)."""
_LAST_FRAME: Final = 1_048_574
"""The last frame that Blender has."""


BESIDE: Final = " The rig stands beside the heads that were there before."
BUILDING_SHARE: Final = 0.1
"""Of the time of an import, for the rig: 24 of 190 seconds with 250 frames on two busy cores."""


@dataclass(frozen=True)
class ImportRequest:
    """The worker's job `import`: capture a video and track it."""

    video: Path
    capture: Path
    size: int
    """Side of the capture's square frames, pixels."""
    landmarks_only: bool
    first_frame: int | None = None
    """Number of a frame of the video, counted from 1, or of an image; None: from the beginning."""
    last_frame: int | None = None
    """None: to the end."""
    turn: int = 0
    """Degrees clockwise by which the images are turned."""
    rate: Fraction | None = None
    """Frames per second of numbered images; None for a film, which has its own."""
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
        optional = {
            "first_frame": self.first_frame,
            "last_frame": self.last_frame,
            "rotate": self.turn or None,
            "rate": self.rate and f"{self.rate.numerator}/{self.rate.denominator}",
            "head": self.head and str(self.head),
        }
        return required | {name: value for name, value in optional.items() if value is not None}


@dataclass(frozen=True)
class TrackRequest:
    """The worker's job `track`: track an existing capture, or several of one person together."""

    capture: Path
    head: Path | None = None
    """FLAME file; None: the open head."""
    more: tuple[Path, ...] = ()
    """Further captures of the person."""
    cameras: Path | None = None
    """A `transforms.json`, if all of them were filmed at once by calibrated cameras."""

    def params(self) -> dict[str, Any]:
        """The job's parameters in the worker protocol."""
        several = [str(path) for path in (self.capture, *self.more)]
        optional = {"head": self.head and str(self.head), "cameras": self.cameras and str(self.cameras)}
        return {"capture": several if self.more else several[0]} | {
            name: value for name, value in optional.items() if value is not None
        }


def import_video(
    scene: bpy.types.Scene,
    video: Path,
    *,
    first: int = 1,
    last: int = 0,
    size: int = 512,
    capture: Path | None = None,
    landmarks_only: bool = False,
    set_up: bool | None = None,
    sequence: bool = True,
    turn: int = 0,
) -> Task:
    """Starts capturing and tracking `video`, from its frame `first` (counted from 1) to its frame `last` (0: to its
    end).

    With `sequence`, an image that has its neighbours' numbers beside it stands for all of them, at the scene's frame
    rate; `first` and `last` are then numbers of the files. A folder stands for the numbered images in it. `turn` is how
    many degrees clockwise the images are turned by. `set_up` says whether the scene takes the film's settings; by
    default it does if it is untouched. `capture` is the folder to write; without it the capture goes beside the .blend
    file (see `_new_capture_folder`).
    """
    images = video if video.is_dir() else image_run.pattern_of(video) if sequence else None
    if images is None:
        check_file(video, "video or photograph")
    footage = images or video
    if last and last < first:
        raise EffigyError(f"The last frame ({last}) lies before the first ({first}).")
    request = ImportRequest(
        footage,
        capture or _new_capture_folder(footage),
        size,
        landmarks_only,
        first if first > 1 else None,
        last or None,
        head=preferences.head_file(),
        turn=turn,
        rate=None if images is None else exact_rate(scene),
    )
    return _start(f"Import {footage.name}", scene, image_run.name_of(footage), "import", request, set_up)


def import_capture(scene: bpy.types.Scene, capture: Path, set_up: bool | None = None) -> Task:
    """Starts building the rig of an existing capture. A capture without a track is tracked first. `set_up` is that of
    `import_video`.
    """
    with reading(capture, "capture", "choose a folder that Import Video has made"):
        if "capture.json" not in {entry.name for entry in capture.iterdir()}:
            raise unlike(capture, "capture", "choose a folder that Import Video has made, with capture.json in it")
    if (capture / "track.npz").is_file():
        return tasks.start_local(f"Add {capture.name}", lambda: _build(scene, capture.stem, capture, set_up))
    request = TrackRequest(capture, preferences.head_file())
    return _start(f"Track {capture.stem}", scene, capture.stem, "track", request, set_up)


def _start(
    title: str,
    scene: bpy.types.Scene,
    name: str,
    kind: str,
    request: ImportRequest | TrackRequest,
    set_up: bool | None,
) -> Task:
    capture = request.capture
    film = request.video if isinstance(request, ImportRequest) else None
    elsewhere = f"The capture is in {capture}: add it to any .blend file with Import ▸ Add Capture."
    return tasks.start(
        title,
        kind,
        request.params(),
        lambda result: _build(scene, name, capture, set_up, result, film),
        elsewhere,
        BUILDING_SHARE,
    )


def _new_capture_folder(video: Path) -> Path:
    """A folder that does not exist yet, beside the .blend file, or beside the video if the .blend is unsaved."""
    folder = Path(bpy.data.filepath).parent if bpy.data.filepath else video.parent
    # A job on several captures makes none.
    named = (task.params.get("capture", "") for task in tasks.running())
    taken = tuple(Path(name) for name in named if isinstance(name, str))
    return unused(folder / file_name(image_run.name_of(video), SUFFIX, otherwise="video"), taken)


def _build(
    scene: bpy.types.Scene,
    name: str,
    capture: Path,
    set_up: bool | None,
    result: Mapping[str, Any] | None = None,
    film: Path | None = None,
) -> Steps[str]:
    """As `build_rig_of`; returns the message alone."""
    _, message = yield from build_rig_of(scene, name, capture, set_up, result, film)
    return message


def build_rig_of(
    scene: bpy.types.Scene,
    name: str,
    capture: Path,
    set_up: bool | None,
    result: Mapping[str, Any] | None = None,
    film: Path | None = None,
) -> Steps[tuple[Rig, str]]:
    """Builds the rig, the camera and the performance of a capture in steps. Returns the rig, which is active then, and
    a message for the artist.

    `result` is that of the job that tracked the capture, if there was one; `film` is the video, if it is at hand.
    """
    track = TrackData.from_answer((yield from tasks.fetch("track.read", {"path": str(capture / "track.npz")})))
    data = yield from _rig_data(track.head_name, track.head_fingerprint, track.identity)
    if set_up is None:
        set_up = scene_set_up.is_untouched(scene)
    summary = capture_summary(capture)
    start = _first_frame(scene, summary, track.frame_count, set_up)
    scale = 1.0 if set_up else frames_per_frame(scene, track.fps)
    with _outside_every_scene() as workshop:
        rig = yield from part(build_rig_steps(data, name, workshop), 0.0, 0.6)
        camera_pose = default_camera_pose(track.head_to_camera)
        camera_pose[0, 3] += (moved := room_beside(rig, find_rigs(scene.objects)))
        placement = Placement(camera_pose, start)
        yield from part(apply_track_steps(rig, track, placement, scale), 0.6, 0.97)
        remember_fit(rig, track, start)
        # Over the film, as soon as it is behind the rig, so that the artist sees how well the head fits.
        rig.armature.effigy_view.over_film = "WIRE"
        collection = rig.mesh.users_collection[0]
        camera = add_camera(track, placement, datablock_name(name, " camera"), collection)
        yield 0.98
        show_footage(camera, capture / "frames", track.positions, placement, scale)
        yield 0.99
        rig.armature.effigy.capture = stored(capture)
        scene.collection.children.link(collection)
    cube_hidden = set_up and scene_set_up.hide_default_cube(scene)
    if set_up:
        set_up_scene(scene, track, camera, placement)
        scene_set_up.remember(scene)
        if film is not None and film.is_file():
            add_sound(scene, film, start, track.film_time, float((result or {}).get("sound_start", 0.0)))
        look_through_camera(scene)
    make_active(scene, rig)
    reliable = (result or {}).get("sure")
    message = f"“{rig.armature.name}”: {track.frame_count} frames" + (
        f", {reliable} of them tracked reliably." if reliable is not None else "."
    )
    if cube_hidden:
        message += " Blender's default cube is hidden, because the camera stands in it."
    if not set_up:
        message += f" The scene is as it was: the performance begins at frame {start}, its camera is “{camera.name}”."
    message += BESIDE if moved else ""
    findings = summary.get("findings")
    return rig, f"{message} {findings}" if isinstance(findings, str) else message


def capture_summary(capture: Path) -> Mapping[str, Any]:
    """What a capture's capture.json says; empty if it cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        file = capture / "capture.json"
        if file.stat().st_size <= _MOST_SUMMARY:
            summary = json.loads(file.read_text(encoding="utf-8"))
            return summary if isinstance(summary, dict) else {}
    return {}


def _first_frame(scene: bpy.types.Scene, summary: Mapping[str, Any], frames: int, set_up: bool) -> int:
    """The scene's frame at which the performance begins. Numbered images keep their numbers, unless all of them lie
    outside the range of a scene that is not set up.
    """
    otherwise = 1 if set_up else scene.frame_start
    number = summary.get("numbered_from")
    if not isinstance(number, int) or not 0 <= number <= _LAST_FRAME - frames:
        return otherwise
    return number if set_up or (number <= scene.frame_end and number + frames > scene.frame_start) else otherwise


def _rig_data(head_name: str, head_fingerprint: str, identity: Any) -> Steps[RigData]:
    """The head model with a person's identity coefficients: the open head, or from the worker."""
    if head_fingerprint == open_head.FINGERPRINT:
        reading_it = run_in_thread(lambda: open_head.open_head_data(identity), "effigy-head")
        while not reading_it.done():
            yield None
        return reading_it.result()
    try:
        session.client()
    except EffigyError as error:
        raise EffigyError(
            f"A new rig of the head “{head_name}” needs the backend, which reads that head's own file: its licence "
            f"keeps it out of avatars. On a rig of this head that exists already, an avatar plays without. {error}"
        ) from error
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
            belongings = _belongings(objects)
            bpy.data.batch_remove([*objects, *(obj.data for obj in objects), collection])
            bpy.data.batch_remove([each for each in belongings if not each.users])
        raise
    finally:
        bpy.data.collections.remove(workshop)


def _belongings(objects: Sequence[bpy.types.Object]) -> list[bpy.types.ID]:
    """The actions and background images of newly built objects, which outlive the objects."""
    found: set[Any] = set()
    for obj in objects:
        for owner in (obj, obj.data, getattr(obj.data, "shape_keys", None)):
            if owner is not None and owner.animation_data is not None:
                strips = [strip for track in owner.animation_data.nla_tracks for strip in track.strips]
                found |= {owner.animation_data.action, *(strip.action for strip in strips)}
        if obj.type == "CAMERA":
            found |= {background.image for background in obj.data.background_images}
    return [each for each in found if each is not None]


def add_avatar(scene: bpy.types.Scene, path: Path, info: Mapping[str, Any]) -> Task:
    """Starts building a rig of the avatar's person with the avatar on it. `info` is from `avatars.read_info`."""
    return tasks.start_local(f"Add {path.name}", lambda: _build_for_avatar(scene, path, info))


def _build_for_avatar(scene: bpy.types.Scene, path: Path, info: Mapping[str, Any]) -> Steps[str]:
    data = yield from _rig_data(info.head_name, info.head_fingerprint, info.identity)
    with _outside_every_scene() as workshop:
        rig = yield from build_rig_steps(data, path.stem, workshop)
        avatars.set_avatar(rig, path, info)
        rig.armature.location.x = moved = room_beside(rig, find_rigs(scene.objects))
        scene.collection.children.link(rig.mesh.users_collection[0])
    make_active(scene, rig)
    return f"“{rig.armature.name}” shows {path.name}." + (BESIDE if moved else "")


def make_active(scene: bpy.types.Scene, rig: Rig) -> None:
    """Selects the rig in every view layer of its scene that contains it, so that the panels show it."""
    for layer in scene.view_layers:
        # The objects of a collection that was linked just now are in the layer only after this.
        layer.update()
        if rig.armature.name in layer.objects:
            for other in layer.objects:
                other.select_set(other is layer.objects[rig.armature.name], view_layer=layer)
            layer.objects.active = rig.armature
