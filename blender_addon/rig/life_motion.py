"""When a face blinks, how far its eyes wander while they rest, and how it breathes: as few keys, drawn from a seed.

Times are in seconds, angles in radians, lengths in metres. This module does not import bpy.
"""

from __future__ import annotations

from typing import Final

import numpy as np

SHUT: Final = 0.1
"""Seconds in which the lids fall."""
HELD: Final = 0.05
"""Seconds for which they stay shut."""
OPENS: Final = 0.2
"""Seconds in which they rise: a blink takes about 0.35 s (Schiffman, Sensation and Perception, 2001)."""
_SPREAD: Final = 0.5
"""Of the logarithm of the time between two blinks."""
_LEAST_APART: Final = 0.6
"""Seconds between the begins of two blinks that are no double blink."""
_SECOND: Final = 0.4
"""Seconds from the first to the second blink of a double one."""
_JUMP_TIME: Final = 0.12
"""Seconds within which the gaze jumps."""
_SHUT_LEAST: Final = 0.4
_SHUT_MORE: Final = 0.3
"""How far lids are shut that blink, at least, and more than usual: some people's lids hang."""
_INHALES: Final = 0.4
"""Share of a breath in which the chest rises."""


def blink_times(
    first: float,
    last: float,
    rate: float,
    doubles: float,
    seed: int,
    jumps: np.ndarray | None = None,
    busy: np.ndarray | None = None,
) -> np.ndarray:
    """(B,) ascending times at which blinks begin.

    Args:
        first: Begin of the range.
        last: End of the range; the last blink ends before it.
        rate: Blinks a minute, those at `jumps` not counted.
        doubles: Share of the blinks that a second one follows at once.
        seed: Of the random numbers.
        jumps: (J,) times at which the gaze jumps, each of which begins a blink.
        busy: (N, 2) begins and ends of times in which the lids are shut already, as in a filmed blink.

    """
    random, times = np.random.default_rng(seed), []
    if rate > 0:
        # The mean of a log-normal variable is exp(mu + sigma^2 / 2).
        middle = np.log(60 / rate) - _SPREAD**2 / 2
        # Somewhere within the first interval, as if the face had blinked before.
        time = first + random.uniform() * random.lognormal(middle, _SPREAD)
        while time < last:
            times.append(time)
            time += max(random.lognormal(middle, _SPREAD), _LEAST_APART)
    given = [] if jumps is None else [float(jump) for jump in jumps if first <= jump < last]
    kept: list[float] = []
    # A blink that belongs to a jump stays; a random one beside it does not.
    for time in (*given, *times):
        if all(abs(time - other) >= _LEAST_APART for other in kept):
            kept.append(time)
    kept += [time + _SECOND for time in kept if random.uniform() < doubles]
    length = SHUT + HELD + OPENS
    intervals = np.zeros((0, 2)) if busy is None else busy
    return np.array(
        sorted(
            time
            for time in kept
            if time + length <= last and not ((time < intervals[:, 1]) & (time + length > intervals[:, 0])).any()
        )
    )


def blink_in_longest_gap(first: float, last: float, busy: np.ndarray) -> np.ndarray:
    """(1,) time of a blink in the middle of the longest part of the range in which the lids are not shut already, or
    (0,) where none is long enough. `busy` (N, 2) as in `blink_times`.
    """
    begins, ends = np.r_[first, busy[:, 1]], np.r_[busy[:, 0], last]
    longest = int(np.argmax(ends - begins))
    length = SHUT + HELD + OPENS
    if ends[longest] - begins[longest] < length:
        return np.zeros(0)
    return np.array([(begins[longest] + ends[longest] - length) / 2])


def blink_keys(times: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """(K,) frames, at `rate` frames a second, and (K,) how far the lids are shut then, of blinks that begin at `times`.

    The lids stay shut for at least one frame, so that a blink is never seen half only.
    """
    held = max(HELD, 1 / rate)
    steps = np.cumsum((0.0, SHUT, held, OPENS))
    frames, shut = [], []
    for time in times:
        moments = (time + steps) * rate
        if frames and moments[0] <= frames[-1]:
            # The second of a double blink begins before the lids are up.
            del frames[-1], shut[-1]
            moments[0] = max(moments[0], frames[-1] + 0.5 * OPENS * rate)
            frames += moments.tolist()
            shut += [0.4, 1.0, 1.0, 0.0]
            continue
        frames += moments.tolist()
        shut += [0.0, 1.0, 1.0, 0.0]
    return np.array(frames), np.array(shut)


def gaze_jumps(times: np.ndarray, directions: np.ndarray, least: float) -> np.ndarray:
    """(J,) times at which a gaze (F, 2), in radians at `times` (F,), begins to move by more than `least` within
    `_JUMP_TIME`.
    """
    if len(times) < 2:
        return np.zeros(0)
    later = np.stack([np.interp(times + _JUMP_TIME, times, column) for column in directions.T], 1)
    moves = np.linalg.norm(later - directions, axis=1) > least
    begins = np.flatnonzero(moves & ~np.r_[False, moves[:-1]])
    return times[begins] + _JUMP_TIME / 2


def shut_intervals(times: np.ndarray, shut: np.ndarray, margin: float = 0.3) -> np.ndarray:
    """(N, 2) begins and ends, with a `margin`, of the times (F,) at which lids that are `shut` (F,) so far blink: they
    are far more shut than they usually are.
    """
    is_shut = shut > max(_SHUT_LEAST, float(np.median(shut)) + _SHUT_MORE)
    begins = np.flatnonzero(is_shut & ~np.r_[False, is_shut[:-1]])
    ends = np.flatnonzero(is_shut & ~np.r_[is_shut[1:], False])
    return np.stack((times[begins] - margin, times[ends] + margin), 1)


def saccades(first: float, last: float, rate: float, size: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(S,) times of small jumps of resting eyes, `rate` a second on the average, and (S, 2) where the eyes look from
    then on, relative to where they were meant to: sideways and up, with a standard deviation of `size`.

    The eyes begin and end at zero. Each jump takes the eyes about half of the way back, as drift and correction do.
    """
    random, times, places = np.random.default_rng(seed), [first], [np.zeros(2)]
    while rate > 0:
        # Of a gamma distribution: never one upon the other, and without long pauses.
        time = times[-1] + 0.15 + random.gamma(3, max(1 / rate - 0.15, 0.01) / 3)
        if time >= last - 0.15:
            break
        times.append(time)
        places.append(0.5 * places[-1] + random.normal(0, size * np.sqrt(0.75), 2) * (1, 0.6))
    times.append(last)
    places.append(np.zeros(2))
    return np.array(times), np.array(places)


def breaths(first: float, last: float, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(K,) times and (K,) how full the chest is then, 0 to about 1: the turning points of `rate` breaths a minute. It
    is empty at both ends.
    """
    random, times, full, time = np.random.default_rng(seed), [first], [0.0], first
    while rate > 0:
        length = 60 / rate * np.clip(random.normal(1, 0.12), 0.6, 1.4)
        if time + length > last:
            break
        times += [time + _INHALES * length, time + length]
        full += [float(np.clip(random.normal(1, 0.15), 0.6, 1.4)), 0.0]
        time += length
    if times[-1] < last:
        times.append(last)
        full.append(0.0)
    return np.array(times), np.array(full)
