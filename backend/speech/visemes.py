"""Visemes: the shapes of the mouth, and which of them each phone has.

The fifteen shapes are those of Oculus Lipsync (MPEG-4's 14 visemes and silence), each written as values of ARKit's
channels. Which phone has which shape follows the Oculus table; diphthongs pass through two shapes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..footage.detector import SCORE_NAMES
from .phones import SILENCES, Alphabet, Phones


@dataclass(frozen=True)
class Viseme:
    """A shape of the mouth and how much of it survives beside other shapes."""

    channels: dict[str, float]
    """ARKit's channels; `mouthStretch` stands for both sides."""
    jaw: float
    """Dominance over the neighbours in opening the jaw (Cohen and Massaro's alpha)."""
    lips: float
    """The same for all other channels."""
    reach: tuple[float, float] = (0.05, 0.05)
    """Seconds before and after the phone in which its dominance falls to 1 / e."""
    touches: bool = False
    """Whether lips, or lips and teeth, must meet, whatever the neighbours are."""


REST: Final = "sil"
VISEMES: Final[dict[str, Viseme]] = {
    REST: Viseme({}, jaw=0.5, lips=0.5),
    "PP": Viseme({"mouthPress": 0.3, "mouthRollLower": 0.12, "mouthRollUpper": 0.12}, jaw=0.7, lips=1.0, touches=True),
    "FF": Viseme(
        {"jawOpen": 0.03, "mouthRollLower": 0.6, "mouthUpperUp": 0.3, "mouthShrugLower": 0.15},
        jaw=0.7,
        lips=1.0,
        touches=True,
    ),
    "TH": Viseme({"jawOpen": 0.16, "mouthLowerDown": 0.2, "mouthUpperUp": 0.12, "tongueOut": 0.15}, jaw=0.6, lips=0.5),
    "DD": Viseme(
        {"jawOpen": 0.1, "mouthLowerDown": 0.18, "mouthUpperUp": 0.1, "mouthStretch": 0.08}, jaw=0.7, lips=0.35
    ),
    "kk": Viseme({"jawOpen": 0.18, "mouthLowerDown": 0.12, "mouthUpperUp": 0.1}, jaw=0.3, lips=0.2),
    "CH": Viseme(
        {"jawOpen": 0.08, "mouthFunnel": 0.45, "mouthPucker": 0.2, "mouthUpperUp": 0.12},
        jaw=0.8,
        lips=0.9,
        reach=(0.07, 0.06),
    ),
    "SS": Viseme({"jawOpen": 0.04, "mouthStretch": 0.2, "mouthSmile": 0.08, "mouthLowerDown": 0.25}, jaw=1.0, lips=0.6),
    "nn": Viseme({"jawOpen": 0.12, "mouthLowerDown": 0.15, "mouthUpperUp": 0.08}, jaw=0.5, lips=0.3),
    "RR": Viseme({"jawOpen": 0.14, "mouthFunnel": 0.25, "mouthPucker": 0.3}, jaw=0.5, lips=0.8, reach=(0.07, 0.06)),
    "aa": Viseme({"jawOpen": 0.55, "mouthLowerDown": 0.12, "mouthUpperUp": 0.1}, jaw=1.0, lips=0.6),
    "E": Viseme(
        {"jawOpen": 0.32, "mouthStretch": 0.22, "mouthSmile": 0.12, "mouthLowerDown": 0.2, "mouthUpperUp": 0.15},
        jaw=1.0,
        lips=0.7,
    ),
    "ih": Viseme(
        {"jawOpen": 0.17, "mouthStretch": 0.35, "mouthSmile": 0.25, "mouthLowerDown": 0.25, "mouthUpperUp": 0.12},
        jaw=0.9,
        lips=0.8,
    ),
    "oh": Viseme({"jawOpen": 0.38, "mouthFunnel": 0.45, "mouthPucker": 0.2}, jaw=1.0, lips=1.0, reach=(0.09, 0.06)),
    "ou": Viseme({"jawOpen": 0.12, "mouthPucker": 0.85, "mouthFunnel": 0.25}, jaw=0.9, lips=1.0, reach=(0.1, 0.07)),
}
"""By the names of Oculus Lipsync. Lips round early, so the reach of a rounded shape is long."""

