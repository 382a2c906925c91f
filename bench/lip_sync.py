"""Lip sync against mouths whose phones are known, and against a filmed mouth.

    python -m bench.lip_sync [CAPTURE FILM] [--recordings FOLDER]

A synthetic voice (eSpeak NG, whose library tells the time of each phone) says sentences. The mouth that Effigy makes of
the sound alone, and of the sound and the text, is compared with the one that it makes of the known phones, beside a
mouth that opens and closes four times a second whatever is said. With a tracked capture and its film, the mouth that is
made of the film's sound is compared with the tracked one. With recordings of people (FILE.wav, and what they say in
FILE.txt), the mouth from the sound alone is compared with the one from sound and text. Needs eSpeak NG (the package
`espeak-ng` of Debian).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from backend.errors import EffigyError
from backend.formats.capture import load_capture
from backend.formats.track import load_track
from backend.head.model import JAW
from backend.progress import SILENT
from backend.speech.articulation import JAW_OPEN, Mouth, articulate
from backend.speech.phones import Phone, Phones
from backend.speech.recogniser import recognise
from backend.speech.sound import Sound, read_sound
from backend.speech.visemes import segments_of
from bench.synthetic_voices import synthesise

SENTENCES = (
    "My big brother Bob bought a new blue boat, and many people move it to the beach before summer.",
    "She sees five feet of food in the room, but we would rather have a warm bowl of mushroom soup.",
    "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow.",
    "Please call Stella, and ask her to bring these things with her from the store.",
    "Peter Piper picked a peck of pickled peppers, while Mama made jam from plums and apples.",
    "I never said that he should leave the window open; it has been raining since early this morning.",
)
VOICES = ("en-us", "en-us+f2", "en-gb+m3")
FRAMES = 60
MOST_LAG = 18
"""Frames by which curves are shifted against each other."""
CLOSED = 0.9
GAP = 0.06
"""Of the mouth's width between the inner lips, below which filmed lips are closed."""


