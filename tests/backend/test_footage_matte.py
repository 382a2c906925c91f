"""The matte fills what is only unsure, keeps what is open, and puts its edge on the edge of the picture."""

from __future__ import annotations

import cv2
import numpy as np

from backend.footage.matte import fill_unsure, guided_filter


def disc(radius: float, side: int = 256) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side] + 0.5 - side / 2
    return (np.hypot(rows, columns) < radius).astype(np.float32)


def test_an_unsure_patch_inside_the_person_is_filled_and_an_opening_is_kept() -> None:
    confidence = disc(90)
    confidence[120:130, 120:130] = 0.4
    confidence[150:160, 120:130] = 0.0
    filled = fill_unsure(confidence)
    assert (filled[120:130, 120:130] == 1).all()
    assert (filled[150:160, 120:130] == 0).all()


def test_islands_beside_the_person_are_dropped() -> None:
    confidence = disc(90)
    confidence[5:15, 5:15] = 0.9
    filled = fill_unsure(confidence)
    assert (filled == disc(90)).all()


def test_an_empty_and_a_full_map_stay_as_they_are() -> None:
    for level in (0.0, 1.0):
        flat = np.full((256, 256), level, np.float32)
        assert (fill_unsure(flat) == flat).all()


def test_the_edge_of_a_blocky_matte_moves_onto_the_edge_of_the_picture() -> None:
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



def test_a_thin_strand_that_the_network_only_guessed_at_comes_out() -> None:
    image = np.full((512, 512, 3), 200, np.uint8)
    image[:, :250] = 40
    image[200:202, 250:270] = 40
    matte = np.zeros((256, 256), np.float32)
    matte[:, :125] = 1
    matte[96:106, 125:135] = 0.3
    small = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA)
    refined = guided_filter(small, matte, image)
    assert refined[200, 256:262].mean() > refined[192, 256:262].mean() + 0.3