_ARPABET: Final = {
    "PP": "P B M EM",
    "FF": "F V",
    "TH": "TH DH",
    "DD": "T D DX",
    "kk": "K G NG",
    "CH": "CH JH SH ZH",
    "SS": "S Z",
    "nn": "N L EL EN NX",
    "RR": "R ER AXR",
    "aa": "AA AH AX AE",
    "E": "EH",
    "ih": "IH IY IX Y",
    "oh": "AO",
    "ou": "UH UW UX W WH",
    "": "HH Q",
    "aa ou": "AW",
    "aa ih": "AY",
    "E ih": "EY",
    "oh ou": "OW",
    "oh ih": "OY",
}
_RHUBARB: Final = {"PP": "A", "SS": "B", "E": "C", "aa": "D", "oh": "E", "ou": "F", "FF": "G", "nn": "H", REST: "X"}
"""Rhubarb Lip Sync's mouth shapes, whose letters are Hanna-Barbera's."""
_PRESTON_BLAIR: Final = {
    "PP": "MBP", "FF": "FV", "aa": "AI", "E": "E", "oh": "O", "ou": "U WQ", "nn": "L", "DD": "ETC"
}  # fmt: skip
_FLEMING_DOBBS: Final = {
    "PP": "MBP", "FF": "FV", "TH": "TH", "DD": "NLTDR", "kk": "GK", "CH": "SH", "E": "EHSZ", "aa": "AA", "ih": "IY",
    "oh": "O",
}  # fmt: skip
"""The sets of mouth shapes that Papagayo offers; its name of a shape lists its phones."""
_IPA: Final = {
    "PP": "pbmʙɓ",
    "FF": "fvɱʋɸβⱱ",
    "TH": "θð",
    "DD": "tdʈɖɗ",
    "kk": "kgɡqɢcɟxɣχŋɲçʝɰɠ",
    "CH": "ʃʒɕʑʂʐ",
    "SS": "sz",
    "nn": "nɳlɫɭʎɬɮ",
    "RR": "rɹɻɾɽ",
    "aa": "aɑɐʌæäɶ",
    "E": "eɛəɜɘɞɚɝ",
    "ih": "iɪɨj",
    "oh": "oɔɒøœɵɤ",
    "ou": "uʊʉɯwʍyʏɥ",
    "": "hɦħʕʔʁʀ",
}
_VOWELS: Final = frozenset(("aa", "E", "ih", "oh", "ou"))


def _by_label(table: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {label: tuple(shapes.split()) for shapes, labels in table.items() for label in labels.split()}


_LABELS: Final = {
    "ARPAbet": _by_label(_ARPABET),
    "Rhubarb": _by_label(_RHUBARB),
    "Preston Blair": _by_label(_PRESTON_BLAIR),
    "Fleming Dobbs": _by_label(_FLEMING_DOBBS),
}
_LETTERS: Final = {letter: shape for shape, letters in _IPA.items() for letter in letters}


def visemes_of(label: str, alphabet: Alphabet) -> tuple[str, ...] | None:
    """The shapes that a phone passes through; none for a phone during which the mouth is as its neighbours want it
    (h), and None for a label that is unknown.
    """
    label = label.strip()
    if label.lower() in SILENCES:
        return (REST,)
    if alphabet == "IPA":
        return _visemes_of_ipa(label)
    return _LABELS[alphabet].get(re.sub(r"[\d*]+$", "", label).upper())


def _visemes_of_ipa(label: str) -> tuple[str, ...] | None:
    """Vowels one after the other; of an affricate the last sound. Length, stress, tone and voicing do not matter."""
    letters = [letter for letter in unicodedata.normalize("NFD", label.lower()) if letter in _LETTERS]
    if not letters:
        return None
    shapes = [_LETTERS[letter] for letter in letters]
    vowels = [shape for shape in shapes if shape in _VOWELS]
    return tuple(dict.fromkeys(vowels)) if vowels else (shapes[-1],) if shapes[-1] else ()


@dataclass(frozen=True)
class Segment:
    """A shape that the mouth has for a while."""

    start: float
    """Seconds."""
    end: float
    viseme: str


FIRST_SHARE: Final = 0.6
"""Of a diphthong's time, for its first shape."""


def segments_of(phones: Phones) -> list[Segment]:
    """The shapes of the phones in the order of time. Labels that are unknown count as silence."""
    segments = []
    for phone in phones.phones:
        shapes = visemes_of(phone.label, phones.alphabet)
        shapes = (REST,) if shapes is None else shapes
        ends = np.linspace(phone.start, phone.end, len(shapes) + 1)
        if len(shapes) == 2:
            ends[1] = phone.start + FIRST_SHARE * (phone.end - phone.start)
        segments += [
            Segment(float(start), float(end), shape) for start, end, shape in zip(ends, ends[1:], shapes, strict=False)
        ]
    return segments


def weights_of(viseme: str) -> np.ndarray:
    """(52,): a shape as values of ARKit's channels, in the order of SCORE_NAMES."""
    weights = np.zeros(len(SCORE_NAMES))
    for name, value in VISEMES[viseme].channels.items():
        for column, channel in enumerate(SCORE_NAMES):
            if channel in (name, f"{name}Left", f"{name}Right"):
                weights[column] = value
    return weights