def rhythm(sound: Sound) -> Phones:
    """A mouth that opens and closes four times a second."""
    starts = np.arange(0, sound.seconds, 0.25)
    return Phones(
        "ARPAbet",
        tuple(phone for at in starts for phone in (Phone(at, at + 0.08, "M"), Phone(at + 0.08, at + 0.25, "AA"))),
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if min(np.ptp(a), np.ptp(b)) > 1e-6 else 0.0


def best_lag(made: np.ndarray, reference: np.ndarray) -> tuple[int, float]:
    """Frames by which `made` is late where it correlates best with the reference, and how much it does there."""
    inner = slice(MOST_LAG, len(reference) - MOST_LAG)
    found = [(correlation(np.roll(made, -lag)[inner], reference[inner]), lag) for lag in range(-MOST_LAG, MOST_LAG + 1)]
    value, lag = max(found)
    return lag, value


def figures(made: Mouth, reference: Mouth, phones: Phones) -> tuple[float, ...]:
    """Correlations of jaw and closed lips, the lag in seconds, the share of m, b, p in which the lips close, and
    that of the frames with closed lips that belong to none.
    """
    contacts = [each for each in segments_of(phones) if each.viseme == "PP"]
    near = np.zeros(len(made.closed), bool)
    met = []
    for each in contacts:
        frames = slice(int(each.start * FRAMES), int(np.ceil(each.end * FRAMES)) + 1)
        met.append(made.closed[frames].max(initial=0) >= CLOSED)
        near[max(0, frames.start - 4) : frames.stop + 4] = True
    closed = made.closed >= CLOSED
    return (
        correlation(made.channels[:, JAW_OPEN], reference.channels[:, JAW_OPEN]),
        correlation(made.closed, reference.closed),
        best_lag(made.channels[:, JAW_OPEN], reference.channels[:, JAW_OPEN])[0] / FRAMES,
        float(np.mean(met)),
        float((closed & ~near).sum() / max(1, closed.sum())),
    )


def synthetic() -> list[tuple[str, Sound, Phones]]:
    """Each sentence by each voice: its text, its sound, and its phones."""
    return [(text, *synthesise(text, voice)) for voice in VOICES for text in SENTENCES]


def recorded(folder: Path) -> list[tuple[str, Sound, Phones]]:
    """The same for recordings, whose phones come from their texts by alignment."""
    takes = []
    for path in sorted(folder.glob("*.wav")):
        text, sound = path.with_suffix(".txt").read_text("utf-8"), read_sound(path)
        takes.append((text, sound, recognise(sound, text, SILENT)))
    return takes


def compared(takes: list[tuple[str, Sound, Phones]], *, aligned: bool) -> list[str]:
    """A table of the figures of each method; `aligned`: with the method that is given the text."""
    methods: dict[str, Callable[[Sound, str], Phones]] = {
        "constant rhythm": lambda sound, _: rhythm(sound),
        "the sound alone": lambda sound, _: recognise(sound, "", SILENT),
        "the sound and its text": lambda sound, text: recognise(sound, text, SILENT),
    }
    lines = [
        "| mouth from | jaw, correlation | closed lips, correlation | lag of the jaw, ms | m, b, p with closed lips "
        "| closed lips elsewhere | s of CPU for a minute |",
        "|---|---|---|---|---|---|---|",
    ]
    if not aligned:
        del methods["the sound and its text"]
    for name, method in methods.items():
        rows, spent, refused = [], 0.0, 0
        for text, sound, phones in takes:
            start = time.process_time()
            try:
                found = method(sound, text)
            except EffigyError:
                refused += 1
                continue
            made = articulate(found, sound, FRAMES)
            spent += time.process_time() - start
            rows.append(figures(made, articulate(phones, sound, FRAMES), phones))
        jaw, lips, lag, met, elsewhere = np.mean(rows, axis=0)
        lag = np.median(np.array(rows)[:, 2])
        minutes = sum(sound.seconds for _, sound, _ in takes) / 60
        left_out = f" (without {refused} whose text did not fit)" if refused else ""
        lines.append(
            f"| {name}{left_out} | {jaw:.2f} | {lips:.2f} | {1000 * lag:+.0f} | {met:.0%} | {elsewhere:.0%} "
            f"| {spent / minutes:.1f} |"
        )
    return lines


def filmed(capture: Path, film: Path) -> list[str]:
    """The mouth from a film's sound against the tracked one."""
    track, marks = load_track(capture / "track.npz"), load_capture(capture).landmarks
    sound, rate = read_sound(film), float(track.fps)
    gap = np.linalg.norm(marks[:, 13, :2] - marks[:, 14, :2], axis=1)
    gap = gap / np.linalg.norm(marks[:, 61, :2] - marks[:, 291, :2], axis=1)
    jaw, closed = np.nan_to_num(track.rotations[:, JAW, 0]), np.nan_to_num(gap, nan=1.0) < GAP
    lines = [
        "| mouth from | jaw, correlation | at best, and its lag in ms | closed lips, correlation |",
        "|---|---|---|---|",
    ]
    for name, phones in (("constant rhythm", rhythm(sound)), ("the sound alone", recognise(sound, "", SILENT))):
        made = articulate(phones, sound, rate)
        count = min(len(jaw), len(made.channels))
        opening = made.channels[:count, JAW_OPEN]
        lag, best = best_lag(opening, jaw[:count])
        lines.append(
            f"| {name} | {correlation(opening, jaw[:count]):+.2f} | {best:+.2f} at {1000 * lag / rate:+.0f} "
            f"| {correlation(made.closed[:count], closed[:count].astype(float)):+.2f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path, nargs="?")
    parser.add_argument("film", type=Path, nargs="?")
    parser.add_argument("--recordings", type=Path)
    arguments = parser.parse_args()
    print("\n".join(compared(synthetic(), aligned=True)))
    if arguments.recordings:
        print("\n".join(["", arguments.recordings.name, "", *compared(recorded(arguments.recordings), aligned=False)]))
    if arguments.capture and arguments.film:
        print(f"\n{arguments.film.stem}\n")
        print("\n".join(filmed(arguments.capture, arguments.film)))


if __name__ == "__main__":
    main()
