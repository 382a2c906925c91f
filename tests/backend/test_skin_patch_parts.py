"""Registering skin patches, on brightness that is a known function of the place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from backend.tracking.observe.skin_samples import IMAGE_SIZE, PATCHES, SkinView
from backend.tracking.terms.skin_patches import _PatchEquations, _PatchRegistration, _register

SIDE = 6
"""Samples of a patch across and down: 36, of which 28 is the average."""
BLUR = 2.0
"""Pixels at 512; one pixel of the sampled image."""


class Patches:
    """The part of a `Skin` that registering needs: three patches of 36 samples, and 217 without any."""

    patch = np.repeat(np.arange(3), SIDE * SIDE)

    def patch_sum(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.patch, values, PATCHES)

    def patch_mean(self, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return self.patch_sum(weight * values) / np.maximum(self.patch_sum(weight), 1e-6)


def grid() -> np.ndarray:
    """(108, 2) pixels of the sampled image: three squares of samples, half a pixel apart."""
    y, x = np.mgrid[:SIDE, :SIDE] * 0.5
    return np.concatenate([np.stack((x.ravel() + 40.5 + 60 * patch, y.ravel() + 100.5), 1) for patch in range(3)])


def wave(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms of brightness and their slopes. The first patch varies in both directions, the second only along x,
    the third not at all.
    """
    in_both, along_x = x < 70, (x >= 70) & (x < 130)
    value = np.where(
        in_both, 0.2 * np.sin(0.6 * x) + 0.2 * np.sin(0.7 * y), np.where(along_x, 0.3 * np.sin(1.5 * x), 0.7)
    )
    by_x = np.where(in_both, 0.12 * np.cos(0.6 * x), np.where(along_x, 0.45 * np.cos(1.5 * x), 0))
    return value, by_x, np.where(in_both, 0.14 * np.cos(0.7 * y), 0.0)


class Seen(SkinView):
    """A view whose samples are exact: the wave, moved by (dx, dy), scaled and brightened."""

    def __init__(self, move: tuple[float, float] = (0.0, 0.0), contrast: float = 1.0, light: float = 0.0) -> None:
        self.move, self.contrast, self.light = move, contrast, light
        self.at = grid()
        object.__setattr__(self, "weight", np.ones(len(self.at)))

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def sample(self, shift: np.ndarray | float = 0.0) -> np.ndarray:
        value, by_x, by_y = wave(*(self.at + shift - self.move).T)
        return np.stack((self.contrast * value + self.light, self.contrast * by_x, self.contrast * by_y), 1)


def registered(
    view: Seen,
    factor: float = 2.0,
    sigma: float = 0.4,
    determined: np.ndarray | None = None,
    blur: float = BLUR,
) -> tuple:
    appearance = SimpleNamespace(
        blur=blur, determined=np.ones(len(view.at), bool) if determined is None else determined
    )
    expected = wave(*grid().T)[0]
    shift, roots, weights = _register(Patches(), appearance, expected, view, factor, sigma)
    return shift[:3], roots[:3], weights[:3]


def test_a_patch_is_found_where_it_moved_to_in_pixels_of_the_capture() -> None:
    for move in ((0.0, 0.0), (0.5, -0.3), (-0.3, 0.4)):
        shift, _, weights = registered(Seen(move))
        assert shift[0] == pytest.approx(2.0 * np.array(move), abs=0.06)
        assert shift[1, 0] == pytest.approx(2.0 * move[0], abs=0.03)
        assert weights[:2] == pytest.approx([1, 1]) and weights[2] == 0, "a plain patch has no correlation"


def test_its_own_brightness_and_contrast_do_not_move_a_patch() -> None:
    move = (0.5, -0.3)
    for contrast, light in ((0.5, 0.4), (1.8, -1.0)):
        shift, _, weights = registered(Seen(move, contrast, light))
        assert shift[0] == pytest.approx((1.0, -0.6), abs=0.05) and weights[0] == pytest.approx(1)


def test_the_precision_of_a_patch_is_that_of_its_samples_four_of_which_count_as_one() -> None:
    _, roots, _ = registered(Seen(), factor=2.0, sigma=0.4)
    # A patch's mean brightness is its own.
    _, raw_x, raw_y = (part[: SIDE * SIDE] for part in wave(*grid().T))
    noise = 0.03**2
    inner = np.stack((raw_x - raw_x.mean(), raw_y - raw_y.mean()), 1)
    values, vectors = np.linalg.eigh(inner.T @ inner)
    variance = 0.4**2 + 2.0**2 * 4.0 * noise / np.maximum(values, 1e-6)
    expected = vectors @ np.diag(1 / variance) @ vectors.T
    np.testing.assert_allclose(roots[0].T @ roots[0], expected, rtol=1e-3, atol=1e-6)
    # Along a direction in which nothing varies a patch knows nothing.
    along_y = np.linalg.norm(roots[1] @ (0.0, 1.0))
    assert along_y < 0.05 < np.linalg.norm(roots[1] @ (1.0, 0.0))


def test_half_of_a_patch_is_enough_and_a_tenth_is_not() -> None:
    def weighed(count: int) -> float:
        view = Seen()
        view.weight[count : SIDE * SIDE] = 0
        return float(registered(view)[2][0])

    # Of 28 samples, 0.6 count fully, and below 0.2 a patch is not believed.
    assert weighed(17) == pytest.approx(1, abs=0.02) and weighed(12) == pytest.approx(12 / 16.8, abs=0.02)
    assert weighed(6) == pytest.approx(6 / 16.8, abs=0.02) and weighed(5) == 0
    unknown = np.ones(len(grid()), bool)
    unknown[12 : SIDE * SIDE] = False
    assert registered(Seen(), determined=unknown)[2][0] == pytest.approx(12 / 16.8, abs=0.02)


