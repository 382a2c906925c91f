"""Clean-up of a take: its curves are changed in place, within a range of the scene's frames.

*Scale*, *offset* and *mirror* change the values of the keys that there are. The others sample the curves, filter the
samples and key each of them; `simplify` makes few keys of many again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..errors import EffigyError
from .curve_filters import bridged, find_spikes, one_euro, savitzky_golay, soft_range
from .curve_fit import fit_keys, handles_of
from .keys import bezier_keys, keys_of
from .performance import widen_slider
from .rig_properties import Rig
from .takes import PARTS, Channel, Take, channels_of, grid_of, slider_channel, take_of

BLINK: Final = ("eyeBlinkLeft", "eyeBlinkRight")
_WIDE: Final = ("eyeWideLeft", "eyeWideRight")
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Choice:
    """What of which take is changed."""

    take: str = ""
    """Its name; empty for the tracked performance."""
    first: float = -np.inf
    last: float = np.inf
    """The scene's frames, both included; infinite for the whole take."""
    parts: Collection[str] = PARTS
    only: str = ""
    """A part of the channels' names."""

    def resolve(self, rig: Rig) -> tuple[Take, list[Channel], np.ndarray]:
        """The take, its channels, and (F,) the scene's frames at which they are sampled."""
        take = take_of(rig, self.take)
        channels = channels_of(rig, take, self.parts, self.only)
        return take, channels, self.frames(take, channels)

    def frames(self, take: Take, channels: Collection[Channel]) -> np.ndarray:
        begin, end = take.span
        first, last = max(self.first, begin), min(self.last, end)
        if first > last:
            raise EffigyError(
                f"The range {self.first:g} to {self.last:g} lies outside of “{take.name}”, which plays from frame "
                f"{begin:g} to {end:g}."
            )
        return grid_of(channels, first, last)


@dataclass(frozen=True)
class Simplified:
    """What `simplify` has done."""

    before: int
    """Keys."""
    after: int
    error: float
    """Millimetres by which the channel that moved most moves the face."""
    channel: str
    """Its name."""
    frame: float
    """The scene's frame of that error."""


def simplify(rig: Rig, choice: Choice, tolerance: float, progress: Progress = lambda _: None) -> Simplified:
    """Leaves only the keys that each channel needs to stay within `tolerance` millimetres, on the face, of its keys."""
    _, channels, frames = choice.resolve(rig)
    before = after = 0
    worst = (0.0, channels[0].name, float(frames[0]))
    for index, channel in enumerate(channels):
        progress(index / len(channels))
        times, values = channel.to_action(frames), channel.sample(frames)
        before += _count(channel)
        if np.ptp(values, axis=0).max() == 0 and all(len(curve.keyframe_points) == 1 for curve in channel.curves):
            after += _count(channel)
            continue
        fit = fit_keys(times, values * channel.reach, tolerance)
        kept, slopes = times[fit.kept], fit.slopes / channel.reach
        columns = zip(values[fit.kept].T, slopes.T, strict=True)
        channel.replace(
            kept,
            [bezier_keys(kept, column, *handles_of(kept, column, slope)) for column, slope in columns],
        )
        after += _count(channel)
        worst = max(worst, (float(fit.errors.max()), channel.name, float(frames[fit.errors.argmax()])))
    return Simplified(before, after, *worst)


def smooth_one_euro(rig: Rig, choice: Choice, cutoff: float, speed_factor: float, fade: float, rate: float) -> int:
    """Smooths by `curve_filters.one_euro`: `cutoff` in Hz, `speed_factor` in Hz for a millimetre a second, at the
    scene's frame `rate`. Returns the number of channels.
    """
    return _filtered(
        rig, choice, fade, lambda times, v, starts: one_euro(times / rate, v, starts, cutoff, speed_factor)
    )


def smooth_savitzky_golay(rig: Rig, choice: Choice, window: int, order: int, fade: float) -> int:
    """Smooths by `curve_filters.savitzky_golay` over `window` frames. Returns the number of channels."""
    return _filtered(rig, choice, fade, lambda times, values, _: savitzky_golay(times, values, window | 1, order))


