"""Every implementation of `rasterize_meshes` draws what rays through the pixels hit, and the same as the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_mesh_raster import INTRINSICS, ray_cast

from backend.errors import EffigyError
from backend.head.formats import load_head
from backend.splatting import mesh_batch
from backend.splatting.mesh import rasterize_mesh
from backend.splatting.mesh_batch import MeshBackend, MeshRasters, rasterize_meshes, why_unavailable

WIDTH, HEIGHT = 64, 48
IMPLEMENTATIONS: list[tuple[MeshBackend, str]] = [
    ("cpu", "cpu"),
    ("warp", "cpu"),
    ("pytorch3d", "cpu"),
    ("auto", "cuda"),
    ("warp", "cuda"),
    ("pytorch3d", "cuda"),
]


def why_untested(backend: MeshBackend, device: str) -> str | None:
    if device == "cuda" and not torch.cuda.is_available():
        return "there is no GPU that PyTorch can use"
    return why_unavailable(backend)


TESTED = [pair for pair in IMPLEMENTATIONS if why_untested(*pair) is None]


@pytest.mark.parametrize(("backend", "device"), IMPLEMENTATIONS)
def test_the_contract_covers_every_implementation_that_this_machine_has(backend, device):
    if reason := why_untested(backend, device):
        pytest.skip(f"The mesh rasteriser '{backend}' was not tested on the device '{device}': {reason}")
    assert (backend, device) in TESTED


@pytest.fixture(params=TESTED, ids=lambda pair: f"{pair[0]} on {pair[1]}")
def draw(request):
    """`rasterize_meshes` by one implementation on one device, with results on the CPU."""
    backend, device = request.param

    def drawn(vertices: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, width=WIDTH, height=HEIGHT, **options):
        tensors = (torch.as_tensor(array, device=device) for array in (vertices, faces, intrinsics))
        rasters = rasterize_meshes(*tensors, width, height, backend=backend, **options)
        assert rasters.depth.device.type == device
        return MeshRasters(*(tensor.cpu() for tensor in vars(rasters).values()))

    return drawn


def scattered_triangles(seed: int, images: int = 1, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centres = random.uniform([-0.5, -0.4, 1.2], [0.5, 0.4, 3.0], (images, count, 1, 3))
    vertices = (centres + random.normal(0, 0.15, (images, count, 3, 3))).reshape(images, -1, 3)
    return vertices, np.arange(3 * count).reshape(count, 3)


def turned_heads(images: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The open head from several sides: vertices (B, V, 3), faces and intrinsics (B, 3, 3)."""
    model = load_head()
    centred = model.template.astype(np.float64) - model.template.mean(0)
    angles = np.linspace(-1.2, 1.2, images)
    turns = np.array([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in angles])
    vertices = centred @ turns.transpose(0, 2, 1) * [1, -1, -1] + [0, 0, 0.8]
    focal = size * np.linspace(1.9, 2.3, images)
    lenses = np.array([[[f, 0, 0.5 * size + 3], [0, 1.02 * f, 0.5 * size - 2], [0, 0, 1]] for f in focal])
    return vertices, model.faces, lenses


def assert_same(rasters: MeshRasters, image: int, index, barycentric, depth) -> None:
    """One image against the arrays of a reference, with the accuracy that `mesh_batch` promises."""
    same = rasters.face_index[image].numpy() == index
    # Two triangles may be equally near, or a pixel lie on an edge, to the last bit; nowhere else may they differ.
    assert same.mean() > 0.999
    hit = same & (index >= 0)
    np.testing.assert_allclose(rasters.barycentric[image].numpy()[hit], barycentric[hit], atol=1e-5)
    np.testing.assert_allclose(rasters.depth[image].numpy()[hit], depth[hit], rtol=1e-6)
    empty = ~rasters.covered[image].numpy()
    assert np.isinf(rasters.depth[image].numpy()[empty]).all()
    assert (rasters.barycentric[image].numpy()[empty] == 0).all()


def test_every_implementation_sees_the_triangle_that_the_pixel_s_ray_hits_first(draw):
    vertices, faces = scattered_triangles(3, images=3)
    rasters = draw(vertices, faces, INTRINSICS)
    for image in range(3):
        index, barycentric, depth = ray_cast(vertices[image], faces)
        assert (index >= 0).mean() > 0.3
        assert_same(rasters, image, index, barycentric, depth)


@pytest.mark.parametrize("front_only", [False, True])
def test_every_implementation_draws_heads_with_a_camera_each_as_numba_does(draw, front_only):
    vertices, faces, lenses = turned_heads(3, 96)
    # Turned inside out, so that `front_only` shows the inner side of the back of the head.
    faces = faces[:, ::-1].copy()
    rasters = draw(vertices, faces, lenses, 100, 96, front_only=front_only)
    truth = rasterize_meshes(
        *(torch.as_tensor(part) for part in (vertices, faces, lenses)), 100, 96, front_only=front_only, backend="cpu"
    )
    assert truth.covered.float().mean() > 0.15
    for image in range(3):
        assert_same(rasters, image, *(tensor[image].numpy() for tensor in vars(truth).values()))


