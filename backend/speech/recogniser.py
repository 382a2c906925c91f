"""Phones of English speech by PocketSphinx, whose package has its acoustic model with it.

Without a text, the phones are those that the acoustic model and a model of phones in a row find likeliest (allphone
decoding); contacts of lips that it misses are then added by ear (`closures`). With a text, the words' pronunciations
are aligned with the sound, which is more exact (forced alignment).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import EffigyError
from ..progress import Progress
from ..splatting.short_paths import short_path
from .closures import with_heard_contacts
from .phones import Phone, Phones
from .sound import RATE, Sound
from .spelling import phones_of_spelling

FRAME: Final = 0.01
"""Seconds of a frame of the decoder."""
LONGEST, SHORTEST = 15.0, 8.0
"""Seconds of a part that is decoded at once. Parts end where the sound is quietest."""
BEAMS: Final[tuple[dict[str, float], ...]] = ({}, {"beam": 1e-64, "wbeam": 1e-64, "pbeam": 1e-64})
"""Settings of the decoder for an alignment, the fastest first; the next ones are tried where it fails."""
MOST_TEXT: Final = 20_000
"""Characters of a text: what is said in half an hour."""
QUIET: Final = -35.0
"""dB below the loud parts of a sound at which phones are taken for noise."""


def recognise(sound: Sound, text: str, progress: Progress) -> Phones:
    """The phones of English speech, in the ARPAbet. `text` is what is said, or empty.

    Raises an `EffigyError` where the text cannot be aligned with the sound.
    """
    phones = tuple(_aligned(sound, text, progress) if text else _free(sound, progress))
    times, levels = sound.levels()
    quiet = np.quantile(levels, 0.95) + QUIET

    def is_heard(phone: Phone) -> bool:
        within = levels[slice(*np.searchsorted(times, (phone.start, phone.end + FRAME)))]
        return len(within) == 0 or bool(within.max() > quiet)

    found = Phones("ARPAbet", tuple(phone for phone in phones if is_heard(phone)))
    return found if text else with_heard_contacts(found, sound, progress)


def _decoder(**settings: Any) -> Any:
    try:
        import pocketsphinx
    except ImportError as error:
        raise EffigyError(
            "This installation cannot listen to speech, because its package pocketsphinx is missing, which is not made "
            "for Python 3.12: give a phone table, or install the backend again from a Blender of blender.org."
        ) from error

    model = short_path(str(Path(pocketsphinx.__file__).parent / "model" / "en-us"))
    named = {name: f"{model}/{value}" for name, value in settings.items() if isinstance(value, str)}
    return pocketsphinx.Decoder(hmm=f"{model}/en-us", lm=None, loglevel="FATAL", **(settings | named))


def _free(sound: Sound, progress: Progress) -> Iterator[Phone]:
    decoder = _decoder(allphone="en-us-phone.lm.bin", dict=None, lw=2.0, beam=1e-20, pbeam=1e-20)
    cuts = parts(sound)
    for start, end in pairwise(cuts):
        progress.raise_if_cancelled()
        progress.update("speech", start // RATE, max(1, len(sound.samples) // RATE))
        decoder.start_utt()
        decoder.process_raw(sound.samples[start:end].tobytes(), full_utt=True)
        decoder.end_utt()
        yield from _phones(decoder.seg() or (), start / RATE)


def _phones(segments: Any, shift: float) -> Iterator[Phone]:
    for each in segments:
        yield Phone(shift + FRAME * each.start_frame, shift + FRAME * (each.end_frame + 1), each.word)


def parts(sound: Sound) -> list[int]:
    """Samples at which a sound is cut into parts of `SHORTEST` to `LONGEST` seconds, its begin and end included."""
    times, levels = sound.levels()
    cuts = [0.0]
    while sound.seconds - cuts[-1] > LONGEST:
        first, last = np.searchsorted(times, (cuts[-1] + SHORTEST, cuts[-1] + LONGEST))
        cuts.append(float(times[first + np.argmin(levels[first:last])]))
    return [round(cut * RATE) for cut in cuts] + [len(sound.samples)]


def _aligned(sound: Sound, text: str, progress: Progress) -> list[Phone]:
    """The phones of the words of `text`, with the silences between them."""
    words, data = words_of(text), sound.samples.tobytes()

    def listen(decoder: Any, step: int) -> None:
        progress.raise_if_cancelled()
        progress.update("speech", step, len(BEAMS) + 1)
        decoder.start_utt()
        decoder.process_raw(data, full_utt=True)
        decoder.end_utt()

    for step, beams in enumerate(BEAMS):
        decoder = _decoder(dict="cmudict-en-us.dict", **beams)
        for word in dict.fromkeys(words):
            if decoder.lookup_word(word) is None:
                decoder.add_word(word, " ".join(phones_of_spelling(word)), True)
        with suppress(RuntimeError):
            decoder.set_align_text(" ".join(words))
            listen(decoder, step)
            if decoder.hyp() is not None and len(decoder.hyp().hypstr.split()) == len(words):
                break
    else:
        raise EffigyError("The text does not fit the sound: type what is said, word for word, or leave it empty.")
    found = [(each.word, each.start_frame, each.end_frame + 1) for each in decoder.seg()]
    with suppress(RuntimeError):
        decoder.set_alignment()
        listen(decoder, len(BEAMS))
        return [
            Phone(FRAME * phone.start, FRAME * (phone.start + phone.duration), phone.name)
            for word in decoder.get_alignment()
            for phone in word
        ]
    # The phones of a word that is slurred cannot all be told apart; when the words are said is known.
    return [phone for word, start, end in found for phone in _spread(decoder.lookup_word(word), start, end)]


def _spread(pronunciation: str | None, start: int, end: int) -> Iterator[Phone]:
    """The phones of a word, of equal lengths between two frames."""
    phones = (pronunciation or "SIL").split()
    times = FRAME * np.linspace(start, end, len(phones) + 1)
    for index, phone in enumerate(phones):
        yield Phone(float(times[index]), float(times[index + 1]), phone)


def words_of(text: str) -> list[str]:
    """The words of an English text in lower case. Raises an `EffigyError` for a text without words, and for one whose
    letters are not English.
    """
    if len(text) > MOST_TEXT:
        raise EffigyError(f"The text has more than {MOST_TEXT:,} characters: give only what is said in the sound.")
    plain = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if other := re.search(r"[^\W\d_a-zà-öø-ÿ]", plain):
        raise EffigyError(
            f"The text holds “{other[0]}”: only English can be aligned. For another language leave the text empty and "
            "give a phone table."
        )
    if number := re.search(r"\d+", plain):
        raise EffigyError(f"The text holds the number {number[0][:20]}: write numbers in words, as they are said.")
    words = [word.strip("'") for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*'?", plain)]
    if not words:
        raise EffigyError("The text holds no words: type what is said, or leave it empty.")
    return words
