"""The rasterisers that run on a CPU, numba's and Warp's, render the same images as the reference, and their
hand-written gradients are correct.
"""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.errors import EffigyError
from backend.splatting import cpu_tiles, jit
from backend.splatting.cpu_project import WHITEN, project
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras, Splats

WIDTH, HEIGHT = 40, 37


@pytest.fixture(autouse=True, scope="module")
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["cpu", "warp"])
def backend(request: pytest.FixtureRequest) -> str:
    """numba, and NVIDIA Warp, whose kernels are the same source on a CPU and on a GPU."""
    if request.param == "warp":
        pytest.importorskip("warp", reason="NVIDIA Warp (warp-lang) is not installed here")
    return request.param


def random_splats(images: int, count: int, seed: int) -> Splats:
    generator = torch.Generator().manual_seed(seed)
    return Splats(
        means=0.5 * torch.randn(images, count, 3, generator=generator),
        quaternions=torch.randn(images, count, 4, generator=generator),
        scales=torch.exp(0.7 * torch.randn(images, count, 3, generator=generator) - 2.5),
        opacities=torch.rand(images, count, generator=generator),
        colors=torch.rand(images, count, 3, generator=generator),
    )


def turned_cameras(images: int, width: int = WIDTH, height: int = HEIGHT) -> Cameras:
    """Cameras that look at the origin from 1.5 m, each rotated a little further, principal point off centre."""
    intrinsics = torch.tensor([[45.0, 0, width / 2 + 1], [0, 47.0, height / 2 - 2], [0, 0, 1]])
    views = torch.eye(4).repeat(images, 1, 1)
    for b in range(images):
        angle = 0.2 + 0.4 * b
        views[b, 0, 0] = views[b, 2, 2] = math.cos(angle)
        views[b, 0, 2], views[b, 2, 0] = math.sin(angle), -math.sin(angle)
        views[b, 2, 3] = 1.5
    return Cameras(intrinsics.repeat(images, 1, 1), views, width, height)


def random_scene():
    return random_splats(3, 80, 1), turned_cameras(3)


def small_faint_and_many():
    splats = random_splats(1, 400, 2)
    return replace(splats, scales=0.3 * splats.scales), turned_cameras(1)


def behind_and_around_the_camera():
    splats = random_splats(2, 120, 3)
    return replace(splats, means=3 * splats.means), turned_cameras(2)


def across_the_frame_edges():
    splats = random_splats(1, 80, 4)
    means = splats.means * torch.tensor([4.0, 4.0, 0.3])
    return replace(splats, means=means, scales=3 * splats.scales), turned_cameras(1)


def needles_discs_and_points():
    splats = random_splats(1, 90, 5)
    scales = splats.scales.clone()
    scales[:, :30, 0] *= 20
    scales[:, 30:60, 2] = 0
    scales[:, 60:] = 0
    return replace(splats, scales=scales), turned_cameras(1)


def tied_depths():
    splats = random_splats(1, 60, 6)
    means = splats.means.clone()
    means[..., 2] = torch.arange(60) % 3 * 0.25
    cameras = turned_cameras(1)
    cameras.world_to_camera[:, :3, :3] = torch.eye(3)
    return replace(splats, means=means), cameras


def transparent_and_opaque():
    splats = random_splats(1, 90, 7)
    opacities = splats.opacities.clone()
    opacities[:, :30] = 0
    opacities[:, 30:40] = -0.5
    opacities[:, 40:60] = 1
    return replace(splats, opacities=opacities), turned_cameras(1)


def a_crowd_that_ends_pixels_early():
    splats = random_splats(1, 150, 15)
    return replace(splats, means=0.3 * splats.means, opacities=0.9 + 0.1 * splats.opacities), turned_cameras(1)


def opaque_walls():
    """Gaussians so large that many pixels reach the maximum alpha, where opacity and shape have no gradient."""
    splats = random_splats(1, 6, 16)
    means = 0.2 * splats.means + torch.linspace(0, 1, 6)[:, None] * torch.tensor([0.0, 0.0, 1.0])
    opacities = torch.tensor([[0.45, 1, 0.71, 0.4, 1, 0.52]])
    return replace(splats, means=means, scales=30 * splats.scales, opacities=opacities), turned_cameras(1)


