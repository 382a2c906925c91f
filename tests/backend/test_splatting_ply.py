"""An exported `.ply` has the format that other 3D Gaussian Splatting programs read, and renders the same image."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
import torch
from test_splatting_cpu import random_splats, turned_cameras

from backend.errors import EffigyError
from backend.splatting.ply import read_ply, write_splats
from backend.splatting.rasterize import rasterize


def test_records_hold_the_standard_properties_in_the_standard_units(tmp_path):
    """Parsed by hand from the format's description, independent of our reader."""
    splats = random_splats(1, 7, 1)
    harmonics = torch.randn(1, 7, 16, 3, generator=torch.Generator().manual_seed(2))
    assert write_splats(tmp_path / "a.ply", splats, harmonics) == 7
    head, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    lines = head.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 7"]
    names = [line.removeprefix("property float ") for line in lines[3:]]
    assert len(names) == 62 and names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[9] == "f_rest_0" and names[53] == "f_rest_44"
    assert names[54:] == ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    record = dict(zip(names, struct.unpack_from("<62f", body, 3 * 62 * 4), strict=True))
    assert record["y"] == pytest.approx(float(splats.means[0, 3, 1]))
    assert record["nx"] == 0
    assert record["scale_2"] == pytest.approx(float(splats.scales[0, 3, 2].log()), rel=1e-5)
    assert record["opacity"] == pytest.approx(float(torch.logit(splats.opacities[0, 3])), rel=1e-4)
    unit = torch.nn.functional.normalize(splats.quaternions[0, 3], dim=0)
    assert record["rot_0"] == pytest.approx(float(unit[0]), rel=1e-5)
    assert record["f_dc_1"] == pytest.approx(float(harmonics[0, 3, 0, 1]))
    # The coefficients are stored channel by channel: green begins after the 15 of red.
    assert record["f_rest_17"] == pytest.approx(float(harmonics[0, 3, 3, 1]))


def test_splats_that_are_read_back_render_the_same_image(tmp_path):
    splats = random_splats(1, 200, 3)
    opacities = splats.opacities.clone()
    opacities[:, :20] = 0
    opacities[:, 20:30] = 1
    splats = replace(splats, opacities=opacities)
    write_splats(tmp_path / "b.ply", splats)
    again, harmonics = read_ply(tmp_path / "b.ply")
    assert again.means.shape[1] == int((opacities >= 1 / 255).sum()) < 200
    assert float(harmonics[:, :, 1:].abs().max()) == 0
    before, after = (rasterize(each, turned_cameras(1)) for each in (splats, again))
    torch.testing.assert_close(after.color, before.color, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.depth, before.depth, atol=1e-4, rtol=0)


def test_harmonics_survive_the_round_trip(tmp_path):
    harmonics = torch.randn(1, 40, 9, 3, generator=torch.Generator().manual_seed(4))
    splats = random_splats(1, 40, 5)
    kept = splats.opacities[0] >= 1 / 255
    write_splats(tmp_path / "c.ply", splats, harmonics)
    _, again = read_ply(tmp_path / "c.ply")
    assert torch.equal(again[:, :, :9], harmonics[:, kept])
    assert float(again[:, :, 9:].abs().max()) == 0


def test_bad_files_and_several_frames_are_refused_with_a_sentence(tmp_path):
    with pytest.raises(EffigyError, match="one frame"):
        write_splats(tmp_path / "d.ply", random_splats(2, 3, 6))
    assert not list(tmp_path.iterdir())
    write_splats(tmp_path / "e.ply", random_splats(1, 3, 6))
    (tmp_path / "e.ply").write_bytes((tmp_path / "e.ply").read_bytes()[:-9])
    with pytest.raises(EffigyError, match="cut short"):
        read_ply(tmp_path / "e.ply")
    (tmp_path / "f.ply").write_text("solid")
    with pytest.raises(EffigyError, match="no binary"):
        read_ply(tmp_path / "f.ply")
    with pytest.raises(EffigyError, match="There is no file of Gaussians"):
        read_ply(tmp_path / "none.ply")
