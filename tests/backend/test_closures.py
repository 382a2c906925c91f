"""Contacts of lips that are heard: the network's arithmetic, and what becomes of the decoder's phones."""

from __future__ import annotations

import numpy as np
import pytest
from test_speech import tone

from assets.derive.closures import classes_of, windows_of
from backend.speech import closures
from backend.speech.closures import (
    BANDS,
    BLOCK,
    FLOOR,
    HEARD,
    HIGHEST,
    LOWEST,
    OFFSETS,
    STEP,
    SURE,
    Network,
    energies_of,
    mel_bank,
    network,
    with_heard_contacts,
)
from backend.speech.phones import Phone, Phones
from backend.speech.sound import RATE, Sound

DECODED = Phones("ARPAbet", (Phone(0, 0.2, "AA"), Phone(0.2, 0.3, "N"), Phone(0.3, 0.6, "IY"), Phone(0.6, 0.7, "P")))


def heard(monkeypatch: pytest.MonkeyPatch, **spans: tuple[float, float, float]) -> Phones:
    """`DECODED`, where the network hears lips ("lips") or lip and teeth ("teeth") from, to, with a probability."""
    odds = np.zeros((101, 3))
    for name, (start, end, value) in spans.items():
        odds[round(start / STEP) : round(end / STEP), {"lips": 1, "teeth": 2}[name]] = value
    monkeypatch.setattr(closures, "network", lambda: lambda _: odds)
    return with_heard_contacts(DECODED, Sound(tone(1)))


def labels(phones: Phones) -> list[str]:
    return [phone.label for phone in phones.phones]


def test_a_contact_that_the_decoder_has_missed_takes_the_time_of_what_it_heard_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = heard(monkeypatch, lips=(0.2, 0.3, 1.0))
    assert labels(found) == ["AA", "B", "IY", "T"]
    assert found.phones[1].start == pytest.approx(0.2, abs=0.011) and found.phones[1].end == pytest.approx(
        0.3, abs=0.011
    )
    within = heard(monkeypatch, lips=(0.4, 0.48, 1.0))
    assert labels(within) == ["AA", "N", "IY", "B", "IY", "T"]
    assert all(
        a.end == pytest.approx(b.start, abs=1e-9) for a, b in zip(within.phones, within.phones[1:], strict=False)
    )


def test_a_contact_of_the_decoder_stays_if_it_is_heard_and_is_another_phone_if_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert labels(heard(monkeypatch, lips=(0.62, 0.7, 0.9))) == ["AA", "N", "IY", "P"], "none is added to it"
    assert labels(heard(monkeypatch, lips=(0.62, 0.7, 0.4))) == ["AA", "N", "IY", "P"]
    assert labels(heard(monkeypatch, lips=(0.62, 0.7, 0.2))) == ["AA", "N", "IY", "T"]


@pytest.mark.parametrize(
    ("span", "value"), [((0.4, 0.5), SURE - 0.02), ((0.4, 0.41), 1.0)], ids=["not sure enough", "one frame"]
)
def test_what_is_unsure_or_too_short_is_no_contact(
    monkeypatch: pytest.MonkeyPatch, span: tuple[float, float], value: float
) -> None:
    assert SURE - 0.02 > HEARD
    assert "B" not in labels(heard(monkeypatch, lips=(*span, value)))


def test_lip_and_teeth_are_added_where_lips_do_not_touch_already(monkeypatch: pytest.MonkeyPatch) -> None:
    both = heard(monkeypatch, lips=(0.62, 0.7, 0.9), teeth=(0.2, 0.3, 0.9))
    assert labels(both) == ["AA", "V", "IY", "P"]
    assert labels(heard(monkeypatch, lips=(0.62, 0.7, 0.9), teeth=(0.62, 0.7, 0.9))) == ["AA", "N", "IY", "P"]


def test_energies_do_not_depend_on_level_and_microphone_nor_on_the_block_they_are_computed_in() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=RATE * 50) * np.repeat(random.uniform(0.02, 1, 500), RATE // 10)
    loud, quiet = (Sound((factor * noise).astype(np.int16)) for factor in (6000, 1500))
    whole = energies_of(loud)
    assert whole.shape == (5001, BANDS) and len(whole) > BLOCK and whole.min() >= -FLOOR
    assert np.abs(whole - energies_of(quiet)).max() < 0.05
    part = Sound(loud.samples[RATE * 40 :])
    assert np.std((energies_of(part)[10:-10] - whole[4010:-10]), axis=0).max() < 1e-3


def test_the_bands_are_evenly_spaced_in_mel_and_overlap_by_half() -> None:
    bank = mel_bank()
    assert bank.shape == (257, BANDS) and bank.min() == 0 and bank.max() <= 1
    hertz = np.arange(257) * RATE / 512
    assert np.all(bank[(hertz < LOWEST) | (hertz > HIGHEST)] == 0)
    mel = 2595 * np.log10(1 + (bank * hertz[:, None]).sum(axis=0) / bank.sum(axis=0) / 700)
    spacing = (2595 * np.log10((1 + HIGHEST / 700) / (1 + LOWEST / 700))) / (BANDS + 1)
    assert np.diff(mel)[4:] == pytest.approx(spacing, rel=0.1)
    inside = (hertz > 300) & (hertz < 6500)
    assert bank[inside].sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_the_network_looks_at_each_frames_neighbours_and_its_probabilities_sum_to_one() -> None:
    random = np.random.default_rng(1)
    weights = random.normal(size=(BANDS * len(OFFSETS), 5)), random.normal(size=(5, 3))
    biases = random.normal(size=5), random.normal(size=3)
    energies = random.normal(size=(40, BANDS))
    made = Network(weights, biases)(energies)
    logits = np.maximum(windows_of(energies) @ weights[0] + biases[0], 0) @ weights[1] + biases[1]
    assert np.allclose(made, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    assert network()(np.zeros((3, BANDS), np.float32)).shape == (3, 3)


def test_lips_touch_until_the_burst_of_a_stop_in_what_the_network_learns() -> None:
    classes = classes_of(Phones("ARPAbet", (Phone(0.1, 0.3, "P"), Phone(0.3, 0.4, "AA"), Phone(0.4, 0.5, "F"))), 60)
    assert list(np.flatnonzero(classes == 1)) == list(range(10, 28))
    assert list(np.flatnonzero(classes == 2)) == list(range(40, 51))