def depths_that_differ_in_the_last_bit():
    splats = random_splats(1, 60, 17)
    means = splats.means.clone()
    means[0, :, 2] = 1 + 2.0**-22 * torch.randperm(60, generator=torch.Generator().manual_seed(18))
    cameras = turned_cameras(1)
    cameras.world_to_camera[:, :3, :3] = torch.eye(3)
    return replace(splats, means=means), cameras


def quaternions_of_any_length():
    splats = random_splats(1, 60, 8)
    lengths = torch.logspace(-3, 3, 60)[None, :, None]
    return replace(splats, quaternions=lengths * splats.quaternions), turned_cameras(1)


def one_pixel_wide():
    return random_splats(1, 60, 9), turned_cameras(1, 1, 50)


SCENES = [
    random_scene,
    small_faint_and_many,
    behind_and_around_the_camera,
    across_the_frame_edges,
    needles_discs_and_points,
    tied_depths,
    transparent_and_opaque,
    a_crowd_that_ends_pixels_early,
    opaque_walls,
    depths_that_differ_in_the_last_bit,
    quaternions_of_any_length,
    one_pixel_wide,
]


def draw_with_gradients(splats: Splats, cameras: Cameras, backend: str, dtype: torch.dtype):
    """Colour, alpha and depth images, and the gradients of a fixed random weighting of the three."""
    leaves = Splats(*(tensor.detach().to(dtype).requires_grad_() for tensor in vars(splats).values()))
    seen_by = Cameras(cameras.intrinsics.to(dtype), cameras.world_to_camera.to(dtype), cameras.width, cameras.height)
    raster = rasterize(leaves, seen_by, backend=backend)
    generator = torch.Generator().manual_seed(99)
    loss = sum(
        (image * torch.randn(image.shape, generator=generator).to(dtype)).sum() for image in vars(raster).values()
    )
    gradients = torch.autograd.grad(loss, list(vars(leaves).values()))
    return raster, dict(zip(vars(splats), gradients, strict=True))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_images_and_gradients_are_those_of_the_reference(scene, backend):
    splats, cameras = scene()
    assert_agrees_with_reference(splats, cameras, *draw_with_gradients(splats, cameras, backend, torch.float32))


def assert_agrees_with_reference(splats: Splats, cameras: Cameras, raster, gradients) -> None:
    """Images and gradients (on the CPU) are within the bars that every fast rasteriser of ours must meet."""
    truth, true_gradients = draw_with_gradients(splats, cameras, "reference", torch.float64)
    assert truth.alpha.max() > 0.1, "the scene must show something"
    for name, image in vars(raster).items():
        torch.testing.assert_close(image.double(), getattr(truth, name), atol=1e-4, rtol=0, msg=name)
    for name, gradient in gradients.items():
        truly = true_gradients[name]
        # Relative to each Gaussian's own gradient, or to the largest where its own terms cancel to nearly zero.
        allowed = 1e-3 * truly.abs() + 1e-5 * truly.abs().max()
        assert ((gradient - truly).abs() <= allowed).all(), f"{name}: {((gradient - truly).abs() / allowed).max():.2f}"


def test_gradients_predict_the_effect_of_a_small_change(backend):
    """Central differences of the rasteriser alone. Falloffs are cut at alpha 1/255, which costs a few per cent."""
    splats, cameras = random_splats(1, 25, 11), turned_cameras(1)
    columns = torch.linspace(0, 3, WIDTH)
    rows = torch.linspace(0, 2, HEIGHT)[:, None]
    weight = (torch.sin(columns + rows) + 1.5).double()

    def loss(drawn: Splats) -> torch.Tensor:
        raster = rasterize(drawn, cameras, backend=backend)
        color = raster.color.double() @ torch.tensor([1.0, -0.5, 0.7], dtype=torch.float64)
        return ((color + 0.8 * raster.alpha + 0.3 * raster.depth) * weight).sum()

    leaves = {name: tensor.clone().requires_grad_() for name, tensor in vars(splats).items()}
    gradients = dict(zip(leaves, torch.autograd.grad(loss(Splats(**leaves)), list(leaves.values())), strict=True))
    for name, step in {"means": 3e-3, "quaternions": 2e-2, "scales": 2e-3, "opacities": 5e-3, "colors": 1e-2}.items():
        direction = torch.sign(gradients[name])
        with torch.no_grad():
            ahead, behind = (
                loss(Splats(**(leaves | {name: leaves[name] + sign * step * direction}))) for sign in (1, -1)
            )
        predicted = (gradients[name] * direction).sum()
        assert (ahead - behind) / (2 * step) == pytest.approx(float(predicted), rel=0.05), name


