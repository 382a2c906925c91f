"""What the demo's person says, in the clip and in the film that the demo renders: sounds by the speech synthesiser
Flite, and the curves of the clip's mouth.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import av
import numpy as np

from backend.errors import EffigyError
from backend.footage.detector import SCORE_NAMES
from backend.progress import SILENT
from backend.speech.articulation import articulate
from backend.speech.recogniser import recognise
from backend.speech.sound import RATE, read_sound
from backend.storage import write_beside

SPEECH: Final = Path(__file__).resolve().parent.parent / "speech"
VOICE: Final = "rms"
SECONDS: Final = {"clip": 10.0, "line": 5.6}
LEAD: Final = 0.36
"""Seconds of silence before the first word."""
INTENSITY: Final = 1.4


def write_speech(folder: Path) -> None:
    """Say the texts `*.txt` of `folder`: FLAC files of `SECONDS` beside them, 16 kHz mono. Needs the program flite."""
    if not shutil.which("flite"):
        raise EffigyError("The program flite is needed to make the voice: install it (Debian: flite), then run again.")
    with tempfile.TemporaryDirectory() as scratch:
        for name, seconds in SECONDS.items():
            text, spoken = (folder / f"{name}.txt").read_text("utf-8"), Path(scratch) / f"{name}.wav"
            subprocess.run(["flite", "-voice", VOICE, "-t", text, "-o", str(spoken)], check=True)
            samples = read_sound(spoken).samples
            whole = np.zeros(round(seconds * RATE), np.int16)
            first = round(LEAD * RATE)
            if first + len(samples) > len(whole):
                raise EffigyError(f"The sentence “{name}” takes longer than {seconds:g} seconds: shorten it.")
            whole[first : first + len(samples)] = samples
            with (
                write_beside(folder / f"{name}.flac") as temporary,
                av.open(str(temporary), "w", format="flac") as file,
            ):
                stream = file.add_stream("flac", rate=RATE, layout="mono")
                frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
                frame.sample_rate = RATE
                for packet in (*stream.encode(frame), *stream.encode()):
                    file.mux(packet)


def spoken_channels(name: str, rate: float, folder: Path = SPEECH) -> dict[str, np.ndarray]:
    """The curve (F,) of each of ARKit's channels while the sentence is said."""
    sound, text = read_sound(folder / f"{name}.flac"), (folder / f"{name}.txt").read_text("utf-8")
    mouth = articulate(recognise(sound, text, SILENT), sound, rate, intensity=INTENSITY)
    return dict(zip(SCORE_NAMES, mouth.channels.T, strict=True))