def remove_spikes(rig: Rig, choice: Choice, longest: int, height: float) -> list[tuple[str, float]]:
    """Bridges spikes of at most `longest` frames and more than `height` millimetres by straight lines. Returns each
    spike's channel and the scene's frame where it begins.
    """
    _, channels, frames = choice.resolve(rig)
    samples, starts = _sampled(channels, frames)
    spikes, removed = find_spikes(samples, starts, longest, height), []
    for index, channel in enumerate(channels):
        at = spikes[:, index]
        if not at.any():
            continue
        values = bridged(frames, channel.sample(frames), at)
        for begin in np.flatnonzero(at & ~np.r_[False, at[:-1]]).tolist():
            end = begin + int(np.argmin(np.r_[at[begin:], False]))
            # Other keys of the channel stay as they are.
            channel.key(frames[begin:end], values[begin:end])
            removed.append((channel.name, float(frames[begin])))
    return sorted(removed, key=lambda spike: spike[1])


def hold_lids(rig: Rig, choice: Choice, closed: float, ease: float) -> None:
    """Holds both eyes shut at `closed`, 1 for shut lids, in the chosen range, with `ease` frames to shut and to open
    inside of it.
    """
    take = take_of(rig, choice.take)
    if (take.face is None) or not all(name in rig.slider_names for name in BLINK):
        raise EffigyError(f"“{rig.head_name}” has no sliders {' and '.join(BLINK)}, which close the eyes.")
    for name in (*BLINK, *_WIDE):
        channel = slider_channel(rig, take, name)
        if channel is None:
            continue
        frames = choice.frames(take, [channel])
        weights, goal = soft_range(frames, frames[0], frames[-1], ease)[:, None], closed if name in BLINK else 0.0
        values = channel.sample(frames)
        channel.key(frames, values + weights * (goal - values))
        widen_slider(rig.key_blocks[name], 0.0, goal)


def blend_takes(rig: Rig, choice: Choice, other: str, share: float, fade: float) -> int:
    """Changes the chosen channels by `share` towards the take `other`, at the same frames of the scene; `fade`: frames
    in which the change begins and ends. Returns the number of channels that both have.
    """
    take, channels, frames = choice.resolve(rig)
    source = take_of(rig, other)
    if source.name == take.name:
        raise EffigyError("Choose another take to blend with: these are the same.")
    begin, end = source.span
    common = (frames >= begin - 1e-3) & (frames <= end + 1e-3)
    if not common.any():
        raise EffigyError(f"“{source.name}” plays from frame {begin:g} to {end:g}, “{take.name}” at other frames.")
    frames = frames[common]
    others = {channel.path: channel for channel in channels_of(rig, source)}
    both = [channel for channel in channels if channel.path in others]
    weights = share * soft_range(frames, frames[0], frames[-1], fade)
    for channel in both:
        values, towards = channel.sample(frames), others[channel.path].sample(frames)
        channel.key(frames, channel.mixed(values, towards, weights))
    return len(both)


def _filtered(
    rig: Rig,
    choice: Choice,
    fade: float,
    smooth: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> int:
    """Replaces the samples, in millimetres on the face, by `smooth(frames, samples, starts)`."""
    _, channels, frames = choice.resolve(rig)
    samples, starts = _sampled(channels, frames)
    # At the ends of the whole take there is nothing to fade to.
    weights = np.ones(len(frames)) if np.isinf(choice.first) else soft_range(frames, frames[0], frames[-1], fade)
    smoothed = samples + weights[:, None] * (smooth(frames, samples, starts) - samples)
    for channel, values in zip(channels, np.split(smoothed, starts[1:], axis=1), strict=True):
        if len(channel.curves[0].keyframe_points) > 1:
            channel.key(frames, channel.whole(values / channel.reach))
    return len(channels)


def _sampled(channels: list[Channel], frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F, C) samples in millimetres on the face, and (G,) the first column of each channel."""
    samples = [channel.sample(frames) * channel.reach for channel in channels]
    return np.concatenate(samples, 1), np.cumsum([0, *(each.shape[1] for each in samples[:-1])])


def _count(channel: Channel) -> int:
    return sum(len(keys_of(curve)["co"]) for curve in channel.curves)
