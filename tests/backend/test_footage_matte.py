"""The matte fills uncertain regions, keeps openings, and its edge follows the image's edge."""

from __future__ import annotations

import cv2
import numpy as np

from backend.footage.matte import fill_uncertain, guided_filter


def disc(radius: float, side: int = 256) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side] + 0.5 - side / 2
    return (np.hypot(rows, columns) < radius).astype(np.float32)


def test_an_uncertain_patch_inside_the_person_is_filled_and_an_opening_is_kept() -> None:
    confidence = disc(90)
    confidence[120:130, 120:130] = 0.4
    confidence[150:160, 120:130] = 0.0
    filled = fill_uncertain(confidence)
    assert (filled[120:130, 120:130] == 1).all()
    assert (filled[150:160, 120:130] == 0).all()


def test_islands_beside_the_person_are_dropped() -> None:
    confidence = disc(90)
    confidence[5:15, 5:15] = 0.9
    filled = fill_uncertain(confidence)
    assert (filled == disc(90)).all()


def test_an_empty_and_a_full_map_stay_as_they_are() -> None:
    for level in (0.0, 1.0):
        flat = np.full((256, 256), level, np.float32)
        assert (fill_uncertain(flat) == flat).all()


def test_the_edge_of_a_blocky_matte_moves_onto_the_edge_of_the_image() -> None:
    truth = disc(160, 512)
    image = np.where(truth[..., None] > 0, np.uint8([60, 45, 40]), np.uint8([190, 170, 160]))
    image = (image + np.random.default_rng(0).normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)
    small = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(truth, (64, 64), interpolation=cv2.INTER_AREA)
    blocks = cv2.resize(coarse, (256, 256), interpolation=cv2.INTER_NEAREST)
    shifted = np.roll(blocks, 2, axis=1)
    before = (cv2.resize(shifted, (512, 512)) > 0.5) != (truth > 0.5)
    after = (guided_filter(small, shifted, image) > 0.5) != (truth > 0.5)
    assert before.sum() > 2000
    assert after.sum() < 0.1 * before.sum()


def test_a_thin_strand_that_the_network_is_uncertain_of_is_recovered() -> None:
    image = np.full((512, 512, 3), 200, np.uint8)
    image[:, :250] = 40
    image[200:202, 250:270] = 40
    matte = np.zeros((256, 256), np.float32)
    matte[:, :125] = 1
    matte[96:106, 125:135] = 0.3
    small = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA)
    refined = guided_filter(small, matte, image)
    assert refined[200, 256:262].mean() > refined[192, 256:262].mean() + 0.3


def test_the_filter_is_each_window_s_regularised_least_squares_averaged() -> None:
    random = np.random.default_rng(2)
    image = cv2.GaussianBlur(random.integers(0, 255, (40, 48, 3)).astype(np.uint8), (0, 0), 2)
    matte = cv2.GaussianBlur((random.random((40, 48)) > 0.5).astype(np.float32), (0, 0), 3)

    def windows(plane: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(np.pad(plane, 4, "symmetric"), (9, 9)).reshape(40, 48, 81)

    colors = np.stack([windows(image[..., k] / 255) for k in range(3)], -1)
    centred = colors - colors.mean(2, keepdims=True)
    covariance = centred.swapaxes(2, 3) @ centred / 81 + 5e-4 * np.eye(3)
    with_matte = (centred * windows(matte.astype(np.float64))[..., None]).mean(2)
    slopes = np.linalg.solve(covariance, with_matte[..., None])[..., 0]
    offset = windows(matte).mean(2) - (slopes * colors.mean(2)).sum(-1)
    expected = windows(offset).mean(2)
    for channel in range(3):
        expected += windows(slopes[..., channel]).mean(2) * image[..., channel] / 255
    assert np.abs(guided_filter(image, matte, image) - expected).max() < 2e-3