def test_every_implementation_skips_what_is_behind_the_camera_too_far_or_not_a_number(draw):
    unseen = [[-1, -1, -2.0], [1, -1, -2.0], [0, 1, -2.0], [1e12, 0, 1], [1e12, 1, 1], [2e12, 0, 1]]
    broken = [[np.nan, 0, 1], [0, 0.1, 1], [0.1, 0, 1], [np.inf, 0, 1], [0.2, 0.3, np.nan], [0.1, 0.3, 1]]
    crossing = [[-0.2, -0.1, -0.5], [0.2, -0.1, 1.0], [0, 0.2, 1.0]]
    flat = [[-0.2, 0, 1.0], [0, 0, 1.0], [0.2, 0, 1.0]]
    vertices = np.array([*unseen, *broken, *crossing, *flat])
    assert not draw(vertices[None], np.arange(18).reshape(6, 3), INTRINSICS).covered.any()


def test_every_implementation_covers_the_image_with_one_large_triangle_and_none_with_no_triangle(draw):
    vertices = np.array([[[-9.0, -9, 2], [9, -9, 2], [0, 18, 2]]])
    rasters = draw(vertices, np.array([[0, 1, 2]]), INTRINSICS)
    assert rasters.covered.all()
    np.testing.assert_allclose(rasters.depth, 2.0, rtol=1e-6)
    assert not draw(vertices, np.zeros((0, 3), np.int32), INTRINSICS).covered.any()


def test_every_implementation_keeps_the_first_of_two_equal_triangles(draw):
    vertices = np.array([[[-0.3, -0.2, 1.0], [0.3, -0.2, 1.0], [0.0, 0.2, 1.0]]])
    rasters = draw(vertices, np.array([[0, 1, 2], [0, 1, 2]]), INTRINSICS)
    assert set(rasters.face_index.unique().tolist()) == {-1, 0}


def test_one_image_of_a_batch_is_the_raster_of_one_image():
    vertices, faces, lenses = turned_heads(2, 80)
    rasters = rasterize_meshes(*(torch.as_tensor(part) for part in (vertices, faces, lenses)), 80, 80)
    single = rasterize_mesh(vertices[1], faces, lenses[1], 80, 80)
    for name, array in vars(single).items():
        np.testing.assert_array_equal(getattr(rasters, name)[1].numpy(), array, err_msg=name)


def test_shapes_that_do_not_fit_and_unknown_implementations_are_refused():
    vertices, faces = torch.zeros(2, 3, 3), torch.tensor([[0, 1, 2]])
    with pytest.raises(EffigyError, match=r"2 meshes need intrinsics"):
        rasterize_meshes(vertices, faces, torch.eye(3).expand(3, 3, 3), 8, 8)
    with pytest.raises(EffigyError, match="need vertices"):
        rasterize_meshes(vertices[0], faces, torch.eye(3), 8, 8)
    with pytest.raises(EffigyError, match="does not have"):
        rasterize_meshes(vertices, faces + 1, torch.eye(3), 8, 8)
    with pytest.raises(EffigyError, match="no mesh rasteriser 'opengl'"):
        rasterize_meshes(vertices, faces, torch.eye(3), 8, 8, backend="opengl")  # pyright: ignore[reportArgumentType]


@pytest.mark.skipif(why_unavailable("pytorch3d") is None, reason="PyTorch3D is installed.")
def test_requesting_pytorch3d_without_it_raises_an_error_with_a_sentence():
    with pytest.raises(EffigyError, match="PyTorch3D is not installed"):
        rasterize_meshes(torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]]), torch.eye(3), 8, 8, backend="pytorch3d")


def test_a_gpu_implementation_that_fails_is_left_for_the_next_and_not_tried_again(monkeypatch):
    tried = []

    def broken(*_arguments):
        tried.append("warp")
        raise RuntimeError("the kernel was not built")

    monkeypatch.setattr(mesh_batch, "_failed", {})
    monkeypatch.setattr("backend.splatting.mesh_warp.rasterize_meshes_warp", broken)
    vertices, faces = (torch.as_tensor(part) for part in scattered_triangles(5))
    inputs = vertices, faces.int(), torch.as_tensor(INTRINSICS)[None], WIDTH, HEIGHT, False
    for _ in range(2):
        face_index = mesh_batch._on_gpu(*inputs)[0]
        assert (face_index >= 0).any()
    assert tried == ["warp"]
    assert "the kernel was not built" in mesh_batch._failed["warp"]


def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path):
    """Turing, the oldest generation that Warp supports. Warp's wheel contains the compiler."""
    wp = pytest.importorskip("warp", reason="NVIDIA Warp (warp-lang) is not installed here")
    from backend.splatting import mesh_warp

    if 75 not in wp.get_cuda_supported_archs():
        pytest.skip("this build of Warp has no compiler for GPUs (macOS)")
    [made] = wp.compile_aot_module(mesh_warp, device=None, arch=75, module_dir=tmp_path, use_ptx=True)
    text = made.read_bytes()
    assert b"atom.global.max.s64" in text, "the z-buffer is updated by one atomic operation of 64 bits"
