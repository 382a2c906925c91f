"""The parts of the search for irises, against values that are known without it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backend.correspondence.landmark_sets import LEFT_LIDS, LID_PAIRS, RIGHT_LIDS
from backend.head.formats import load_head
from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.model.camera import Camera
from backend.tracking.model.frame_state import FrameState, eye_occlusion
from backend.tracking.model.limbus_surface import limbus_surface
from backend.tracking.model.prediction import predict
from backend.tracking.observe import iris_detection
from backend.tracking.observe.iris_detection import (
    DetectedIrises,
    _best_radius,
    _operator,
    _posterior,
    _shifted,
    _sum_over_arc,
    _usual_difference,
    _whiteness,
    detect_irises,
)

STEPS = np.arange(-12, 13) * 0.5
"""Pixels at 512: the displacements that are tried."""


def test_red_makes_skin_darker_than_the_white_of_an_eye() -> None:
    image = np.array([[(100, 9, 60), (60, 200, 100), (250, 0, 10), (80, 0, 80)]], np.uint8)
    assert _whiteness(image).tolist() == [[40.0, 100.0, 0.0, 80.0]]


def at_peak(row: int, column: int) -> np.ndarray:
    scores = np.zeros((25, 25))
    scores[row, column] = 5
    return scores


def test_the_two_eyes_usual_difference_is_a_median_over_frames_that_show_both() -> None:
    pair = np.stack((at_peak(10, 12), at_peak(13, 11)))
    other = np.stack((at_peak(0, 0), at_peak(24, 24)))
    unseen = np.stack((at_peak(3, 3), np.zeros((25, 25))))
    assert _usual_difference([pair] * 5 + [other] * 3 + [unseen] * 9).tolist() == [-1, 3]
    assert _usual_difference([pair] * 7 + [unseen] * 9).tolist() == [0, 0], "too few show both"


def test_scores_of_the_other_eye_are_shifted_and_blunted() -> None:
    shifted = _shifted(at_peak(10, 8), np.array((3.0, -4.0)))
    rows, columns = np.nonzero(shifted)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 8, 9, 13)
    assert (shifted[4:9, 9:14] == 5).all()


@pytest.mark.parametrize("peak", (0.9, 1.013, 1.1))
def test_the_best_radius_lies_at_the_top_of_a_parabola(peak: float) -> None:
    maps = np.zeros((3, 10, 2, 25, 25))
    maps[..., 4, 7] = (8 - 100 * (np.linspace(0.80, 1.16, 10) - peak) ** 2)[:, None]
    assert _best_radius(maps) == pytest.approx(peak)


def test_a_best_radius_at_the_end_of_those_tried_is_not_believed() -> None:
    for end in (0, 9):
        maps = np.zeros((1, 10, 2, 25, 25))
        maps[:, end, :, 2, 2] = 1
        maps[:, 4, 0, 2, 2] = 1  # the other eye's half of that
        assert _best_radius(maps) == 1.0
    assert _best_radius(np.zeros((1, 10, 2, 25, 25))) == 1.0


def test_without_an_edge_an_iris_is_where_it_was_predicted_four_pixels_more_or_less() -> None:
    mean, covariance = _posterior(np.full((25, 25), 7.0))
    share = np.exp(-0.5 * STEPS**2 / 4.0**2)
    expected = (share * STEPS**2).sum() / share.sum()
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(covariance, expected * np.eye(2), atol=1e-12)


def test_a_displacement_and_its_uncertainty_are_those_of_the_scores() -> None:
    """A Gaussian of scores, with x and y correlated, times the prediction's is a Gaussian again."""
    precision, place = np.array(((4.0, -1.0), (-1.0, 2.0))), np.array((1.5, -2.0))
    offset = np.stack(np.meshgrid(STEPS, STEPS), -1) - place
    mean, covariance = _posterior(500 - 0.5 * np.einsum("yxi,ij,yxj->yx", offset, precision, offset))
    expected = np.linalg.inv(precision + np.eye(2) / 16)
    np.testing.assert_allclose(covariance, expected, atol=2e-3)
    np.testing.assert_allclose(mean, expected @ precision @ place, atol=2e-3)


def disc(size: int, centre: tuple[float, float], radius: float, iris: float, white: float) -> np.ndarray:
    """A grey RGB image of a dark disc with a soft edge one pixel wide."""
    y, x = np.mgrid[:size, :size] + 0.5
    inside = np.clip(radius + 0.5 - np.hypot(x - centre[0], y - centre[1]), 0, 1)
    grey = white + inside * (iris - white)
    return np.repeat(grey[..., None], 3, 2).round().astype(np.uint8)


