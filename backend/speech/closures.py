"""Where lips touch, by ear.

The phone decoder decides for whole phones, and on voices that it was not trained on it takes many m, b and p for other
nasals and stops. What sets them apart are cues of some hundredths of a second: a dip of the energy, the burst after
it, and where formants come from and go to. A small network hears these: it looks at the log mel energies around a
frame and says how likely the lips touch each other (m, b, p), or the lower lip the teeth (f, v). It is trained on
synthetic voices whose phones are known (`assets/derive/closures.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from ..assets import asset_path
from ..progress import SILENT, Progress
from .phones import Phone, Phones
from .sound import RATE, Sound
from .visemes import visemes_of

STEP: Final = 0.01
"""Seconds between frames."""
WINDOW: Final = 400
"""Samples, 25 ms."""
_BINS: Final = 512
BANDS: Final = 24
LOWEST, HIGHEST = 80.0, 7600.0
"""Hz, the ends of the mel bands."""
FLOOR: Final = 6.0
"""Tens of dB below the loud parts of a sound to which energies are cut off."""
OFFSETS: Final = (-14, -10, -7, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 10, 14)
"""Frames, relative to the one that is judged, that the network looks at."""
BLOCK: Final = 4096
"""Frames whose energies are computed at once."""


@dataclass(frozen=True)
class Contact:
    """A way in which lips touch, and what decides whether they do."""

    viseme: str
    output: int
    """The network's."""
    label: str
    """Of a phone that is heard and that the decoder has missed, in the ARPAbet."""
    others: dict[str, str]
    """The decoder's phones of this viseme, and which phone each is where no contact is heard."""
    kept: float
    """Probability below which such a phone gives up its contact."""


CONTACTS: Final = (
    Contact("PP", 1, "B", {"P": "T", "B": "D", "M": "N", "EM": "EN"}, 0.3),
    Contact("FF", 2, "V", {"F": "TH", "V": "DH"}, 0.05),
)
HEARD, SURE = 0.5, 0.8
"""Probability above which a contact lasts, and which it must reach for a phone that the decoder has missed."""
SLACK: Final = 0.03
"""Seconds by which the decoder's phones lie beside what is heard."""


@dataclass(frozen=True)
class Network:
    """One hidden layer of rectified linear units."""

    weights: tuple[np.ndarray, np.ndarray]
    """(OFFSETS x BANDS, H) and (H, 3)."""
    biases: tuple[np.ndarray, np.ndarray]
    """(H,) and (3,)."""

    def __call__(self, energies: np.ndarray) -> np.ndarray:
        """(F, 3): probabilities of neither, lips that touch each other, and lip and teeth. `energies`: (F, BANDS)."""
        around = np.pad(energies, ((-OFFSETS[0], OFFSETS[-1]), (0, 0)), "edge")
        count = len(energies)
        hidden = self.biases[0] + sum(
            around[offset - OFFSETS[0] :][:count] @ self.weights[0][BANDS * place : BANDS * (place + 1)]
            for place, offset in enumerate(OFFSETS)
        )
        logits = np.maximum(hidden, 0) @ self.weights[1] + self.biases[1]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


@cache
def network() -> Network:
    with np.load(asset_path("models/closures.npz"), allow_pickle=False) as file:
        arrays = {name: file[name].astype(np.float32) for name in file.files}
    return Network((arrays["weights_0"], arrays["weights_1"]), (arrays["biases_0"], arrays["biases_1"]))


def with_heard_contacts(phones: Phones, sound: Sound, progress: Progress = SILENT) -> Phones:
    """The decoder's phones, in the ARPAbet, with the contacts of lips that are heard and without the others."""
    probabilities = network()(energies_of(sound, progress))
    found = list(phones.phones)
    for contact in CONTACTS:
        # Neighbouring frames are judged apart: one alone is no contact.
        heard = np.convolve(probabilities[:, contact.output], (0.25, 0.5, 0.25), "same")
        found = [_as_heard(phone, contact, heard) for phone in found]
        for first, last in _runs(heard > HEARD):
            if last - first > 1 and heard[first:last].max() > SURE:
                found = _with_contact(found, Phone(STEP * first, STEP * last, contact.label), contact)
    return Phones(phones.alphabet, tuple(found))


def _as_heard(phone: Phone, contact: Contact, heard: np.ndarray) -> Phone:
    if phone.label not in contact.others:
        return phone
    first, last = int((phone.start - SLACK) / STEP), int(np.ceil((phone.end + SLACK) / STEP)) + 1
    if heard[max(0, first) : last].max(initial=0) >= contact.kept:
        return phone
    return Phone(phone.start, phone.end, contact.others[phone.label])


def _runs(on: np.ndarray) -> np.ndarray:
    """(R, 2): where each run of true values in (F,) begins and ends."""
    return np.flatnonzero(np.diff(np.concatenate(([False], on, [False])).astype(np.int8))).reshape(-1, 2)


def _with_contact(phones: list[Phone], new: Phone, contact: Contact) -> list[Phone]:
    """The phones with a new one in place of what the decoder has heard meanwhile, unless they have that contact."""
    touches = {each.viseme for each in CONTACTS[: CONTACTS.index(contact) + 1]}
    kept: list[Phone] = []
    for phone in phones:
        if phone.end <= new.start or phone.start >= new.end:
            kept.append(phone)
            continue
        if touches & set(visemes_of(phone.label, "ARPAbet") or ()):
            return phones
        kept += [Phone(phone.start, new.start, phone.label)] if phone.start < new.start else []
        kept += [Phone(new.end, phone.end, phone.label)] if phone.end > new.end else []
    return sorted((*kept, new), key=lambda phone: phone.start)


def energies_of(sound: Sound, progress: Progress = SILENT) -> np.ndarray:
    """(F, BANDS) float32: log mel energies every `STEP`, in tens of dB, relative to their mean in the loud parts, so
    that neither the level nor the microphone matters.
    """
    bank, window = mel_bank(), np.hanning(WINDOW).astype(np.float32)
    padded = np.pad(sound.samples, WINDOW // 2)
    count, hop = len(sound.samples) // round(STEP * RATE) + 1, round(STEP * RATE)
    found = np.empty((count, BANDS), np.float32)
    for first in range(0, count, BLOCK):
        progress.raise_if_cancelled()
        part = padded[first * hop : (min(first + BLOCK, count) - 1) * hop + WINDOW] / np.float32(32768)
        frames = np.lib.stride_tricks.sliding_window_view(part, WINDOW)[::hop]
        power = np.abs(np.fft.rfft(frames * window, _BINS)).astype(np.float32) ** 2
        found[first : first + len(frames)] = np.log10(power @ bank + 1e-9)
    level = found.mean(axis=1)
    loud = level > np.quantile(level, 0.95) - 2.5
    return np.maximum(found - found[loud].mean(axis=0), -FLOOR)


@cache
def mel_bank() -> np.ndarray:
    """(_BINS / 2 + 1, BANDS) float32: triangles that are evenly spaced in mel."""
    edges = _hertz(np.linspace(_mel(LOWEST), _mel(HIGHEST), BANDS + 2))
    bins = np.arange(_BINS // 2 + 1)[:, None] * RATE / _BINS
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _hertz(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)
