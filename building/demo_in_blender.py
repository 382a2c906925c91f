"""The demo's part inside Blender: what an artist does with the mouse, done by the extension's own operators.

    .venv-blender/bin/python -m building.demo_in_blender CAPTURE AVATAR OUT

It packs and installs the extension, adds the capture (rig, camera, performance) and the avatar, keys a smile and a turn
of the head over the performance, saves OUT/demo.blend, and renders it with the engine Effigy to OUT/frames and
OUT/demo.mp4.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from .environments import BuildError
from .extension import build_extension
from .in_blender import PACKAGE, installed_extension

FRAMES = 75
"""Three seconds of most footage."""
BACKGROUND = 0.694
"""Scene-linear: the light grey #d8d8d8."""
SMILE = {
    "mouthSmileLeft": 0.8,
    "mouthSmileRight": 0.75,
    "mouthDimpleLeft": 0.15,
    "mouthDimpleRight": 0.15,
    "cheekSquintLeft": 0.35,
    "cheekSquintRight": 0.35,
    "eyeSquintLeft": 0.2,
    "eyeSquintRight": 0.2,
}
TURN = math.radians(14)
SECONDS_BETWEEN_LINES = 5.0


def make_scene(capture: Path, avatar: Path, blend: Path) -> Any:
    """A file with the rig, the camera and the performance of a capture, and its avatar on it; returns the `Rig`."""
    import bpy

    bpy.context.preferences.filepaths.save_version = 0
    # Saved first, so that it names capture and avatar from where it lies, and the folder can be moved.
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    bpy.ops.effigy.import_capture(directory=str(capture))
    bpy.ops.effigy.add_avatar(filepath=str(avatar))
    return rig_of(bpy.context.object)


def rig_of(obj: Any) -> Any:
    return importlib.import_module(f"{PACKAGE}.blender_addon.rig.rig_properties").find_rig(obj)


def key_smile(rig: Any, frames: tuple[int, int, int, int], strength: float = 1.0) -> None:
    """Key a smile over whatever the performer does: none at the first frame, full from the second to the third, none at
    the last.

    Each slider is set from where the performance has it, as a hand does; Blender keeps the difference, and the
    performance lives on beneath.
    """
    import bpy

    scene = bpy.context.scene
    blocks = {name: rig.key_blocks[name] for name in SMILE if name in rig.key_blocks}
    # Read before the first key is set: each key, too, changes what is seen at the next frame.
    performed = []
    for frame in frames:
        scene.frame_set(frame)
        performed.append({name: block.value for name, block in blocks.items()})
    for frame, share, values in zip(frames, (0, strength, strength, 0), performed, strict=True):
        scene.frame_set(frame)
        for name, block in blocks.items():
            block.value = values[name] + share * SMILE[name]
            block.keyframe_insert("value", frame=frame, group="Expressions")


def key_turn(rig: Any, frames: tuple[int, ...], shares: tuple[float, ...]) -> None:
    """Key the neck turned by `shares` of TURN at `frames`, on top of the tracked turns.

    A positive share turns towards the camera as seen at the second frame: a head that looks aside already would be
    turned to where the footage has never shown it.
    """
    import bpy
    from mathutils import Quaternion

    scene, bone = bpy.context.scene, rig.pose_bone("neck")
    scene.frame_set(frames[1])
    outwards = (rig.armature.matrix_world @ bone.matrix).to_3x3().col[2]
    sideways = scene.camera.matrix_world.to_3x3().col[0]
    turn = -math.copysign(TURN, outwards.dot(sideways))
    performed = []
    for frame in frames:
        scene.frame_set(frame)
        performed.append(bone.rotation_quaternion.copy())
    for frame, share, tracked in zip(frames, shares, performed, strict=True):
        scene.frame_set(frame)
        # The neck's bone stands upright, so that turning about its own y axis is shaking one's head.
        bone.rotation_quaternion = tracked @ Quaternion((0, 1, 0), share * turn)
        bone.keyframe_insert("rotation_quaternion", frame=frame, group=bone.name)


def use_effigy(scene: Any, first: int, last: int) -> None:
    """The engine Effigy, the footage's own colours, a light grey behind where the film is not transparent."""
    import bpy

    scene.render.engine = "EFFIGY"
    scene.frame_start, scene.frame_end = first, last
    world = scene.world = scene.world or bpy.data.worlds.new("World")
    world.color = (BACKGROUND,) * 3
    # From Blender 5 on a world has nodes, whose colour counts instead.
    for node in world.node_tree.nodes if world.node_tree else ():
        if node.bl_idname == "ShaderNodeBackground":
            node.inputs["Color"].default_value = (BACKGROUND, BACKGROUND, BACKGROUND, 1)
    bpy.ops.effigy.use_standard_view()


def render_pictures(scene: Any, where: str) -> None:
    """PNG, transparent around the head; `where` is Blender's output path, such as `//frames/`."""
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "IMAGE"
    settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGBA", "8"
    scene.render.film_transparent = True
    _render(scene, where)


