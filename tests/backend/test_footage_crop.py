"""The crop covers the head in the whole clip, and source points map to the right crop pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backend.footage.crop import (
    Sighting,
    _overlap,
    _tile_starts,
    choose_face,
    cut_square,
    guess_intrinsics,
    image_mask,
    stable_crop,
)
from backend.footage.detector import Face


def sighting(number: int, x: float, y: float, extent: float = 100.0, several: bool = False) -> Sighting:
    """A face as high as `extent` and three quarters as wide, centred on x, y."""
    half = np.array([0.375, 0.5]) * extent
    return Sighting(number, np.concatenate([(x, y) - half, (x, y) + half]), several)


def face(x: float, y: float, extent: float) -> Face:
    corners = np.array([[x - extent / 2, y - extent / 2, 0], [x + extent / 2, y + extent / 2, 0]], np.float32)
    return Face(np.repeat(corners, 239, axis=0), np.zeros(52, np.float32), np.eye(4, dtype=np.float32))


def test_the_crop_covers_the_head_wherever_it_goes() -> None:
    path = [sighting(i, 600 + 40 * np.sin(i), 400 + 20 * np.cos(i)) for i in range(20)]
    x, y, side = stable_crop(path, 1920, 1080)
    for seen in path:
        assert (seen.head_box[:2] >= (x - 1, y - 1)).all()
        assert (seen.head_box[2:] <= (x + side + 1, y + side + 1)).all()
    assert side < 3.2 * 100, "much more than the head would waste the pixels of the capture"
    assert (x, y, side) == (round(x), round(y), round(side))


def test_a_single_mistake_of_the_detector_does_not_widen_the_crop() -> None:
    path = [sighting(i, 600, 400) for i in range(10)]
    assert stable_crop([*path[:5], sighting(5, 1700, 900), *path[5:]], 1920, 1080) == stable_crop(path, 1920, 1080)


@pytest.mark.parametrize("centre", [(60, 60), (1900, 1000), (960, 540)])
def test_the_crop_stays_inside_an_image_that_has_room(centre: tuple[float, float]) -> None:
    x, y, side = stable_crop([sighting(0, *centre)], 1920, 1080)
    assert x >= 0
    assert y >= 0
    assert x + side <= 1920
    assert y + side <= 1080


def test_an_image_smaller_than_the_head_is_centred_in_the_crop() -> None:
    assert stable_crop([sighting(0, 120, 75, extent=140)], 240, 150) == (0.0, -45.0, 240.0)


def test_points_of_the_source_land_where_the_crop_says() -> None:
    source = np.zeros((300, 400, 3), np.uint8)
    cv2.rectangle(source, (200, 120), (203, 123), (255, 255, 255), -1)
    crop = (150.0, 60.0, 128.0)
    for size in (64, 128, 256):
        square = cut_square(source, crop, size)[..., 0].astype(float)
        rows, columns = np.mgrid[0:size, 0:size] + 0.5
        found = np.array([(columns * square).sum(), (rows * square).sum()]) / square.sum()
        assert found == pytest.approx((np.array([202.0, 122.0]) - crop[:2]) * size / crop[2], abs=0.05)


def test_outside_the_image_its_border_is_repeated_and_masked() -> None:
    source = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    crop = (0.0, -10.0, 60.0)
    square = cut_square(source, crop, 60)
    mask = image_mask(crop, 60, 60, 40)
    assert (square[:10] == source[0]).all()
    assert (square[50:] == source[-1]).all()
    assert (square[10:50] == source).all()
    assert mask[10:50].all()
    assert mask.sum() == 60 * 40


def test_the_principal_point_is_the_centre_of_the_source() -> None:
    crop = (800.0, 100.0, 400.0)
    intrinsics = guess_intrinsics(crop, 512, 1920, 1080, face_extent=150)
    scale = 512 / 400
    assert intrinsics[:2, 2] == pytest.approx([(960 - 800) * scale, (540 - 100) * scale])
    assert intrinsics[0, 0] == intrinsics[1, 1] == pytest.approx(540 / np.tan(np.deg2rad(25)) * scale)


def test_footage_that_was_cropped_before_gets_a_longer_lens() -> None:
    # A face of 250 source pixels in a 512 pixel image, at 0.7 m: 250 x 0.7 / 0.18.
    assert guess_intrinsics((0.0, 0.0, 512.0), 512, 512, 512, 250)[0, 0] == pytest.approx(250 * 0.7 / 0.18)


def test_the_person_is_the_one_followed_so_far_and_others_are_noticed() -> None:
    followed, other, small = face(100, 100, 80), face(500, 100, 90), face(300, 100, 20)
    assert choose_face([other, followed], None) == (other, True)
    assert choose_face([other, followed], np.array([105.0, 100.0])) == (followed, True)
    assert choose_face([followed, small], None) == (followed, False)


def test_a_pixel_of_the_crop_is_inside_where_its_centre_is() -> None:
    # Two source pixels for each of the crop's. Centres are at 0, 2, 4, 6, ... along x and at -2, 0, 2, 4, ... along y,
    # and one on the edge of the image is outside.
    mask = image_mask((-1.0, -3.0, 16.0), 8, 6, 4)
    assert np.argwhere(mask).tolist() == [[2, 1], [2, 2]]


def test_a_crop_is_smoothed_when_it_shrinks_and_not_when_it_grows() -> None:
    fine = np.indices((64, 64)).sum(0) % 2 * 255
    source = np.repeat(fine[..., None], 3, 2).astype(np.uint8)
    assert np.abs(cut_square(source, (0.0, 0.0, 64.0), 32) - 127.5).max() < 1
    assert (cut_square(source, (0.0, 0.0, 64.0), 64) == source).all()
    grown = cut_square(source, (0.0, 0.0, 64.0), 128)
    assert len(np.unique(grown)) > 2 and np.ptp(grown) == 255


def test_tiles_lie_at_both_ends_of_what_is_longer_than_one() -> None:
    assert _tile_starts(100, 60) == [0.0, 40]
    assert _tile_starts(60, 60) == _tile_starts(40, 60) == [0.0]


def test_boxes_that_only_touch_do_not_overlap() -> None:
    box = np.array([0.0, 0, 10, 10])
    assert _overlap(box, np.array([9.0, 9, 20, 20])) and _overlap(np.array([9.0, 9, 20, 20]), box)
    for other in ([10.0, 0, 20, 10], [0.0, 10, 10, 20], [-10.0, 0, 0, 10], [0.0, -10, 10, 0]):
        assert not _overlap(box, np.array(other))


def test_a_head_box_holds_hair_neck_and_sides() -> None:
    seen = Sighting(0, np.array([100.0, 200, 160, 300]), False)
    assert seen.centre.tolist() == [130, 250] and seen.extent == 100
    assert seen.head_box == pytest.approx([50, 145, 210, 345])
