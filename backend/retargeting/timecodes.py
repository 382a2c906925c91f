"""The times of a recording's rows, and their frame rate, from whatever a program writes in the column of times.

- Live Link Face: `HH:MM:SS:FF.sss`, the frame counted at the take's rate, `;` before it for drop-frame.
- Office programs that took it for a time of day: `HH:MM:SS.mmm`, without its fraction `HH:MM:SS`, or `MM:SS.s`; a
  comma in place of the point, a point in place of the colons, AM or PM behind it, or a fraction of a day.
- Other programs: seconds, milliseconds, or the number of the frame, perhaps of every second one.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

import numpy as np

from ..progress import Progress
from .text_table import number_of

RATES: Final = tuple(
    Fraction(*pair)
    for pair in (
        (24000, 1001),
        (24, 1),
        (25, 1),
        (30000, 1001),
        (30, 1),
        (48, 1),
        (50, 1),
        (60000, 1001),
        (60, 1),
        (100, 1),
        (120, 1),
    )
)
DEFAULT_RATE: Final = Fraction(60)
"""Live Link Face's default recording rate."""
_DAY: Final = 86_400.0
_FRAMES: Final = re.compile(
    r"(\d{1,4})[:.](\d{1,2})[:.](\d{1,2})(?:([:;])(\d{1,4})(?:[.,](\d{1,9}))?|[.,](\d{1,2}))", re.ASCII
)
_DATE: Final = re.compile(
    r"'?(?:(?:\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4})?(?:T|\s+)(.*?)\s*(?:Z|UTC|[+-]\d\d:?\d\d)?|(.*))", re.ASCII
)
"""What programs write around a time of day: an apostrophe before a text, a date before the time, a zone behind it."""
_CLOCK: Final = re.compile(
    r"(?:(\d{1,4})[:.])?(\d{1,2}):(\d{1,2}(?:[.,]\d{1,9})?)\s*([ap])?\.?(?:m\.?)?", re.ASCII | re.IGNORECASE
)


def times_of(codes: list[str], progress: Progress, counts_frames: bool = False) -> tuple[np.ndarray, Fraction] | None:
    """The rows' times in seconds (R,), ascending, and their frame rate. None where they cannot be read.
    `counts_frames`: whole numbers are those of frames, by the column's name.
    """
    plain = [(found[1] or found[2] or "") if (found := _DATE.fullmatch(code.strip())) else code for code in codes]
    counted = [found for code in plain if (found := _FRAMES.fullmatch(code))]
    if len(counted) == len(plain) and plain:
        return _of_counted_frames(counted, progress)
    clock = [found for code in plain if (found := _CLOCK.fullmatch(code))]
    if len(clock) == len(plain) and plain:
        return _of_seconds(_after_midnight(np.array([_seconds_of(found) for found in clock])), progress)
    try:
        numbers = np.array([number_of(code) for code in plain])
    except ValueError:
        return None
    if len(numbers) < 2 or not np.isfinite(numbers).all() or (np.diff(numbers) < 0).any():
        return None
    return _of_numbers(numbers, progress, counts_frames)


