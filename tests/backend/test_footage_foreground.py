"""The foreground's colours have no trace of the room, measured where they are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backend.footage.foreground import foreground_colors

SIDE = 192


def person() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image of a striped dark head with strands, its matte, and its true colours. The room is bright, and dark on
    one side.
    """
    rows, columns = np.mgrid[:SIDE, :SIDE]
    colors = np.stack([40 + 15 * np.sin(columns / 7) + shade for shade in (12, 4, 0)], 2)
    large = np.zeros((4 * SIDE, 4 * SIDE), np.uint8)
    cv2.circle(large, (2 * SIDE, 2 * SIDE), 200, 255, -1)
    for angle in np.linspace(0, 2 * np.pi, 60):
        tip = (2 * SIDE + 260 * np.array((np.cos(angle), np.sin(angle)))).astype(int)
        cv2.line(large, (2 * SIDE, 2 * SIDE), tuple(tip.tolist()), 255, 3)
    matte = cv2.GaussianBlur(cv2.resize(large, (SIDE, SIDE), interpolation=cv2.INTER_AREA), (0, 0), 0.8)
    room = np.where((columns < 50)[..., None], (60, 80, 90), (225, 215, 190))
    alpha = matte[..., None] / 255
    noise = np.random.default_rng(0).normal(0, 2, colors.shape)
    return (alpha * colors + (1 - alpha) * room + noise).clip(0, 255).astype(np.uint8), matte, colors


def decibels(colors: np.ndarray, truth: np.ndarray, matte: np.ndarray) -> float:
    """PSNR of the half-covered pixels over any background, which cancels out where the matte is the same."""
    half = (matte > 5) & (matte < 250)
    return float(-10 * np.log10(np.square((matte[..., None] / 255**2 * (colors - truth))[half]).mean()))


def test_half_covered_pixels_lose_the_room_s_colour() -> None:
    image, matte, truth = person()
    before, after = decibels(image, truth, matte), decibels(foreground_colors(image, matte), truth, matte)
    assert before < 20 and after > before + 9


def test_whole_pixels_keep_their_colour_and_the_person_s_goes_on_beyond_its_edge() -> None:
    image, matte, truth = person()
    colors = foreground_colors(image, matte)
    assert np.abs(colors.astype(int) - image)[matte == 255].max() <= 1
    outside = (matte == 0) & (cv2.dilate(matte, np.ones((3, 3), np.uint8)) > 0)
    assert np.abs(colors - truth)[outside].mean() < 0.5 * np.abs(image - truth)[outside].mean()


@pytest.mark.parametrize("level", [0, 255])
def test_an_image_of_one_kind_alone_has_finite_colours(level: int) -> None:
    image = person()[0]
    colors = foreground_colors(image, np.full((SIDE, SIDE), level, np.uint8))
    assert colors.dtype == np.uint8 and colors.shape == image.shape
    assert level == 0 or np.abs(colors.astype(int) - image).max() <= 1
