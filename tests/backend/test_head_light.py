"""The light on a face: found from brightness on skin of unknown albedo, under lights that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rendered_person import rendered, scene
from scipy.spatial.transform import Rotation

from backend.errors import EffigyError
from backend.head.formats import load_head
from backend.tracking.after.head_light import estimate_light
from backend.tracking.observe.light_fit import AXES, HeadLight, SkinBrightness, cap_irradiance, fit_light

SKIN = np.array((0.5, 0.3, 0.2))
KEY = np.array((0.6, -0.5, -0.62)) / np.linalg.norm((0.6, -0.5, -0.62))
"""To the right of the camera, and above it."""
TRUTH = HeadLight(
    np.array((KEY, (-0.8, 0.0, -0.6))),
    np.array(((0.9, 0.8, 0.6), (0.1, 0.15, 0.3))),
    0.12 * np.array(((1, 1, 1), (0.6, 0.6, 0.6), (1, 1, 1), (1, 1, 1), (1.4, 1.4, 1.6), (1, 1, 1))),
)
NORMALS = np.random.default_rng(1).normal(size=(2000, 3))
NORMALS /= np.linalg.norm(NORMALS, axis=1, keepdims=True)
FACING = NORMALS[NORMALS[:, 2] < 0]


def skin_under(light: HeadLight, yaw: float, albedo: float = 0.2, points: int = 500) -> SkinBrightness:
    """Points of skin with the mean albedo `SKIN`, whose logarithm varies by `albedo`, in 8 frames that turn by up to
    `yaw` degrees.
    """
    random = np.random.default_rng(0)
    rest = random.normal(size=(3 * points, 3)) * (1, 1, 0.8)
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    rest = rest[rest[:, 2] < 0.3][:points]
    turns = Rotation.from_euler("YX", np.radians(yaw) * random.uniform(-1, 1, (8, 2)) * (1, 0.3))
    normals = np.stack([turn.apply(rest) for turn in turns])
    reflected = SKIN * np.exp(random.normal(0, albedo, (len(rest), 1)))
    color = light.shading(normals) * reflected * np.exp(random.normal(0, 0.04, (*normals.shape[:2], 1)))
    return SkinBrightness(color, normals, ((-normals[..., 2] - 0.25) / 0.35).clip(0, 1))


def error_of(found: HeadLight, truth: HeadLight) -> np.ndarray:
    """(N, 3) relative error of the irradiance of normals that face the camera, up to a factor for each colour."""
    shown, true = found.shading(FACING), truth.shading(FACING)
    return (shown * (shown * true).sum(0) / (shown**2).sum(0) - true) / true.mean(0)


def degrees(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(np.arccos(first @ second)))


@pytest.mark.parametrize(("yaw", "direction", "error"), [(45.0, 9.0, 0.035), (4.0, 18.0, 0.08)])
def test_lamps_and_ambient_light_are_found_beside_an_albedo_that_varies(yaw, direction, error):
    found = fit_light(skin_under(TRUTH, yaw))
    assert degrees(found.lamps[0], KEY) < direction
    assert np.sqrt((error_of(found, TRUTH) ** 2).mean()) < error
    even = replace(TRUTH, lamp_colors=0 * TRUTH.lamp_colors)
    assert np.sqrt((error_of(even, TRUTH) ** 2).mean()) > 4 * error
    assert (found.lamp_colors >= 0).all() and (found.ambient >= 0).all()
    # The key light is warmer than the ambient light.
    key, around = found.lamp_colors[0] / SKIN, found.ambient.sum(0) / SKIN
    assert key[2] / key[0] < 0.85 * around[2] / around[0]


def test_an_even_light_makes_no_strong_lamp():
    around = HeadLight(np.zeros((0, 3)), np.zeros((0, 3)), np.full((6, 3), 0.2))
    found = fit_light(skin_under(around, 45.0))
    assert found.lamp_colors.sum() < 0.15 * found.ambient.sum()
    assert np.abs(error_of(found, around)).max() < 0.1


def test_a_wide_light_is_a_cap_of_the_sky():
    """Known values of a cap of 60 degrees: on its axis 1, and on a wall beside it the part above the horizon."""
    assert cap_irradiance(np.array((1.0, -1.0))) == pytest.approx((1, 0), abs=1e-3)
    # As Cycles 5.0 lights a sphere by a sun with an angle of 120 degrees, at 60, 90 and 120 degrees from it.
    assert cap_irradiance(np.cos(np.radians((60, 90, 120)))) == pytest.approx((0.565, 0.262, 0.061), abs=0.01)
    total = cap_irradiance(NORMALS @ AXES.T).sum(1)
    assert total.std() < 0.02 * total.mean()


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    return rendered(tmp_path_factory.mktemp("light") / "person.capture", seed=3, frames=6, yaw=45.0, still=True)


def test_the_light_of_a_rendered_person_is_found(turning):
    made = scene(3, 6, 45.0, True)
    found = estimate_light(turning.capture, turning.truth, load_head())
    shown, true = found.shading(FACING), made.irradiance(FACING)
    error = shown * (shown * true).sum(0) / (shown**2).sum(0) - true
    assert np.sqrt((error**2).mean()) < 0.1 * true.mean()
    assert degrees(found.lamps[0], made.key) < 25


def test_footage_that_shows_no_light_is_refused(turning, tmp_path: Path):
    lost = replace(turning.truth, flags=np.ones_like(turning.truth.flags))
    with pytest.raises(EffigyError, match="tracked reliably"):
        estimate_light(turning.capture, lost, load_head())
    behind = turning.truth.head_to_camera.copy()
    behind[:, 0, 3] += 5
    with pytest.raises(EffigyError, match="Too little of the face"):
        estimate_light(turning.capture, replace(turning.truth, head_to_camera=behind), load_head())
