"""A film's sound in the sequencer, in step with its performance."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import bpy

from .rig.camera import rate_of


def add_sound(scene: bpy.types.Scene, film: Path, frame_start: int, film_time: float) -> bool:
    """Adds the film's sound as a strip on a free channel, and makes playback keep up with it.

    The strip begins at the scene's frame `frame_start` with the sound at `film_time`, in seconds of the film. Returns
    False if the film has no sound that Blender can read.
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
        skipped = film_time * rate_of(scene)
        strip.frame_start, strip.frame_offset_start = frame_start - skipped, skipped
        scene.sync_mode = "AUDIO_SYNC"
        return True
    return False