def _of_counted_frames(parsed: list[re.Match[str]], progress: Progress) -> tuple[np.ndarray, Fraction] | None:
    whole = np.array([int(m[1]) * 3600 + int(m[2]) * 60 + int(m[3]) for m in parsed], float)
    frames = np.array([float(f"{m[5] or m[7]}.{m[6] or 0}") for m in parsed])
    whole = _after_midnight(whole)
    drops = any(m[4] == ";" for m in parsed)
    # Within one second the rate cannot be inferred from the frame counter.
    counted = DEFAULT_RATE
    if (np.diff(whole) > 0).any() and frames.max() >= 1:
        possible = [rate for rate in RATES if rate.denominator == 1 and (rate % 30 == 0 or not drops)]
        counted = next((rate for rate in possible if rate >= int(frames.max()) + 1), DEFAULT_RATE)
    numbers = whole * float(counted) + frames
    if drops:
        # Two numbers of 30 are skipped at the beginning of each minute but every tenth (SMPTE 12M). No frame is.
        minutes = whole // 60
        numbers -= float(counted) / 15 * (minutes - minutes // 10)
        counted *= Fraction(1000, 1001)
    order = np.maximum.accumulate(numbers / float(counted))
    found = _with_rate(order, progress)
    if found is None:
        return None
    step = float(np.median(np.diff(order)))
    times, rate = found
    return times, counted if abs(float(counted) * step - 1) < 0.01 else rate


def _seconds_of(found: re.Match[str]) -> float:
    hours = int(found[1] or 0)
    if found[4]:
        hours = hours % 12 + 12 * (found[4].lower() == "p")
    return hours * 3600 + int(found[2]) * 60 + float(found[3].replace(",", "."))


def _after_midnight(seconds: np.ndarray) -> np.ndarray:
    """Where the time falls by hours, midnight lies between two rows; where it falls by half an hour and has no hours, a
    new hour has begun.
    """
    span = 3600.0 if seconds.max() < 3600 else _DAY
    return seconds + span * np.cumsum(np.diff(seconds, prepend=seconds[0]) < -span / 2)


def _of_seconds(seconds: np.ndarray, progress: Progress) -> tuple[np.ndarray, Fraction] | None:
    order = np.maximum.accumulate(seconds)
    steps = np.diff(order)
    if (steps == 0).mean() < 0.3 if len(steps) else True:
        return _with_rate(order, progress)
    # The office program has rounded the times: several rows have one time. The rows between the first and the last
    # change tell the rate.
    changes = np.flatnonzero(steps > 0)
    rate = DEFAULT_RATE
    if len(changes) >= 2:
        step = float((order[changes[-1] + 1] - order[changes[0] + 1]) / (changes[-1] - changes[0]))
        rate = _nearest_rate(step) if _is_filmed(step) else DEFAULT_RATE
    progress.message(
        f"The performance's times were rounded by the program that saved it: its rows are taken as {float(rate):g} a "
        "second."
    )
    return np.arange(len(order)) / float(rate), rate


def _of_numbers(numbers: np.ndarray, progress: Progress, counts_frames: bool) -> tuple[np.ndarray, Fraction] | None:
    step = float(np.median(np.diff(numbers)))
    if numbers.max() < 2 and step < 1e-4:
        # Office programs store times of day as fractions of a day.
        return _of_seconds(numbers * _DAY, progress)
    # No face is filmed at 333 frames a second or more, which steps of up to 3 milliseconds would be.
    if 1 <= step <= (np.inf if counts_frames else 3) and np.array_equal(numbers, np.rint(numbers)):
        rate = DEFAULT_RATE / Fraction(step).limit_denominator(2)
        by_steps = f" in steps of {step:g}, of {DEFAULT_RATE} a second" if step > 1 else ""
        progress.message(
            f"The performance counts its frames{by_steps}: its rows are taken as {float(rate):g} a second."
        )
        return (numbers - numbers[0]) / float(DEFAULT_RATE), rate
    return _with_rate(numbers if step < 1 else numbers / 1000, progress)


def _with_rate(order: np.ndarray, progress: Progress) -> tuple[np.ndarray, Fraction] | None:
    steps = np.diff(order) if len(order) > 1 else np.zeros(1)
    step = float(np.median(steps))
    if not _is_filmed(step):
        progress.message(
            f"The performance's timecodes are {step:.3g} s apart, which no face is filmed at: its rows are taken as "
            f"{DEFAULT_RATE} a second."
        )
        return np.arange(len(order)) / float(DEFAULT_RATE), DEFAULT_RATE
    # Steps are rounded to milliseconds, and rows may be missing: the mean of those that are not gaps is exact.
    return order, _nearest_rate(float(steps[np.abs(steps - step) < step / 2].mean()))


def _is_filmed(step: float) -> bool:
    """Whether a face may be filmed at frames that are `step` seconds apart."""
    return 1e-3 < step < 0.2


def _nearest_rate(step: float) -> Fraction:
    nearest = min(RATES, key=lambda rate: abs(float(rate) * step - 1))
    return nearest if abs(float(nearest) * step - 1) <= 0.03 else Fraction(1 / step).limit_denominator(100)
