"""A film's sound in the sequencer, in step with its performance."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import bpy

from .rig.camera import rate_of


def add_sound(scene: bpy.types.Scene, film: Path, frame_start: int, film_time: float, sound_start: float = 0.0) -> bool:
    """Adds the film's sound as a strip on a free channel, and makes playback keep up with it.

    The scene's frame `frame_start` shows the film at `film_time`, in seconds since its first frame. `sound_start` is
    when the sound begins, in the same seconds. Blender plays a file's sound from its first sample on, whatever the time
    of that sample. Returns False if the film has no sound that Blender can read.
    """
    with suppress(RuntimeError):
        sound = bpy.data.sounds.load(str(film), check_existing=True)
        silent = sound.channels == "INVALID"
        if not sound.users:
            bpy.data.sounds.remove(sound)
        if silent:
            return False
        editor = scene.sequence_editor or scene.sequence_editor_create()
        strips = editor.strips if hasattr(editor, "strips") else editor.sequences
        channel = 1 + max((strip.channel for strip in strips), default=0)
        strip = strips.new_sound(film.stem, str(film), channel, frame_start)
        begins = frame_start + (sound_start - film_time) * rate_of(scene)
        # Blender cuts a strip's start to whole frames; the rest is a property of its own, in seconds.
        whole = round(begins)
        # Blender 5.3 has other names for these, and warns of the old ones.
        renamed = hasattr(strip, "content_start")
        setattr(strip, "content_start" if renamed else "frame_start", whole)
        setattr(strip, "left_handle_offset" if renamed else "frame_offset_start", max(0, frame_start - whole))
        if hasattr(strip, "sound_offset"):
            strip.sound_offset = (begins - whole) / rate_of(scene)
        scene.sync_mode = "AUDIO_SYNC"
        return True
    return False