def render_film(scene: Any, where: str) -> None:
    """H.264 in an MP4, over the world's colour."""
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "VIDEO"
    settings.file_format = "FFMPEG"
    film = scene.render.ffmpeg
    film.format, film.codec, film.constant_rate_factor = "MPEG4", "H264", "HIGH"
    scene.render.film_transparent = False
    _render(scene, where)


def _render(scene: Any, where: str) -> None:
    import bpy

    scene.render.filepath = where
    bpy.ops.render.render(animation=True)


class Counter:
    """How many frames of how many are rendered and how long the rest takes: one line, rewritten on a terminal, else
    a line in five seconds.
    """

    def __init__(self, text: str, total: int, stream: TextIO) -> None:
        self._text, self._total, self._stream = text, total, stream
        self._done, self._started, self._last = 0, 0.0, time.monotonic()
        print(f"{text}: 0/{total}", file=stream, end="" if stream.isatty() else "\n", flush=True)

    def count(self, *_: object) -> None:
        self._done += 1
        now = time.monotonic()
        if self._done == 1:
            # The first frame waits for the worker to start and to open the avatar.
            self._started = now
            return
        rewritten, ended = self._stream.isatty(), self._done == self._total
        if not (rewritten or ended) and now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = (self._done - 1) / max(now - self._started, 1e-3)
        minutes, seconds = divmod(round((self._total - self._done) / rate), 60)
        line = f"{self._text}: {self._done}/{self._total}  {rate:.3g}/s  {minutes}:{seconds:02d} left"
        end = "\n" if ended or not rewritten else ""
        print(("\r\x1b[K" if rewritten else "") + line, end=end, file=self._stream, flush=True)


@contextmanager
def counted(text: str, total: int, stream: TextIO) -> Iterator[None]:
    import bpy

    counter = Counter(text, total, stream)
    bpy.app.handlers.render_write.append(counter.count)
    try:
        yield
    finally:
        bpy.app.handlers.render_write.remove(counter.count)


@contextmanager
def blender_talks_to(log: Path) -> Iterator[TextIO]:
    """Let Blender's lines, several for each frame, go to a file; what we have to say goes to the stream returned."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(log, "w", encoding="utf-8") as file, os.fdopen(os.dup(kept), "w", encoding="utf-8") as ours:
        os.dup2(file.fileno(), 1)
        try:
            yield ours
        finally:
            sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)


def demo(capture: Path, avatar: Path, out: Path) -> None:
    with blender_talks_to(out / "blender.log") as terminal, tempfile.TemporaryDirectory(prefix="effigy-") as scratch:

        def say(text: str) -> None:
            print(text, file=terminal, flush=True)

        package = build_extension(Path(scratch), environment=Path(sys.prefix))
        say(f"Packed the extension: {package.name}, {package.stat().st_size / 1e6:.1f} MB")
        with installed_extension(package):
            import bpy

            say(f"Installed it in Blender {bpy.app.version_string}; adding rig, camera, performance and avatar")
            blend = out / "demo.blend"
            rig = make_scene(capture, avatar, blend)
            scene = bpy.context.scene
            first, last = scene.frame_start, min(scene.frame_end, scene.frame_start + FRAMES - 1)
            use_effigy(scene, first, last)
            at = [round(first + share * (last - first)) for share in (0.1, 0.3, 0.5, 0.65, 0.8, 1)]
            key_smile(rig, (at[0], at[1], at[3], at[4]))
            key_turn(rig, (at[0], at[2], at[4], at[5]), (0, 1, -0.5, 0))
            say(
                f"Keyed a smile over the performance (frames {at[0]} to {at[4]}) and a turn of the head ({at[0]} to "
                f"{at[5]})"
            )
            _clear(out / "frames")
            scene.frame_set(first)
            total = last - first + 1
            with counted("Rendering the film with Blender", total, terminal):
                render_film(scene, "//demo.mp4")
            with counted("Rendering PNG frames with Blender", total, terminal):
                render_pictures(scene, "//frames/")
            bpy.ops.file.make_paths_relative()
            # With the output settings of the pictures, so that Render ▸ Render Animation makes them again.
            bpy.ops.wm.save_mainfile()


def _clear(frames: Path) -> None:
    """What an earlier demo rendered would lie among the new frames."""
    if frames.is_dir():
        for old in frames.glob("*.png"):
            if old.stem.isdigit():
                old.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description="The demo's part inside Blender.")
    for name in ("capture", "avatar", "out"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    try:
        demo(arguments.capture.resolve(), arguments.avatar.resolve(), arguments.out.resolve())
    except (BuildError, RuntimeError) as error:
        # Blender raises an operator's report as a RuntimeError, "Error: " before its sentence.
        print(" ".join(str(error).removeprefix("Error:").split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