def round_eye(centre: tuple[float, float], radius: float) -> np.ndarray:
    angles = np.arange(16) * (2 * np.pi / 16)
    return np.array(centre) + radius * np.stack((np.cos(angles), np.sin(angles)), 1)


def searched(
    image: np.ndarray, centre: tuple[float, float], *, radius: float = 8.0, outline: float = 26.0
) -> np.ndarray:
    return _operator(
        image, round_eye(centre, outline), np.array(centre), radius * np.eye(2), np.array((0.8, 1.0, 1.2)), 1.0
    )


@pytest.mark.parametrize(("right", "down"), ((0, 0), (3, -2), (-4, 3)))
def test_the_scores_peak_at_the_disc_and_at_its_radius(right: int, down: int) -> None:
    scores = searched(disc(80, (40.5 + right, 40.5 + down), 8, 60, 200), (40.5, 40.5))
    np.testing.assert_allclose(_posterior(scores[1])[0], (right, down), atol=0.15)
    assert scores[1].max() > 1.5 * max(scores[0].max(), scores[2].max())
    # Every one of the 40 points of the arc has a full edge, of which 0.3 is the least that counts.
    assert 0.7 * 40 <= scores[1].max() <= 1.15 * 40


def test_a_darker_image_scores_the_same_and_a_faint_edge_less() -> None:
    bright, dark, faint = (
        searched(disc(80, (40.5, 40.5), 8, *greys), (40.5, 40.5)) for greys in ((60, 200), (30, 100), (199, 200))
    )
    np.testing.assert_allclose(dark, bright, atol=1.5)
    assert faint.max() < 0.3 * bright.max()


def test_an_eye_of_twice_as_many_pixels_scores_alike() -> None:
    small = searched(disc(80, (41, 40), 8, 60, 200), (40.5, 40.5))
    large = _operator(
        disc(160, (82, 80), 16, 60, 200),
        round_eye((81, 81), 52),
        np.array((81, 81)),
        16 * np.eye(2),
        np.array((0.8, 1.0, 1.2)),
        2.0,
    )
    np.testing.assert_allclose(large[1], small[1], atol=4)


def test_a_free_arc_without_an_edge_counts_against_the_displacement() -> None:
    plain = np.full((80, 80, 3), 200, np.uint8)
    np.testing.assert_allclose(searched(plain, (40.5, 40.5)), -0.3 * 40, rtol=1e-5)


def test_an_arc_under_the_eyelids_does_not_count() -> None:
    image = disc(80, (40.5, 40.5), 8, 60, 200)
    outline = round_eye((40.5, 40.5), 26) * (1, 0) + (0, 40.5) + (round_eye((0, 0), 1) * (0, 5))
    radii = np.array((1.0,))
    half_shut = _operator(image, outline, np.array((40.5, 40.5)), 8 * np.eye(2), radii, 1.0)[0]
    open_wide = searched(image, (40.5, 40.5))[1]
    assert 0.1 * open_wide[12, 12] < half_shut[12, 12] < 0.6 * open_wide[12, 12]
    assert half_shut.min() > 0.7 * open_wide.min()


def test_no_iris_is_searched_that_is_small_or_near_the_border_or_shut() -> None:
    image = disc(80, (40.5, 40.5), 8, 60, 200)
    half = 19  # 8 * 1.2 pixels of radius, 6 of displacement and 3 of margin, rounded up
    for centre in ((half, 40), (40, half), (80 - half - 1, 40), (40, 80 - half - 1), (half, half)):
        assert searched(image, centre).any(), centre
    for centre in ((half - 1, 40), (40, half - 1), (80 - half, 40), (40, 80 - half)):
        scores = searched(image, centre)
        assert scores.shape == (3, 25, 25) and not scores.any(), centre
    assert searched(image, (40.5, 40.5), radius=3.1).any()
    for how in ({"radius": 2.9}, {"outline": 1.5}):
        scores = searched(image, (40.5, 40.5), **how)
        assert scores.shape == (3, 25, 25) and not scores.any(), how


