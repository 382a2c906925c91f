"""Papagayo's projects, and switch files, as phones.

- A project of version 1 (`.pgo`) is lines of text: `lipsync version 1`, the sound's file, frames a second, the sound's
  frames, and the number of voices. Of each voice come its name, its text and the number of its phrases; of each phrase
  its text, its first and last frame and the number of its words; of each word a line `WORD FIRST LAST COUNT`, and of
  each of its phones a line `FRAME SHAPE`. Frames count from 0.
- A project of version 2 of Papagayo-NG is the same as JSON (`fps`, `voices`, `phrases`, `words`, `phonemes`). So is an
  exported voice, without its frame rate.
- A switch file (`.dat`), as Papagayo, Rhubarb and others write it for Moho and OpenToonz, is the line `MohoSwitch1` and
  a row `FRAME SHAPE` for each change. Frames count from 1, and the file does not say how many a second has; Synfig's
  form of it does (`FPS 24`).

A phone lasts until the next one of its word, or to the word's end. Sources: Papagayo-NG, LipsyncDoc.py, the folder
phonemes and its samples; Synfig, importer for lists of images; Rhubarb's README, "Output formats".
"""

from __future__ import annotations

from typing import Any, Final

from ..progress import Progress
from ..reading import Damaged, frame_rate_of, shown
from .phones import Phone

PROJECT: Final = "lipsync version"
SWITCH: Final = "MohoSwitch1"
MOST_COUNT: Final = 100_000
"""Voices, phrases, words or phones."""


def of_project(text: str, progress: Progress) -> list[Phone]:
    """The phones of the first voice that has some, in a project of version 1."""
    lines = iter(text.rstrip().replace("\r\n", "\n").split("\n"))

    def take() -> str:
        line = next(lines, None)
        if line is None:
            raise Damaged("it is cut short")
        return line.strip()

    def take_count() -> int:
        count = _frame(take())
        if not 0 <= count <= MOST_COUNT:
            raise Damaged(f"it claims {shown(count, 20)} voices, phrases, words or phones")
        return count

    header = take()
    if header != f"{PROJECT} 1":
        raise Damaged(f"it is “{shown(header, 40)}”, and version 1 is read")
    take()
    rate = _rate(take())
    take()
    voices: dict[str, list[Phone]] = {}
    for number in range(take_count()):
        name = take() or f"voice {number + 1}"
        take()
        words = []
        for _ in range(take_count()):
            _, _, _ = take(), take(), take()
            for _ in range(take_count()):
                parts = take().split()
                if len(parts) < 3:
                    raise Damaged("a word has no first and last frame")
                last, count = _frame(parts[-2]), _frame(parts[-1])
                if not 0 <= count <= MOST_COUNT:
                    raise Damaged(f"it claims {shown(count, 20)} phones in a word")
                words.append(([_switch_row(take()) for _ in range(count)], last))
        voices.setdefault(name, []).extend(_in_seconds(words, rate, 0))
    return _voice_of(voices, progress)


def is_of_papagayo(content: Any) -> bool:
    """Whether parsed JSON is a project of version 2, or an exported voice."""
    return isinstance(content, dict) and ("phrases" in content or "voices" in content)


def of_json(content: dict[str, Any], rate: float | None, progress: Progress) -> list[Phone]:
    """The phones of the first voice that has some. `rate` is frames a second where the file does not say it."""
    if "fps" in content:
        rate = _rate(content["fps"])
    if rate is None:
        raise Damaged("it does not say how many frames a second has")
    voices: dict[str, list[Phone]] = {}
    try:
        for number, voice in enumerate(content.get("voices", [content])):
            words = [
                ([(phone["frame"], phone["text"]) for phone in word["phonemes"]], word["end_frame"])
                for phrase in voice["phrases"]
                for word in phrase["words"]
            ]
            if not all(_is_frame(last) and all(map(_is_phone, phones)) for phones, last in words):
                raise Damaged("a phone or a word of it has no frame or no name")
            voices.setdefault(str(voice.get("name") or f"voice {number + 1}"), []).extend(_in_seconds(words, rate, 0))
    except (AttributeError, KeyError, TypeError) as error:
        raise Damaged("its voices have no phrases, words and phonemes") from error
    return _voice_of(voices, progress)


def of_switch(text: str, rate: float | None) -> list[Phone]:
    """The phones of a switch file. `rate` is frames a second where the file does not say it."""
    rows = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if words[:1] == ["FPS"]:
            rate = _rate(words[-1])
        elif len(words) > 1:
            rows.append(_switch_row(line))
    if rate is None:
        raise Damaged("it does not say how many frames a second has")
    rows.sort(key=lambda row: row[0])
    # A row closes the shape before it; Papagayo repeats "rest" in the last frame of a pause.
    return _in_seconds([(rows, rows[-1][0])], rate, 1) if rows else []


def _switch_row(line: str) -> tuple[int, str]:
    words = line.split(maxsplit=1)
    if len(words) < 2:
        raise Damaged(f"“{shown(line.strip(), 20)}” is no frame with a shape")
    return _frame(words[0]), words[1].strip()


def _in_seconds(words: list[tuple[list[tuple[int, str]], int]], rate: float, first: int) -> list[Phone]:
    """The phones of words, each of which is its phones (frame, shape) and its last frame. `first` is the number of the
    first frame. Where phones were dragged over one another, the later one ends the earlier one.
    """
    starts = []
    for phones, last in words:
        ordered = sorted(phones)
        ends = [at for at, _ in ordered[1:]] + [last + 1]
        starts += [(at, max(at, end), shape) for (at, shape), end in zip(ordered, ends, strict=True)] if ordered else []
    starts.sort(key=lambda each: each[0])
    nexts = [at for at, _, _ in starts[1:]] + [float("inf")]
    return [
        # Frame 0 of a switch file is what Papagayo writes before the first one.
        Phone(max(0, at - first) / rate, max(0, min(end, after) - first) / rate, shape)
        for (at, end, shape), after in zip(starts, nexts, strict=False)
    ]


def _voice_of(voices: dict[str, list[Phone]], progress: Progress) -> list[Phone]:
    spoken = {name: phones for name, phones in voices.items() if phones}
    if len(spoken) > 1:
        listed = ", ".join(f"“{shown(name, 30)}”" for name in list(spoken)[:5])
        progress.message(f"The project has {len(spoken)} voices ({listed}): the first one is spoken.")
    return next(iter(spoken.values()), [])


def _rate(text: object) -> float:
    try:
        return float(frame_rate_of(text))
    except ValueError as error:
        raise Damaged(f"it claims {shown(text, 20)} frames a second") from error


def _frame(text: str) -> int:
    if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) < 10):
        raise Damaged(f"“{shown(text, 20)}” stands where a number should be")
    return int(text)


def _is_frame(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9


def _is_phone(phone: tuple[object, object]) -> bool:
    return _is_frame(phone[0]) and isinstance(phone[1], str)
