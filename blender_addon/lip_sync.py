"""Makes a rig speak what is said in a sound.

A job of the worker finds the phones and makes the motion of the mouth. It is then keyed on the rig in NLA strips of its
own (`rig.speech`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import bpy

from . import film_sound, tasks
from .errors import EffigyError
from .file_kinds import PAPAGAYO, kind_of
from .paths import absolute, is_file
from .reading import check_file
from .rig.rig_properties import Rig
from .rig.speech import add_speech_steps, has_speech
from .rig.steps import Steps
from .tasks import Task
from .transferring import exact_rate_of, new_file, rig_and_track, target_of

TABLE_SUFFIXES: Final = (".TextGrid", ".textgrid", ".tsv", ".pgo", ".dat")
"""Of phone tables that are found beside a sound. A `.dat` may be anything, and is looked into."""
CURVE_SUFFIXES: Final = (".json", ".csv", ".tsv", ".txt")
"""Of files with ARKit's curves that another program has made of a sound."""
COMMON_NAME: Final = "animation_frames"
"""How the clients of Audio2Face-3D call every export, each in a folder of its own."""


@dataclass(frozen=True)
class SpeakRequest:
    """The worker's job `speak`."""

    sound: Path
    """Or the curves that another program has made of it."""
    target: Path
    """A capture's folder or an avatar, which gives the neutral face of the rig's person."""
    out: Path
    """The track to write."""
    text: str
    """What is said; empty if it is to be found by listening."""
    phones: Path | None
    """A phone table."""
    intensity: float
    smoothing: float
    """Seconds."""
    frame_rate: Fraction

    def params(self) -> dict[str, Any]:
        """The job's parameters in the worker protocol."""
        given = {"text": self.text.strip(), "phones": str(self.phones) if self.phones else ""}
        return {
            "sound": str(self.sound),
            "target": str(self.target),
            "out": str(self.out),
            **{name: value for name, value in given.items() if value},
            "intensity": round(self.intensity, 4),
            "smoothing": round(self.smoothing, 4),
            "fps": str(self.frame_rate),
        }


def speak(
    rig: Rig,
    scene: bpy.types.Scene,
    sound: Path,
    *,
    text: str,
    phones: Path | None,
    intensity: float,
    smoothing: float,
    frame_start: int,
    add_sound: bool,
) -> Task:
    """Starts making the rig speak, at the scene's frame rate, from `frame_start` on. `add_sound`: whether the scene's
    sequencer gets the sound, if it has it not; for the other arguments see `SpeakRequest`.
    """
    curves = has_curves(sound)
    check_file(sound, "performance" if curves else "sound")
    if phones is not None:
        check_file(phones, "phone table")
    request = SpeakRequest(sound, target_of(rig), new_file(), text, phones, intensity, smoothing, exact_rate_of(scene))
    name, scene_name = rig.armature.name, scene.name

    def add(_: Any) -> Steps[str]:
        return _add_to_rig(request, name, scene_name if add_sound and not curves else None, frame_start)

    return tasks.start(
        f"Lip Sync “{title_of(sound)}”",
        "speak",
        request.params(),
        add,
        "The rig's file was closed meanwhile: make the lip sync again.",
    )


def _add_to_rig(request: SpeakRequest, name: str, scene: str | None, frame_start: int) -> Steps[str]:
    title = title_of(request.sound)
    rig, track = yield from rig_and_track(request.out, name, "make the lip sync")
    again = has_speech(rig, title)
    applied = yield from add_speech_steps(rig, track, title, frame_start)
    made = bpy.data.scenes.get(scene) if scene is not None else None
    if made is not None and not _has_sound(made, request.sound):
        film_sound.add_sound(made, request.sound, frame_start, 0.0)
    where = "in the strips that it has already" if again else f"{track.frame_count} frames from frame {frame_start} on"
    found = f" by {request.phones.name}" if request.phones else ""
    last, cut = frame_start + track.frame_count - 1, ""
    if made is not None and not again and made.frame_end < last:
        cut = f" The scene ends at frame {made.frame_end}, before it: raise its End to {last}."
    return f"“{name}” speaks “{title}”{found}: {where}.{cut} {applied.note}".rstrip()


def has_curves(sound: Path) -> bool:
    """Whether a file's name is one of curves that another program has made of a sound."""
    return sound.suffix.lower() in CURVE_SUFFIXES


def title_of(sound: Path) -> str:
    """What the strips of a sound are called."""
    return sound.parent.name if sound.stem == COMMON_NAME and sound.parent.name else sound.stem


def table_beside(sound: Path) -> Path | None:
    """A phone table that has the sound's name and lies beside it, or None."""
    return next(
        (
            path
            for suffix in TABLE_SUFFIXES
            if is_file(path := sound.with_suffix(suffix)) and (suffix != ".dat" or kind_of(path) == PAPAGAYO)
        ),
        None,
    )


def strips_in(scene: bpy.types.Scene) -> list[Any]:
    """The scene's sound strips, the selected one first."""
    editor = scene.sequence_editor
    if editor is None:
        return []
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    strips = [strip for strip in strips if strip.type == "SOUND" and strip.sound is not None]
    return sorted(strips, key=lambda strip: strip != editor.active_strip)


def file_of(strip: Any) -> Path | None:
    """The file of a sound strip, or None if its path is none."""
    try:
        return absolute(strip.sound.filepath)
    except EffigyError:
        return None


def start_of(strip: Any) -> int:
    """The scene's frame at which a sound strip's file begins."""
    # Blender 5.3 has another name for it, and warns of the old one.
    return round(strip.content_start if hasattr(strip, "content_start") else strip.frame_start)


def _has_sound(scene: bpy.types.Scene, sound: Path) -> bool:
    return any(file_of(strip) == sound for strip in strips_in(scene))
