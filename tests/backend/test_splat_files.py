"""Exported files of Gaussians, parsed by hand from the descriptions of their formats."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.errors import EffigyError
from backend.splat_files import C0, Gaussians, encoded, format_of

ROOT = Path(__file__).resolve().parents[2]


def cloud(count: int = 400, at: tuple[float, float, float] = (0.1, -2.0, 0.5)) -> Gaussians:
    random = np.random.default_rng(3)
    return Gaussians(
        random.normal(0, 0.1, (count, 3)) + at,
        random.normal(0, 1, (count, 4)),
        np.exp(random.uniform(-8, -4, (count, 3))),
        random.uniform(0, 1, count),
        random.uniform(-0.05, 1.1, (count, 3)),
    )


def covariances(rotations: Rotation, scales: np.ndarray) -> np.ndarray:
    axes = rotations.as_matrix() * scales[:, None]
    return axes @ axes.transpose(0, 2, 1)


def test_the_extension_has_the_same_module():
    ours, theirs = (ROOT / side / "splat_files.py" for side in ("backend", "blender_addon"))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(("distance", "step"), [(1.0, 1e-6), (100.0, 1e-5)])
def test_an_spz_holds_the_gaussians_in_its_own_steps(distance, step):
    given = cloud(at=(0.1, -distance, 0.5))
    content, count = encoded(".spz", given)
    data = gzip.decompress(content)
    magic, version, points, degree, bits, flags, reserved = struct.unpack_from("<4sIIBBBB", data)
    assert (magic, version, points, degree, flags, reserved) == (b"NGSP", 3, count, 0, 0, 0)
    seen = given.seen()
    assert count == len(seen.means) < 400 and len(data) == 16 + 20 * count
    parts = np.split(np.frombuffer(data, np.uint8, offset=16), np.cumsum([9, 1, 3, 3])[:4] * count)
    padded = np.pad(parts[0].reshape(-1, 3), ((0, 0), (1, 0))).copy()
    means = padded.view("<i4").reshape(-1, 3) / 256 / 2**bits
    assert np.abs(means - seen.means).max() < step
    assert np.abs(parts[1] / 255 - seen.opacities).max() <= 0.5 / 255 + 1e-9
    colors = 0.5 + C0 * (parts[2].reshape(-1, 3) / 255 - 0.5) / 0.15
    # A step is 1.9/255: the largest error is half of it.
    assert np.abs(colors - seen.colors).max() < 1 / 255
    scales = np.exp(parts[3].reshape(-1, 3) / 16 - 10)
    assert np.abs(np.log(scales / seen.scales)).max() < 0.5 / 16 + 1e-9
    packed = parts[4].view("<u4")
    rotations = []
    for word in packed.tolist():
        quaternion, largest = [0.0] * 4, word >> 30
        for index in (index for index in (3, 2, 1, 0) if index != largest):
            quaternion[index] = (-1 if word & 512 else 1) * (word & 511) / 511 / 2**0.5
            word >>= 10
        quaternion[largest] = max(0.0, 1 - sum(value**2 for value in quaternion)) ** 0.5
        rotations.append(quaternion)
    difference = Rotation.from_quat(rotations) * Rotation.from_quat(seen.quaternions[:, (1, 2, 3, 0)]).inv()
    assert np.degrees(difference.magnitude()).max() < 0.3


def test_a_glb_holds_the_attributes_of_the_extension_and_points_for_others():
    given = cloud()
    content, count = encoded(".glb", given)
    magic, version, length, json_length, kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON")
    scene = json.loads(content[20 : 20 + json_length])
    binary = content[28 + json_length :]
    assert struct.unpack_from("<I4s", content, 20 + json_length) == (len(binary), b"BIN\0")
    ((primitive,),) = [mesh["primitives"] for mesh in scene["meshes"]]
    assert primitive["mode"] == 0 and scene["extensionsUsed"] == ["KHR_gaussian_splatting"]
    assert primitive["extensions"]["KHR_gaussian_splatting"]["colorSpace"] == "srgb_rec709_display"
    found = {}
    for name, index in primitive["attributes"].items():
        accessor = scene["accessors"][index]
        view = scene["bufferViews"][accessor["bufferView"]]
        data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        found[name] = np.frombuffer(data, "<f4").reshape(count, -1)
    seen = given.seen()
    prefix = "KHR_gaussian_splatting:"
    assert np.abs(found["POSITION"] - seen.means).max() < 1e-6
    assert scene["accessors"][primitive["attributes"]["POSITION"]]["min"] == found["POSITION"].min(0).tolist()
    assert np.allclose(found[f"{prefix}SCALE"], seen.scales) and np.allclose(
        found[f"{prefix}OPACITY"][:, 0], seen.opacities
    )
    assert np.abs(0.5 + C0 * found[f"{prefix}SH_DEGREE_0_COEF_0"] - seen.colors).max() < 1e-6
    made = covariances(Rotation.from_quat(found[f"{prefix}ROTATION"]), found[f"{prefix}SCALE"])
    assert np.allclose(made, covariances(Rotation.from_quat(seen.quaternions[:, (1, 2, 3, 0)]), seen.scales), atol=1e-9)
    # COLOR_0 is linear.
    grey = Gaussians(*(np.ones((1, size))[:, :size] for size in (3, 4, 3)), np.ones(1), np.full((1, 3), 0.5))
    content, _ = encoded(".glb", grey)
    assert np.frombuffer(content, "<f4", 4, content.rindex(b"BIN\0") + 4 + 12) == pytest.approx(
        [0.2140, 0.2140, 0.2140, 1], abs=1e-3
    )


@pytest.mark.parametrize("suffix", [".ply", ".spz", ".glb"])
def test_a_frame_without_gaussians_is_a_whole_file(suffix):
    content, count = encoded(suffix, cloud(0))
    assert count == 0
    if suffix == ".glb":
        assert json.loads(content[20:])["scenes"] == [{}] and len(content) % 4 == 0
    if suffix == ".spz":
        assert len(gzip.decompress(content)) == 16


def test_what_a_file_cannot_hold_gives_a_sentence():
    with pytest.raises(EffigyError, match="40 km from the world's origin"):
        encoded(".spz", cloud(at=(0, 40_000, 0)))
    broken = cloud()
    broken.scales[3, 1] = np.nan
    broken.opacities[3] = 0.5
    with pytest.raises(EffigyError, match="not finite"):
        encoded(".glb", broken)


def test_the_name_says_the_format():
    assert (format_of("a.b.SPZ"), format_of("a.glb"), format_of("a.obj")) == (".spz", ".glb", None)