def test_the_arcs_sum_is_that_of_its_points_bilinear_samples() -> None:
    generator = np.random.default_rng(3)
    gx, gy = generator.normal(0, 1, (2, 12, 9)).astype(np.float32)
    free = generator.uniform(-0.5, 1, (12, 9)).clip(0).astype(np.float32)
    rim, normals = generator.normal(0, 3, (2, 17, 2))
    centre, step, edge = np.array((4.2, 5.1)), 1.5, 0.3
    found, expected = np.empty((5, 5)), np.zeros((5, 5))
    _sum_over_arc(gx, gy, free, centre, rim, normals, step, edge, found)

    def sampled(values: np.ndarray, x: float, y: float) -> float:
        i, j = int(y), int(x)
        v, u = y - i, x - j
        rows = (1 - u) * values[i : i + 2, j] + u * values[i : i + 2, j + 1]
        return float((1 - v) * rows[0] + v * rows[1])

    for row in range(5):
        for column in range(5):
            for point, normal in zip(rim, normals, strict=True):
                x, y = centre + (np.array((column, row)) - 2) * step + point
                # A point left of the first column's centre or beyond the last is not in the image.
                if -1 < x < 8 and -1 < y < 11:
                    rise = sampled(gx, x, y) * normal[0] + sampled(gy, x, y) * normal[1]
                    expected[row, column] += max(sampled(free, x, y), 0) * (np.clip(rise, -1, 1) - edge)
    np.testing.assert_allclose(found, expected, atol=1e-5)


# --- both eyes of a clip, from scores that are given


