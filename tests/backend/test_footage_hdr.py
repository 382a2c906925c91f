"""High dynamic range clips are converted to sRGB with the luminances of the standards."""

from __future__ import annotations

import numpy as np
import pytest

from backend.footage.hdr import HLG, PQ, SDR, to_sdr, transfer_of


def pq_code(nits: float) -> int:
    """ITU-R BT.2100 table 4, the inverse EOTF, to 8 bits."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = (nits / 10000) ** m1
    return round(255 * ((c1 + c2 * power) / (1 + c3 * power)) ** m2)


def grey(code: int) -> np.ndarray:
    return np.full((2, 2, 3), code, np.uint8)


def srgb_code(light: float) -> float:
    return 255 * (1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("share", [0.05, 0.18, 0.5])
def test_pq_greys_below_the_highlights_keep_their_light(share: float) -> None:
    assert to_sdr(grey(pq_code(203 * share)), PQ).mean() == pytest.approx(srgb_code(share), abs=3)


def hlg_code(nits: float) -> int:
    """ITU-R BT.2100 table 5 for a display of 1000 cd/m2: the inverse OOTF, then the OETF, to 8 bits."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = (nits / 1000) ** (1 / 1.2)
    return round(255 * (np.sqrt(3 * light) if light <= 1 / 12 else a * np.log(12 * light - b) + c))


@pytest.mark.parametrize("share", [0.05, 0.18, 0.3, 0.5])
def test_hlg_greys_below_the_highlights_keep_their_light(share: float) -> None:
    """Two of them lie on the curve's square root, two on its logarithm."""
    assert to_sdr(grey(hlg_code(203 * share)), HLG).mean() == pytest.approx(srgb_code(share), abs=3)


def test_hlg_reference_white_and_grey_are_where_bt2408_puts_them() -> None:
    # BT.2408 table 1: 75 % is diffuse white (203 cd/m2), 38 % an 18 % grey card (26 cd/m2).
    assert to_sdr(grey(round(0.75 * 255)), HLG).mean() > 235
    assert to_sdr(grey(round(0.38 * 255)), HLG).mean() == pytest.approx(srgb_code(26 / 203), abs=5)


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_brighter_stays_brighter_and_grey_stays_grey(transfer: str) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    mapped = to_sdr(ramp, transfer).astype(int)
    assert (np.diff(mapped[0, :, 1]) >= 0).all()
    assert np.ptp(mapped, axis=2).max() <= 2
    assert mapped.min() == 0
    assert mapped.max() >= 254


def test_wide_primaries_gain_saturation_in_narrow_ones() -> None:
    reddish = np.array([[[150, 110, 105]]], np.uint8)
    red, green, _ = to_sdr(reddish, HLG)[0, 0].astype(int)
    plain_red, plain_green, _ = to_sdr(np.array([[[150, 150, 150]]], np.uint8), HLG)[0, 0].astype(int)
    assert red - green > 40
    assert plain_red == pytest.approx(plain_green, abs=1)


def test_ordinary_footage_is_not_touched() -> None:
    image = np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)
    assert to_sdr(image, transfer_of(1)) is image
    assert (transfer_of(18), transfer_of(16), transfer_of(2)) == (HLG, PQ, SDR)