def test_what_looks_like_something_else_is_not_believed() -> None:
    def weighed(like: float) -> float:
        """For a patch whose correlation with the prediction is `like`, its other part unlike anything that moves."""
        view, random = Seen(), np.random.default_rng(0)
        base = wave(*grid().T)[0][: SIDE * SIDE]
        base = (base - base.mean()) / np.linalg.norm(base - base.mean())
        other = random.normal(size=base.size)
        other -= other.mean() + base * (base @ (other - other.mean()))
        other /= np.linalg.norm(other)
        found = like * base + np.sqrt(1 - like**2) * other

        def sample(shift: np.ndarray | float = 0.0) -> np.ndarray:
            samples = np.zeros((len(view.at), 3))
            samples[: SIDE * SIDE, 0] = found
            return samples

        view.sample = sample
        return float(registered(view)[2][0])

    # Correlations of 0.35 to 0.9 are mapped to weights of 0 to 1.
    for like, expected in ((0.3, 0.0), (0.5, 0.15 / 0.55), (0.8, 0.45 / 0.55), (0.95, 1.0)):
        assert weighed(like) == pytest.approx(expected, abs=1e-6)


def test_a_patch_that_moves_farther_than_nearly_four_blurs_is_not_believed() -> None:
    class Sloped(Seen):
        """A pattern as fine as the samples, at a place that lies `far` pixels to the right."""

        def sample(self, shift: np.ndarray | float = 0.0) -> np.ndarray:
            value = wave(*self.at.T)[0]
            moved = np.broadcast_to(np.asarray(shift, float), self.at.shape)
            slope = np.where(np.arange(len(self.at)) % 2, 0.5, -0.5)
            value = value + slope * (moved[:, 0] - self.move[0])
            return np.stack((value, slope, np.zeros_like(value)), 1)

    for far, believed in ((3.4, True), (3.75, False), (9.0, False)):
        shift, _, weights = registered(Sloped((far, 0.0)))
        assert bool(weights[0] > 0) == believed, far
        assert shift[0, 0] <= 2 * (4.0 + 4.0) + 1e-6


def test_a_step_solves_the_patchs_equations_with_a_prior() -> None:
    random = np.random.default_rng(2)
    rows = random.normal(size=(2, 9, 2))
    matrices, right = rows.transpose(0, 2, 1) @ rows, random.normal(size=(2, 2))
    prior = np.array((0.5, 3.0))
    equations = _PatchEquations(
        matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 1], right[:, 0], right[:, 1], prior, prior
    )
    expected = [np.linalg.solve(matrices[k] + prior[k] * np.eye(2), right[k]) for k in range(2)]
    np.testing.assert_allclose(equations.step(prior), expected)


def test_the_prior_on_a_shift_is_as_wide_as_one_and_a_half_blurs_against_the_patchs_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    priors, step = [], _PatchEquations.step

    def watched(self: _PatchEquations, prior: np.ndarray) -> np.ndarray:
        priors.append((prior[:3].copy(), self.noise[:3].copy()))
        return step(self, prior)

    monkeypatch.setattr(_PatchEquations, "step", watched)
    registered(Seen((0.5, -0.3)), blur=3.0)
    registered(Seen((0.5, -0.3)))
    assert len(priors) == 6
    for step_number, (prior, noise) in enumerate(priors):
        # In pixels of the sampled image, which are two pixels at 512.
        blur = 1.5 if step_number < 3 else 1.0
        np.testing.assert_allclose(prior, 4.0 * noise / (1.5 * blur) ** 2)
    # The last samples agree with the prediction up to the noise that is assumed.
    assert priors[-1][1][0] == pytest.approx(0.03**2, rel=0.05) and IMAGE_SIZE == 256


def test_equations_are_sums_over_a_patchs_visible_samples() -> None:
    view = Seen((0.4, 0.2), contrast=0.8)
    weight = np.random.default_rng(1).uniform(size=len(view.at))
    target = wave(*grid().T)[0]
    skin = Patches()
    target = target - skin.patch_mean(target, weight)[skin.patch]
    shift = np.zeros((PATCHES, 2))
    shift[0] = 0.3, -0.1
    found = _PatchRegistration(skin, view, weight, target).equations(shift)
    own = slice(0, SIDE * SIDE)
    values, by_x, by_y = view.sample(shift[skin.patch])[own].T
    own_weight, own_target = weight[own], target[own]
    values, by_x, by_y = (part - np.average(part, weights=own_weight) for part in (values, by_x, by_y))
    contrast = (own_weight * values * own_target).sum() / (own_weight * own_target**2).sum()
    residual = values - contrast * own_target
    for name, expected in (
        ("xx", own_weight * by_x * by_x),
        ("xy", own_weight * by_x * by_y),
        ("yy", own_weight * by_y * by_y),
        ("x", own_weight * by_x * residual),
        ("y", own_weight * by_y * residual),
    ):
        assert getattr(found, name)[0] == pytest.approx(expected.sum()), name
    assert found.noise[0] == pytest.approx((own_weight * residual**2).sum() / own_weight.sum() + 0.03**2)
    together = (own_weight * values * own_target).sum()
    norms = (own_weight * values**2).sum() * (own_weight * own_target**2).sum()
    assert found.correlation[0] == pytest.approx(together / np.sqrt(norms))
