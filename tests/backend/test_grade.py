"""The grade of an avatar: its maths, and the match with a plate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blender_addon.grade import NEUTRAL, Grade, graded_picture, match
from blender_addon.srgb import decode, encode

GRADE = Grade(0.7, 1.3, 0.8, 0.05)


def pixels(count: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.05, 0.6, (count, 3)).astype(np.float32)


def test_a_neutral_grade_keeps_every_bit():
    colors, alpha = pixels(), np.ones(4000, np.float32)
    assert NEUTRAL.colors(colors) is colors
    assert graded_picture(colors, alpha, [NEUTRAL, NEUTRAL]) is colors


def test_exposure_and_gains_multiply_light():
    colors = pixels()
    light = decode(Grade(1.0, 1.5, 0.5).colors(colors))
    assert np.allclose(light, decode(colors) * (3, 2, 1), atol=2e-3)


def test_black_rises_to_its_level_and_white_stays():
    colors = np.array(((0, 0, 0), (1, 1, 1)), np.float32)
    assert np.allclose(Grade(black=0.1).colors(colors), ((0.1,) * 3, (1,) * 3))


def test_graded_gaussians_blend_to_the_graded_picture():
    """Two Gaussians in each pixel, with alpha 0.6 and 0.5, over nothing."""
    near, far = pixels(), pixels()[::-1]
    weights = 0.6, 0.4 * 0.5
    picture = weights[0] * near + weights[1] * far
    alpha = np.full(len(near), sum(weights), np.float32)
    by_gaussian = weights[0] * GRADE.colors(near) + weights[1] * GRADE.colors(far)
    assert np.abs(graded_picture(picture, alpha, [GRADE]) - by_gaussian).max() < 1e-5


def test_each_head_of_a_picture_has_its_own_grade():
    colors, alpha = pixels(2), np.array((1.0, 0.5), np.float32)
    premultiplied, shares = colors * alpha[:, None], np.diag(alpha)
    found = graded_picture(premultiplied, alpha, [GRADE, NEUTRAL], shares)
    assert np.allclose(found[0], GRADE.colors(colors)[0], atol=1e-6)
    assert np.allclose(found[1], premultiplied[1], atol=1e-6)


@pytest.mark.parametrize("grade", [NEUTRAL, GRADE, Grade(-1.2, 0.7, 1.4, 0.1), Grade(0.3, black=-0.04)])
def test_a_match_finds_the_grade_of_a_plate(grade):
    """Also with highlights and specks in the plate, in another order of the pixels."""
    plate = grade.colors(pixels())[::-1].copy()
    plate[::101], plate[50::101] = 1.0, 0.0
    found = match(pixels(), plate)
    assert np.abs(found.colors(pixels()) - grade.colors(pixels())).max() < 0.02
    exact = match(pixels(), grade.colors(pixels()))
    assert np.abs(exact.colors(pixels()) - grade.colors(pixels())).max() < 0.01


def test_a_match_with_what_has_no_contrast_is_within_its_limits():
    black, white = np.zeros((60, 3)), np.ones((60, 3))
    for picture, plate in ((black, white), (white, black), (black, black), (pixels(), black)):
        found = match(picture, plate)
        assert abs(found.exposure) <= 4 and 0.25 <= found.red <= 4 and 0.25 <= found.blue <= 4 and found.black <= 0.3
    assert match(pixels(), replace(NEUTRAL, exposure=-9.0).colors(pixels()).clip(0)).exposure >= -4
    assert encode(decode(np.float64(0.5))) == pytest.approx(0.5)
