"""The part of the demo that runs in Blender: it calls the operators that an artist would click.

    .venv-blender/bin/python -m building.demo_in_blender CAPTURE AVATAR OUT

It packs and installs the extension, imports the capture (rig, camera, performance), adds the avatar, keys a smile and a
rotation of the head on top of the performance, saves OUT/demo.blend, and renders it with the engine Effigy to
OUT/frames. Then the avatar says another sentence, in a scene that Cycles renders to OUT/scene; it is saved as
OUT/scene.blend. OUT/demo.mp4 shows both, with sound.
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

from .demo_stage import SPEECH, join_shots, say_line, set_stage, strips_of
from .environments import BuildError
from .extension import build_extension
from .in_blender import PACKAGE, installed_extension

FRAMES = 75
"""Number of rendered frames: three seconds at 25 frames a second."""
BACKGROUND = 0.694
"""Scene-linear value of the light grey #d8d8d8."""
GREY = 0xD8 / 255
"""The same as sRGB."""
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
HEAD_ROTATION = math.radians(14)
SECONDS_BETWEEN_LINES = 5.0
"""Between two lines of progress, where the output is not a terminal."""


def make_scene(capture: Path, avatar: Path, blend: Path) -> Any:
    """Save `blend` with the rig, camera and performance of a capture, and the avatar on the rig; returns the `Rig`."""
    import bpy

    bpy.context.preferences.filepaths.save_version = 0
    # Saved first, so that the paths to capture and avatar are relative to the file and the folder can be moved.
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    bpy.ops.effigy.import_capture(directory=str(capture))
    bpy.ops.effigy.add_avatar(filepath=str(avatar))
    return rig_of(bpy.context.object)


def rig_of(obj: Any) -> Any:
    return importlib.import_module(f"{PACKAGE}.blender_addon.rig.rig_properties").find_rig(obj)


def key_smile(rig: Any, frames: tuple[int, int, int, int], strength: float = 1.0) -> None:
    """Key a smile on top of the performance: none at the first of `frames`, full from the second to the third, none at
    the fourth.

    The keys lie in an action that is added to the performance. So each slider is set relative to its performed value,
    and Blender stores the difference.
    """
    import bpy

    scene = bpy.context.scene
    blocks = {name: rig.key_blocks[name] for name in SMILE if name in rig.key_blocks}
    # Read before the first key is inserted, because every key changes the evaluated values of later frames.
    performed = []
    for frame in frames:
        scene.frame_set(frame)
        performed.append({name: block.value for name, block in blocks.items()})
    for frame, share, values in zip(frames, (0, strength, strength, 0), performed, strict=True):
        scene.frame_set(frame)
        for name, block in blocks.items():
            block.value = values[name] + share * SMILE[name]
            block.keyframe_insert("value", frame=frame, group="Expressions")


def key_head_rotation(rig: Any, frames: tuple[int, ...], shares: tuple[float, ...]) -> None:
    """Key the neck rotated by `shares` of HEAD_ROTATION at `frames`, on top of the tracked rotations.

    A positive share rotates the head towards the camera, judged at the second of `frames`. Rotating it further away
    could show sides of the head that the footage does not have.
    """
    import bpy
    from mathutils import Quaternion

    scene, bone = bpy.context.scene, rig.pose_bone("neck")
    scene.frame_set(frames[1])
    outwards = (rig.armature.matrix_world @ bone.matrix).to_3x3().col[2]
    sideways = scene.camera.matrix_world.to_3x3().col[0]
    angle = -math.copysign(HEAD_ROTATION, outwards.dot(sideways))
    performed = []
    for frame in frames:
        scene.frame_set(frame)
        performed.append(bone.rotation_quaternion.copy())
    for frame, share, tracked in zip(frames, shares, performed, strict=True):
        scene.frame_set(frame)
        # The neck bone is upright, so a rotation about its y axis turns the head left or right.
        bone.rotation_quaternion = tracked @ Quaternion((0, 1, 0), share * angle)
        bone.keyframe_insert("rotation_quaternion", frame=frame, group=bone.name)


def use_effigy(scene: Any, first: int, last: int) -> None:
    """Set the engine Effigy, the footage's colours, and a light grey world as the background of opaque renders."""
    import bpy

    scene.render.engine = "EFFIGY"
    scene.frame_start, scene.frame_end = first, last
    world = scene.world = scene.world or bpy.data.worlds.new("World")
    world.color = (BACKGROUND,) * 3
    # From Blender 5 on a world always has nodes, and their colour is used instead of `world.color`.
    for node in world.node_tree.nodes if world.node_tree else ():
        if node.bl_idname == "ShaderNodeBackground":
            node.inputs["Color"].default_value = (BACKGROUND, BACKGROUND, BACKGROUND, 1)
    bpy.ops.effigy.use_standard_view()


def render_frames(scene: Any, where: str, film_transparent: bool = True) -> None:
    """Render PNG files; `where` is Blender's output path, such as `//frames/`."""
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "IMAGE"
    settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGBA", "8"
    scene.render.film_transparent = film_transparent
    _render(scene, where)