class Given:
    """A clip of 12 frames whose scores are known, seen by a head that turns in the last of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pixel: float = 1.0) -> None:
        frames, size = 12, round(512 * pixel)
        model = load_head()
        person = limbus_surface(model).of_person(torch.zeros(model.shape_basis.shape[2]))
        turns = torch.zeros(frames, 3)
        turns[-1, 1] = 0.55
        facing = torch.diag(torch.tensor((1.0, -1.0, -1.0)))
        self.state = FrameState(
            torch.zeros(frames, len(model.expression_names) + 7),
            facing @ axis_angle_to_matrix(turns),
            torch.tensor((0.0, 0.0, 0.6)).expand(frames, 3),
        )
        intrinsics = np.array(((1000.0 * pixel, 0, size / 2), (0, 1000.0 * pixel, size / 2), (0, 0, 1)))
        self.camera = Camera.from_intrinsics(intrinsics, size, torch.tensor((0.0, 0.0, 0.03)))
        shown = predict(person, self.state, self.camera).double().numpy()
        self.centres = shown[:, ::3]
        axes = np.stack((shown[:, 1::3] - self.centres, shown[:, 2::3] - self.centres), 2)
        self.diameters = 2 * np.linalg.norm(axes, axis=-1).max(-1)
        self.landmarks = np.zeros((frames, 478, 3))
        self.gap = np.full((frames, 2), 0.9)
        """Between the eyelids, in diameters of the irises of the rig."""
        self.scores = np.random.default_rng(0).uniform(0, 3, (frames, 2, 25, 25))
        self.weights = np.exp(-(((np.linspace(0.80, 1.16, 10) - 0.92) / 0.1) ** 2))
        """Of each radius that is tried; it is the largest at 0.92."""
        self.searched: list[tuple[int, np.ndarray]] = []
        monkeypatch.setattr(iris_detection, "read_frame", self._read_frame)
        monkeypatch.setattr(iris_detection, "_operator", self._operator)
        self.person, self.pixel = person, pixel

    def _read_frame(self, capture: object, index: int) -> np.ndarray:
        side = round(512 * self.pixel)
        picture = np.zeros((side, side, 3), np.int32)
        picture[..., 0], picture[..., 1] = np.mgrid[:side, :side]
        picture[..., 2] = index
        return picture

    def _operator(
        self,
        image: np.ndarray,
        outline: np.ndarray,
        centre: np.ndarray,
        axes: np.ndarray,
        radii: np.ndarray,
        pixel: float,
    ) -> np.ndarray:
        top, left, index = image[0, 0]
        eye = int(np.abs(self.centres[index] - (centre + (left, top))).sum(1).argmin())
        np.testing.assert_allclose(centre + (left, top), self.centres[index, eye])
        assert pixel == self.pixel and outline.shape == (16, 2) and axes.shape == (2, 2)
        reach = np.linalg.norm(axes, axis=1).max() * radii.max() + 9 * pixel
        for at, side in zip(centre, image.shape[1::-1], strict=True):
            assert reach <= at <= side - reach, "the whole search lies in the picture that is cut out"
        assert max(image.shape) < 512 * pixel, "and not the whole frame"
        self.searched.append((int(index), radii))
        if len(radii) == 1:
            return self.scores[index, eye][None]
        # At other radii than the best the right eye seems to lie elsewhere.
        moved = [np.roll(self.scores[index, eye], eye * (radius - 3), 1) for radius in range(len(radii))]
        return self.weights[:, None, None] * np.stack(moved)

    def found(self, face_found: np.ndarray | None = None) -> DetectedIrises:
        for eye, (name, lids) in enumerate((("left", LEFT_LIDS), ("right", RIGHT_LIDS))):
            self.landmarks[:, lids, :2] = self.centres[:, eye, None]
            for index, (upper, lower) in enumerate(LID_PAIRS[name]):
                # The outer two pairs open less, and are left out.
                gap = (self.gap[:, eye] if index < 3 else 0) * self.diameters[:, eye]
                self.landmarks[:, upper, 1] -= gap / 2
                self.landmarks[:, lower, 1] += gap / 2
        capture = SimpleNamespace(landmarks=self.landmarks, size=round(512 * self.pixel))
        everyone = np.ones(12, bool) if face_found is None else face_found
        return detect_irises(capture, self.person, self.state, self.camera, everyone, np.arange(12))


@pytest.mark.parametrize("pixel", (1.0, 2.0))
def test_each_eye_is_scored_in_the_other_as_far_as_that_is_seen(monkeypatch: pytest.MonkeyPatch, pixel: float) -> None:
    given = Given(monkeypatch, pixel)
    for index in range(9):
        given.scores[index, 0, 12, 12] = given.scores[index, 1, 11, 14] = 40
    # Of the last frame more is known across than down.
    given.scores[11] -= 0.04 * (np.arange(25) - 12.0) ** 2
    irises = given.found()
    radii = [radii for _, radii in given.searched if len(radii) == 1]
    radius = float(radii[0][0])
    assert radius == pytest.approx(0.92, abs=0.01) and len(radii) == 24
    assert {index for index, radii in given.searched if len(radii) == 10} == set(range(12))
    hidden = eye_occlusion(given.state).numpy()
    assert 0.3 < hidden[-1].max() < 1 and not hidden[:-1].any()
    difference = np.array((2.0, -1.0))
    for index in (0, 11):
        left, right = given.scores[index]
        for eye, (own, other, shift) in enumerate(((left, right, -difference), (right, left, difference))):
            mean, covariance = _posterior(own + (1 - hidden[index, 1 - eye]) * _shifted(other, shift))
            np.testing.assert_allclose(irises.centres[index, eye], given.centres[index, eye] + mean * pixel, rtol=1e-6)
            variances, directions = np.linalg.eigh(covariance)
            prior = _posterior(np.zeros((25, 25)))[1][0, 0]
            free = min(1 - hidden[index, eye], 1.0)
            precision = free * np.maximum(1 / (variances + 0.3**2) - 1 / prior, 0) / pixel**2
            root = irises.roots[index, eye]
            np.testing.assert_allclose(root.T @ root, directions * precision @ directions.T, rtol=1e-5, atol=1e-9)
            expected = free * np.clip((2.0 - np.sqrt(variances[-1])) / (2.0 - 0.6), 0, 1)
            assert irises.found[index, eye] == pytest.approx(expected, abs=1e-6)


def test_how_far_an_eye_is_open_and_how_sure_it_is_decide_how_much_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch)
    given.scores[:] = 0
    rows, columns = np.mgrid[:25, :25] - 12.0
    sigmas = (0.5, 0.8, 1.3, 1.9, 2.4)
    for index, sigma in enumerate(sigmas):
        # Both eyes at the same place: the other eye's scores are blunted, so their sum is a little surer than each.
        given.scores[index] = -0.5 * (rows**2 + columns**2) * 0.25 / sigma**2 + 50
    given.gap[5:9, 0] = np.array((0.30, 0.40, 0.50, 0.60)) * 0.92
    given.scores[5:9] = given.scores[0]
    found = given.found()
    assert list(found.found[:5, 0]) == sorted(found.found[:5, 0], reverse=True)
    assert found.found[0, 0] == 1 and 0 < found.found[3, 0] < 1
    opened = np.clip((np.array((0.30, 0.40, 0.50, 0.60)) - 0.35) / 0.20, 0, 1)
    assert found.found[5:9, 0] == pytest.approx(opened, abs=0.06) and (found.found[5:9, 1] == 1).all()
    assert not found.found[9:].any() and not found.roots[9:].any(), "without an edge nothing is known"


def test_frames_without_a_face_or_near_the_border_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch)
    face_found = np.arange(12) != 3
    given.state.translation.data = given.state.translation.clone()
    given.state.translation[5, 0] = 0.5  # beyond the picture
    given.centres = predict(given.person, given.state, given.camera).double().numpy()[:, ::3]
    irises = given.found(face_found)
    assert {index for index, _ in given.searched} == set(range(12)) - {3, 5}
    for index in (3, 5):
        assert not irises.found[index].any() and not irises.roots[index].any()
        np.testing.assert_allclose(irises.centres[index], given.centres[index], rtol=1e-6)


def test_a_clip_without_any_face_has_the_rigs_irises_and_nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(monkeypatch)
    irises = given.found(np.zeros(12, bool))
    assert not given.searched and not irises.found.any() and not irises.roots.any()