def test_a_single_gaussian_has_the_peak_and_width_of_its_formula(backend):
    """On the axis σ² = (f s / z)² + 0.3 px²; the centre of pixel (row, column) is (column + 0.5, row + 0.5)."""
    splats = Splats(
        means=torch.tensor([[[0.0, 0.0, 2.0]]]),
        quaternions=torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]),
        scales=torch.tensor([[[0.06, 0.02, 0.5]]]),
        opacities=torch.tensor([[0.8]]),
        colors=torch.tensor([[[1.0, 0.5, 0.25]]]),
    )
    intrinsics = torch.tensor([[[100.0, 0, 15.5], [0, 100.0, 12.5], [0, 0, 1]]])
    raster = rasterize(splats, Cameras(intrinsics, torch.eye(4)[None], 32, 24), backend=backend)
    wide, high = 3.0**2 + 0.3, 1.0**2 + 0.3
    for column, row in ((15, 12), (18, 12), (15, 14), (11, 13)):
        alpha = 0.8 * math.exp(-0.5 * ((column - 15) ** 2 / wide + (row - 12) ** 2 / high))
        assert raster.alpha[0, row, column] == pytest.approx(alpha, abs=1e-6)
        assert raster.depth[0, row, column] == pytest.approx(2 * alpha, abs=2e-6)
        assert raster.color[0, row, column].tolist() == pytest.approx([alpha, alpha / 2, alpha / 4], abs=1e-6)
    assert raster.alpha[0, 12, 0] == 0


def test_an_empty_scene_is_black_and_can_be_differentiated(backend):
    splats = Splats(*(torch.zeros(2, 0, *rest, requires_grad=True) for rest in ((3,), (4,), (3,), (), (3,))))
    raster = rasterize(splats, turned_cameras(2), backend=backend)
    assert not any(image.any() for image in vars(raster).values())
    raster.color.sum().backward()
    assert splats.means.grad.shape == (2, 0, 3)


def test_images_and_gradients_do_not_depend_on_threads_or_on_the_batch(backend):
    splats, cameras = random_splats(3, 300, 12), turned_cameras(3, 70, 50)
    together = draw_with_gradients(splats, cameras, backend, torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with_one_thread = draw_with_gradients(splats, cameras, backend, torch.float32)
    finally:
        torch.set_num_threads(threads)
    for name in vars(together[0]):
        assert torch.equal(getattr(together[0], name), getattr(with_one_thread[0], name)), name
    for name, gradient in together[1].items():
        assert torch.equal(gradient, with_one_thread[1][name]), name
    last = Splats(*(tensor[2:] for tensor in vars(splats).values()))
    alone = rasterize(last, Cameras(cameras.intrinsics[2:], cameras.world_to_camera[2:], 70, 50), backend=backend)
    assert torch.equal(alone.color, together[0].color[2:])


def test_two_threads_may_rasterise_at_the_same_time(backend):
    splats, cameras = random_splats(2, 300, 19), turned_cameras(2, 70, 50)
    alone = rasterize(splats, cameras, backend=backend).color
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda _: rasterize(splats, cameras, backend=backend).color, range(12)))
    assert all(torch.equal(color, alone) for color in at_once)


