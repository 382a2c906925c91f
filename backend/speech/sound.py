"""The sound of a film or an audio file as the recogniser hears it: one channel at 16 kHz."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Stream

from ..errors import EffigyError
from ..footage.container import LONGEST, open_container
from ..progress import SILENT, Progress
from ..reading import check_regular, reading

RATE: Final = 16_000
"""Samples a second of a `Sound`: what acoustic models of speech are trained on."""
NOUN: Final = "sound"
REMEDY: Final = "copy or export it again"
MOST_SECONDS: Final = 30 * 60.0
"""Of a sound: 58 MB of samples. A longer one is cut into scenes first."""
SILENT_LEVEL: Final = -55.0
"""dB below full scale of the loudest twentieth of a sound in which nobody can be heard: the noise of a microphone."""
_STEP: Final = 0.01
"""Seconds between the levels of `Sound.levels`."""
_WINDOW: Final = 0.03


@dataclass(frozen=True)
class Sound:
    """One channel of sound."""

    samples: np.ndarray
    """(N,) int16, `RATE` a second."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """Times (L,) in seconds, every 10 ms, and the root mean square of 30 ms around each, (L,) in dB of full
        scale.
        """
        squares = np.concatenate(([0.0], np.cumsum((self.samples / 32768.0) ** 2)))
        times = np.arange(0, max(self.seconds, _STEP), _STEP)
        first, last = (
            np.clip(((times + side) * RATE).astype(int), 0, len(self.samples)) for side in (-_WINDOW / 2, _WINDOW / 2)
        )
        power = (squares[last] - squares[first]) / np.maximum(last - first, 1)
        return times, 10 * np.log10(np.maximum(power, 1e-12))


def read_sound(path: Path, progress: Progress = SILENT) -> Sound:
    """The sound of a film or an audio file, from the time on at which its pictures begin.

    Raises an `EffigyError` for a file without sound, for one that is too long, and for one in which nothing is heard.
    """
    path = Path(path)
    with reading(path, NOUN, REMEDY):
        check_regular(path, NOUN)
        samples = np.concatenate([np.zeros(0, np.int16), *_limited(path, progress)])
    sound = Sound(samples)
    if sound.seconds < 0.1:
        raise EffigyError(f"{path.name} holds no sound that can be decoded: choose another file.")
    if np.quantile(sound.levels()[1], 0.95) < SILENT_LEVEL:
        raise EffigyError(f"{path.name} is silent: choose a sound in which someone speaks.")
    return sound


def _limited(path: Path, progress: Progress) -> Iterator[np.ndarray]:
    """Blocks of samples. Raises an `EffigyError` when they are too many."""
    count, most = 0, int(MOST_SECONDS * RATE)
    with open_container(path) as container:
        if not container.streams.audio:
            raise EffigyError(f"{path.name} has no sound: choose a file with speech.")
        for block in _decoded(container):
            progress.raise_if_cancelled()
            count += len(block)
            if count > most:
                raise EffigyError(
                    f"{path.name} lasts longer than {MOST_SECONDS / 60:g} minutes: cut it into scenes, then choose one."
                )
            yield block


def _decoded(container: InputContainer) -> Iterator[np.ndarray]:
    """Blocks of samples from the time on at which the pictures begin. Broken packets are left out; a broken file ends
    the sound.
    """
    stream, resampler = container.streams.audio[0], av.AudioResampler("s16", "mono", RATE)
    wait = _start(stream) - (_start(container.streams.video[0]) if container.streams.video else 0.0)
    # Nobody waits longer for the first word; a container may claim so.
    skipped = round(-wait * RATE) if 0 < -wait < LONGEST else 0
    if 0 < wait < MOST_SECONDS and container.streams.video:
        yield np.zeros(round(wait * RATE), np.int16)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            frames = stream.decode(packet)
        except StopIteration:
            break
        except FFmpegError as error:
            if isinstance(error, EOFError):
                break
            continue
        for frame in frames:
            for made in resampler.resample(frame):
                block = made.to_ndarray().ravel()
                taken, skipped = block[skipped:], max(0, skipped - len(block))
                yield taken
    yield from (made.to_ndarray().ravel() for made in resampler.resample(None))


def _start(stream: Stream) -> float:
    """Seconds at which a stream begins by its container."""
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)