def render_video(scene: Any, where: str) -> None:
    """Render an MP4 with H.264 over the world's colour."""
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "VIDEO"
    settings.file_format = "FFMPEG"
    ffmpeg = scene.render.ffmpeg
    ffmpeg.format, ffmpeg.codec, ffmpeg.constant_rate_factor = "MPEG4", "H264", "HIGH"
    scene.render.film_transparent = False
    _render(scene, where)


def _render(scene: Any, where: str) -> None:
    import bpy

    scene.render.filepath = where
    bpy.ops.render.render(animation=True)


class Counter:
    """Prints how many frames are rendered and how long the rest takes.

    On a terminal one line is rewritten; elsewhere a line is printed every SECONDS_BETWEEN_LINES.
    """

    def __init__(self, text: str, total: int, stream: TextIO) -> None:
        self._text, self._total, self._stream = text, total, stream
        self._done, self._started, self._last = 0, 0.0, time.monotonic()
        print(f"{text}: 0/{total}", file=stream, end="" if stream.isatty() else "\n", flush=True)

    def count(self, *_: object) -> None:
        self._done += 1
        now = time.monotonic()
        if self._done == 1:
            # The rate is measured from the first frame on, which includes the start of the worker.
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
    """Show a `Counter` while Blender renders `total` frames in the `with` block."""
    import bpy

    counter = Counter(text, total, stream)
    bpy.app.handlers.render_write.append(counter.count)
    try:
        yield
    finally:
        bpy.app.handlers.render_write.remove(counter.count)


@contextmanager
def blender_output_to(log: Path) -> Iterator[TextIO]:
    """Redirect what Blender prints (several lines for each frame) to a file; yields a stream to the original stdout."""
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
    """The whole part of the demo in Blender; see the module's docstring."""
    with blender_output_to(out / "blender.log") as terminal, tempfile.TemporaryDirectory(prefix="effigy-") as scratch:

        def say(text: str) -> None:
            print(text, file=terminal, flush=True)

        package = build_extension(Path(scratch), environment=Path(sys.prefix))
        say(f"Packed the extension: {package.name}, {package.stat().st_size / 1e6:.1f} MB")
        with installed_extension(package):
            import bpy

            say(f"Installed it in Blender {bpy.app.version_string}; importing the capture and adding the avatar")
            blend = out / "demo.blend"
            rig = make_scene(capture, avatar, blend)
            scene = bpy.context.scene
            first, last = scene.frame_start, min(scene.frame_end, scene.frame_start + FRAMES - 1)
            use_effigy(scene, first, last)
            at = [round(first + share * (last - first)) for share in (0.1, 0.3, 0.5, 0.65, 0.8, 1)]
            key_smile(rig, (at[0], at[1], at[3], at[4]))
            key_head_rotation(rig, (at[0], at[2], at[4], at[5]), (0, 1, -0.5, 0))
            say(
                f"Keyed a smile (frames {at[0]} to {at[4]}) and a rotation of the head (frames {at[0]} to {at[5]}) on "
                "top of the performance"
            )
            _clear(out / "frames")
            scene.frame_set(first)
            total = last - first + 1
            with counted("Rendering PNG frames in Blender", total, terminal):
                render_frames(scene, "//frames/")
            bpy.ops.file.make_paths_relative()
            # Saved with the settings for PNG frames, so that Render ▸ Render Animation renders these again.
            bpy.ops.wm.save_mainfile()
            sounds = [(footage_sound(scene), 1)]
            length = say_line(last + 1)
            looks = [last + 1 + round(share * length) for share in (0, 0.3, 0.6, 1)]
            key_head_rotation(rig, tuple(looks), (0, 1, -0.6, 0))
            say(f"The avatar says another sentence and looks about, from frame {last + 1} on")
            set_stage(rig)
            scene.frame_start, scene.frame_end = last + 1, last + length
            _clear(out / "scene")
            with counted("Rendering a scene in Blender", length, terminal):
                render_frames(scene, "//scene/", film_transparent=False)
            bpy.ops.wm.save_as_mainfile(filepath=str(out / "scene.blend"))
            shots = [(out / "frames", 1), (out / "scene", total + 1)]
            sounds = [(path, at) for path, at in (*sounds, (SPEECH / "line.flac", total + 1)) if path]
            join_shots(shots, sounds, GREY, out / "demo.mp4")


def footage_sound(scene: Any) -> Path | None:
    """The file of the first sound strip, which an import adds, or None."""
    import bpy

    strip = next((strip for strip in strips_of(scene) if strip.type == "SOUND"), None)
    return None if strip is None else Path(bpy.path.abspath(strip.sound.filepath))


def _clear(frames: Path) -> None:
    """Delete the frames of an earlier demo, which would otherwise remain among the new ones."""
    if frames.is_dir():
        for old in frames.glob("*.png"):
            if old.stem.isdigit():
                old.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description="The part of the demo that runs in Blender.")
    for name in ("capture", "avatar", "out"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    try:
        demo(arguments.capture.resolve(), arguments.avatar.resolve(), arguments.out.resolve())
    except (BuildError, RuntimeError) as error:
        # Blender raises an operator's error report as a RuntimeError that begins with "Error: ".
        print(" ".join(str(error).removeprefix("Error:").split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
