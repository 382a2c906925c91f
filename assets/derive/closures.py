"""Trains the network that hears where lips touch (`backend/speech/closures.py`) on synthetic voices.

eSpeak NG and Flite say the sentences of `closures.txt` and tell which phone they say when. Every sentence is said by
Flite's four voices, which are made of recorded people, and by four of fourteen voices of eSpeak NG. Each sound is used
twice: as it is, and with an echo, a tilted spectrum, noise and another level. Sentences and voices of `bench.lip_sync`
are not among them. Run as `python -m assets.derive.closures` (a minute on one core).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from scipy.signal import fftconvolve

from backend.assets import asset_path
from backend.speech.closures import BANDS, CONTACTS, OFFSETS, STEP, energies_of
from backend.speech.phones import Phones
from backend.speech.sound import RATE, Sound
from backend.speech.visemes import segments_of
from backend.storage import write_beside
from bench.synthetic_voices import synthesise, synthesise_by_flite

SENTENCES: Final = Path(__file__).with_suffix(".txt")
FLITE: Final = ("rms", "slt", "awb", "kal16")
ESPEAK: Final = (
    "en-us+m1", "en-us+f1", "en-gb-scotland+f3", "en-us+klatt4", "en-gb-x-rp+f4", "en-029+m7", "en-gb-x-gbcwmd+m5",
    "en-us+f5", "en-gb+f1", "en-us+m6", "en-gb-x-gbclan+m2", "en-us+linda", "en-us+ed", "en-gb+belinda",
)  # fmt: skip
ESPEAK_COUNT: Final = 4
"""Voices of eSpeak NG for each sentence."""
HIDDEN, EPOCHS, BATCH = 40, 5, 512
STOP_SHARE: Final = 0.85
"""Share of the time of m, b and p in which lips touch each other; then they burst open."""
CLASS_WEIGHTS: Final = (1.0, 2.0, 2.0)
"""A contact that is missed is worse than one that is not there."""


def spoken() -> Iterable[tuple[Sound, Phones]]:
    """Each sentence by each of its voices."""
    random = np.random.default_rng(0)
    for sentence in SENTENCES.read_text("utf-8").splitlines():
        for voice in random.choice(ESPEAK, ESPEAK_COUNT, replace=False):
            yield synthesise(sentence, str(voice))
        for voice in FLITE:
            yield synthesise_by_flite(sentence, voice)


def altered(sound: Sound, random: np.random.Generator) -> Sound:
    """The sound as another room and another microphone would have it."""
    samples = sound.samples.astype(np.float32)
    if random.random() < 0.4:
        times = np.arange(round(0.25 * RATE)) / RATE
        echo = random.normal(size=len(times)) * np.exp(-6.9 * times / random.uniform(0.15, 0.5))
        echo *= random.uniform(0.2, 0.7) / np.sqrt((echo**2).sum())
        echo[0] = 1
        samples = fftconvolve(samples, echo)[: len(samples)]
    samples = samples - random.uniform(-0.4, 0.4) * np.concatenate(([0], samples[:-1]))
    noise = random.normal(size=len(samples))
    if random.random() < 0.5:
        noise = np.cumsum(noise)
        noise -= np.convolve(noise, np.full(400, 1 / 400), "same")
    loudness = np.sqrt((samples**2).mean()) * 10 ** (-random.uniform(15, 45) / 20)
    samples = samples + noise / noise.std() * loudness
    samples *= 9000 / np.abs(samples).max() * random.uniform(0.3, 2)
    return Sound(np.clip(samples, -32767, 32767).astype(np.int16))


def classes_of(phones: Phones, count: int) -> np.ndarray:
    """(F,) the network's output that is right in each frame."""
    outputs = {contact.viseme: contact.output for contact in CONTACTS}
    made = np.zeros(count, np.int64)
    for segment in segments_of(phones):
        if segment.viseme in outputs:
            share = STOP_SHARE if segment.viseme == "PP" else 1.0
            first = int(np.ceil(segment.start / STEP))
            last = int((segment.start + share * (segment.end - segment.start)) / STEP)
            made[first : max(first, last) + 1] = outputs[segment.viseme]
    return made


def windows_of(energies: np.ndarray) -> np.ndarray:
    """(F, OFFSETS x BANDS): what the network looks at in each frame."""
    around = np.pad(energies, ((-OFFSETS[0], OFFSETS[-1]), (0, 0)), "edge")
    return np.concatenate([around[offset - OFFSETS[0] :][: len(energies)] for offset in OFFSETS], 1)


def train(sounds: Iterable[tuple[Sound, Phones]]) -> dict[str, Any]:
    """The network's arrays, as its file has them."""
    random, inputs, classes = np.random.default_rng(1), [], []
    for sound, phones in sounds:
        for each in (sound, altered(sound, random)):
            energies = energies_of(each)
            inputs.append(windows_of(energies).astype(np.float16))
            classes.append(classes_of(phones, len(energies)))
    given, right = torch.tensor(np.concatenate(inputs)), torch.tensor(np.concatenate(classes))
    torch.manual_seed(0)
    hidden, output = torch.nn.Linear(BANDS * len(OFFSETS), HIDDEN), torch.nn.Linear(HIDDEN, 1 + len(CONTACTS))
    network = torch.nn.Sequential(hidden, torch.nn.ReLU(), torch.nn.Dropout(0.1), output)
    steps = len(right) // BATCH
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=EPOCHS * steps)
    weights = torch.tensor(CLASS_WEIGHTS)
    for epoch in range(EPOCHS):
        order, total = torch.randperm(len(right)), 0.0
        for step in range(steps):
            chosen = order[BATCH * step : BATCH * (step + 1)]
            loss = torch.nn.functional.cross_entropy(network(given[chosen].float()), right[chosen], weight=weights)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1} of {EPOCHS}: cross entropy {total / steps:.3f}", flush=True)
    arrays = {}
    for number, layer in enumerate((hidden, output)):
        arrays[f"weights_{number}"] = layer.weight.detach().numpy().T.astype(np.float16)
        arrays[f"biases_{number}"] = layer.bias.detach().numpy().astype(np.float16)
    return arrays


def main() -> None:
    torch.set_num_threads(1)
    arrays = train(spoken())
    with write_beside(Path(asset_path("models")) / "closures.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
