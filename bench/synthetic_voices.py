"""Sentences by speech synthesisers that tell which phone they say when: eSpeak NG and Flite.

They need Debian's packages `espeak-ng` and `flite`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from backend.speech.phones import Phone, Phones
from backend.speech.sound import RATE, Sound, read_sound


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    )


@cache
def _espeak() -> tuple[ctypes.CDLL, int]:
    """The library, and the samples a second that it makes. It waits for ever when it is started twice."""
    library = ctypes.CDLL(ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1")
    # AUDIO_OUTPUT_SYNCHRONOUS; espeakINITIALIZE_PHONEME_EVENTS | espeakINITIALIZE_PHONEME_IPA
    return library, library.espeak_Initialize(2, 0, None, 3)


def synthesise(text: str, voice: str) -> tuple[Sound, Phones]:
    """A sentence as eSpeak NG says it, and its phones in the IPA."""
    library, rate = _espeak()
    blocks, events = [], []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
    def take(samples: Any, count: int, event: Any) -> int:
        if samples and count:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while event[index].type:
            if event[index].type == 7:
                events.append((event[index].audio_position / 1000, event[index].string.decode("utf-8", "replace")))
            index += 1
        return 0

    library.espeak_SetSynthCallback(take)
    library.espeak_SetVoiceByName(voice.encode())
    data = text.encode() + b"\0"
    library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, 1, None, None)
    library.espeak_Synchronize()
    resampler = av.AudioResampler("s16", "mono", RATE)
    frame = av.AudioFrame.from_ndarray(np.concatenate(blocks)[None], "s16", "mono")
    frame.sample_rate = rate
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    sound = Sound(np.concatenate([part.to_ndarray().ravel() for part in parts]))
    times = [at for at, _ in events] + [sound.seconds]
    return sound, Phones("IPA", tuple(Phone(at, times[i + 1], label) for i, (at, label) in enumerate(events)))


def synthesise_by_flite(text: str, voice: str) -> tuple[Sound, Phones]:
    """A sentence as Flite says it, and its phones in the ARPAbet."""
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder) / "spoken.wav"
        words = ["flite", "-voice", voice, "-t", text, "-psdur", "-o", str(spoken)]
        printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        sound = read_sound(spoken)
    phones, start = [], 0.0
    for label, _, end in (part.rpartition(":") for part in printed.split()):
        phones.append(Phone(start, float(end), label))
        start = float(end)
    return sound, Phones("ARPAbet", tuple(phones))