def test_gaussians_are_projected_as_in_gsplat():
    """Gsplat's own PyTorch formulas, which need no GPU: centres, inverse covariances and depths in the image."""
    formulas = pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed here")
    splats, cameras = across_the_frame_edges()
    arrays = [tensor.numpy() for tensor in vars(splats).values()]
    table = np.zeros((1, splats.means.shape[1], cpu_tiles.FIELDS), np.float32)
    touched = np.zeros(table.shape[:2], np.int32)
    project(0, 1, *arrays, cameras.intrinsics.numpy(), cameras.world_to_camera.numpy(), WIDTH, HEIGHT, table, touched)
    covariances, _ = formulas._quat_scale_to_covar_preci(splats.quaternions[0], splats.scales[0], True, False)
    _, means, depths, conics, _ = formulas._fully_fused_projection(
        splats.means[0], covariances, cameras.world_to_camera, cameras.intrinsics, WIDTH, HEIGHT
    )
    drawn = touched[0] > 0
    assert 10 < drawn.sum() < len(drawn), "some must be drawn and some not"
    row = table[0, drawn].astype(float)
    w00, w01, w11 = row[:, cpu_tiles.W00], row[:, cpu_tiles.W01], row[:, cpu_tiles.W11]
    ours = np.stack([w00 * w00, w00 * w01, w01 * w01 + w11 * w11], 1) / WHITEN**2
    np.testing.assert_allclose(row[:, [cpu_tiles.X, cpu_tiles.Y]], means[0, drawn], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(row[:, cpu_tiles.DEPTH], depths[0, drawn], rtol=1e-5)
    np.testing.assert_allclose(ours, conics[0, drawn], rtol=2e-4, atol=1e-6)


def test_non_contiguous_tensors_are_read_correctly(backend):
    splats, cameras = random_splats(1, 60, 13), turned_cameras(2)
    shared = Splats(*(tensor.expand(2, *tensor.shape[1:]) for tensor in vars(splats).values()))
    copied = Splats(*(tensor.repeat(2, *(1 for _ in tensor.shape[1:])) for tensor in vars(splats).values()))
    assert torch.equal(
        rasterize(shared, cameras, backend=backend).color, rasterize(copied, cameras, backend=backend).color
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"opacities": torch.zeros(1, 5, 1)}, "'opacities' must be"),
        ({"quaternions": torch.zeros(1, 5, 3)}, "'quaternions' must be"),
        ({"means": torch.zeros(5, 3)}, "splats.means must be"),
        ({"colors": torch.zeros(1, 5, 3, dtype=torch.float64)}, "takes float32"),
    ],
)
def test_wrong_input_is_reported_in_a_sentence(change, sentence):
    splats = Splats(**(vars(random_splats(1, 5, 14)) | change))
    with pytest.raises(EffigyError, match=sentence):
        rasterize(splats, turned_cameras(1), backend="cpu")


def test_kernels_compile_even_if_no_cache_folder_is_writable(tmp_path, monkeypatch):
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    for variable in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(variable, str(blocked))
    folder = jit.cache_folder()
    assert folder.is_dir() and blocked not in folder.parents
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "own"))
    assert tmp_path / "own" in jit.cache_folder().parents


def test_no_room_compiles_kernels_in_another_way():
    """Numba's own way refuses to work where neither the sources' folder nor a home can be written."""
    backend = Path(jit.__file__).parents[1]
    found = [
        file for file in backend.rglob("*.py") if "numba.njit" in (text := file.read_text()) or "numba.jit" in text
    ]
    assert found == [Path(jit.__file__)]


@pytest.mark.skipif(sys.platform == "win32", reason="every account of Windows has a folder")
def test_kernels_compile_for_an_account_without_a_home_folder(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for variable in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert jit.cache_folder().is_dir()


def test_the_rows_that_a_gaussian_covers_in_a_tile_are_all_and_no_others():
    """Compared with the exponent at every pixel, for narrow slanted ellipses that a tile cuts."""
    from backend.splatting.cpu_blend import _rows_covered
    from backend.splatting.cpu_tiles import LOG_OPACITY, TILE_HEIGHT, TILE_WIDTH, W00, W01, W11, X, Y

    splats, cameras = random_splats(1, 200, 23), turned_cameras(1)
    splats = replace(splats, scales=splats.scales * torch.tensor((1.0, 0.1, 0.3)))
    arrays = [tensor.numpy() for tensor in vars(splats).values()]
    table = np.zeros((1, 200, cpu_tiles.FIELDS), np.float32)
    touched = np.zeros(table.shape[:2], np.int32)
    project(0, 1, *arrays, cameras.intrinsics.numpy(), cameras.world_to_camera.numpy(), WIDTH, HEIGHT, table, touched)
    y, x = np.mgrid[:TILE_HEIGHT, :TILE_WIDTH] + 0.5
    compared, spare = 0, 0
    for row in table[0, touched[0] > 0]:
        for left in range(0, WIDTH, TILE_WIDTH):
            for top in range(0, HEIGHT, TILE_HEIGHT):
                dx, dy = row[X] - left - x, row[Y] - top - y
                exponent = row[LOG_OPACITY] - (row[W00] * dx + row[W01] * dy) ** 2 - (row[W11] * dy) ** 2
                rows = np.flatnonzero((exponent >= math.log2(1 / 255)).any(1))
                first, past = _rows_covered(row, np.float32(left), np.float32(top))
                if len(rows):
                    assert first <= rows[0] and rows[-1] < past
                    compared, spare = compared + 1, spare + (rows[0] - first) + (past - 1 - rows[-1])
    assert compared > 200 and spare < 0.2 * compared
