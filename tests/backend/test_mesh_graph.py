"""The head's mesh as a graph: Laplacian, pooling by edge collapse, its cache, and Chebyshev convolution on it."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from head_models import ball_head
from scipy.sparse import coo_matrix, csr_matrix

from backend.head import chebyshev as chebyshev_module
from backend.head import mesh_graph
from backend.head.chebyshev import ChebyshevConvolution, chebyshev
from backend.head.closest_point import closest_barycentric
from backend.head.decimation import decimate, project
from backend.head.formats import load_head
from backend.head.mesh_graph import MeshHierarchy, build_levels, mesh_hierarchy, rescaled_laplacian, sample
from backend.head.model import HeadModel
from backend.head.sparse import SparseOperator
from backend.head.topology import connected_parts, mesh_edges


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EFFIGY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def flame(shared_flame: Path) -> HeadModel:
    return load_head(shared_flame)


@pytest.fixture(scope="module")
def flame_levels(flame: HeadModel) -> tuple[mesh_graph.Levels, float]:
    start = time.process_time()
    levels = build_levels(flame.template, flame.faces)
    return levels, time.process_time() - start


def two_balls() -> tuple[np.ndarray, np.ndarray]:
    """A ball and a tiny one of 20 vertices inside it, which all collapses would prefer."""
    large, small = ball_head(), ball_head(rings=4, sectors=5)
    return (
        np.concatenate((large.template, 0.1 * small.template)),
        np.concatenate((large.faces, small.faces + len(large.template))),
    )


def test_rescaled_laplacian_is_2_l_minus_i_with_spectrum_in_minus_one_to_one() -> None:
    model = ball_head(rings=6, sectors=7)
    count = len(model.template)
    edges = mesh_edges(model.faces)[0]
    adjacency = np.zeros((count, count))
    for a, b in edges:
        adjacency[a, b] = adjacency[b, a] = 1
    degree = adjacency.sum(1)
    normalised = np.eye(count) - adjacency / np.sqrt(np.outer(degree, degree))
    rescaled = rescaled_laplacian(edges, count).toarray()
    np.testing.assert_allclose(rescaled, 2 * normalised / 2 - np.eye(count), atol=1e-6)
    assert np.abs(np.linalg.eigvalsh(rescaled)).max() <= 1 + 1e-6


def test_a_vertex_without_edges_stays_by_itself() -> None:
    matrix = rescaled_laplacian(np.array([[0, 1]]), 3).toarray()
    np.testing.assert_allclose(matrix, [[0, -1, 0], [-1, 0, 0], [0, 0, 0]])


def test_flame_pools_to_1256_and_157_in_seconds_and_stays_near_its_surface(flame: HeadModel, flame_levels) -> None:
    levels, seconds = flame_levels
    assert [len(vertices) for vertices in levels.vertices] == [5023, 1256, 157]
    assert seconds < 10
    parts = connected_parts(mesh_edges(flame.faces)[0], 5023)
    for step, (indices, weights) in enumerate(levels.ups):
        fine, coarse = levels.vertices[step], levels.vertices[step + 1]
        assert set(np.unique(parts[coarse])) == set(np.unique(parts)), "skin and both eyeballs keep vertices"
        assert (parts[coarse[indices]] == parts[fine][:, None]).all(), "nothing is interpolated across parts"
        rebuilt = (flame.template[coarse][indices] * weights[..., None]).sum(1)
        distance = np.linalg.norm(rebuilt - flame.template[fine], axis=1)
        assert distance.mean() < (0.0006, 0.003)[step] and distance.max() < (0.004, 0.016)[step]


def test_open_head_keeps_every_part_on_every_level() -> None:
    model = load_head()
    levels = build_levels(model.template, model.faces)
    parts = connected_parts(mesh_edges(model.faces)[0], len(model.template))
    for vertices in levels.vertices:
        kept = np.bincount(parts[vertices], minlength=parts.max() + 1)
        assert (kept >= np.minimum(np.bincount(parts), 4)).all()
    assert [len(vertices) for vertices in levels.vertices[1:]] == [
        math.ceil(len(parts) / 4),
        math.ceil(math.ceil(len(parts) / 4) / 8),
    ]


def test_decimation_keeps_a_surface_without_folds_and_the_open_edge() -> None:
    model = ball_head()
    target = len(model.template) // 4
    kept, faces, merged = decimate(model.template, model.faces, target)
    assert len(kept) == target and (kept[merged[kept]] == kept).all() and (np.diff(kept) > 0).all()
    assert mesh_edges(faces)[1].max() == 2, "no edge with three triangles"
    corners = model.template[kept][faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((normals * corners.mean(1)).sum(1) > 0).mean() > 0.99
    # The cut of the neck stays where it is: some vertices of the lowest ring survive, spread around it.
    ring = model.template[np.intersect1d(kept, model.regions["boundary"])]
    assert len(ring) >= 3


def test_the_same_mesh_gives_the_same_vertices_on_every_machine_and_in_every_version() -> None:
    """Avatar files rely on it. The mesh is a rough square of integers, so that it is itself the same everywhere."""
    side, state, heights = 40, 1, []
    for _ in range(side * side):
        state = (1103515245 * state + 12345) % 2**31
        heights.append(state >> 25)
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    vertices = np.stack((16 * x.ravel(), 16 * y.ravel(), heights), 1) / 4096
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    faces = np.concatenate(
        [np.stack((corner, corner + 1, corner + side), 1), np.stack((corner + 1, corner + side + 1, corner + side), 1)]
    )
    levels = build_levels(vertices.astype(np.float32), faces)
    digests = [hashlib.sha256(kept.astype("<i4").tobytes()).hexdigest()[:12] for kept in levels.vertices[1:]]
    assert digests == ["7101b7950f32", "c3d443d64b17"]


def test_a_small_part_keeps_its_floor_however_strongly_the_mesh_is_thinned() -> None:
    vertices, faces = two_balls()
    parts = connected_parts(mesh_edges(faces)[0], len(vertices))
    kept, coarse, merged = decimate(vertices, faces, 12)
    assert len(kept) == 12 and (np.bincount(parts[kept]) >= 4).all()
    indices, weights = project(vertices, kept, coarse, merged)
    assert (parts[kept[indices]] == parts[:, None]).all()
    np.testing.assert_allclose(weights.sum(1), 1)


def test_nearest_point_on_a_triangle_equals_a_search_over_the_triangle() -> None:
    random = np.random.default_rng(0)
    points, corners = random.normal(size=(60, 3)), random.normal(size=(60, 3, 3))
    corners[-1, 2] = corners[-1, 1]  # degenerate
    found = closest_barycentric(points, corners)
    assert (found >= -1e-12).all() and np.allclose(found.sum(1), 1)
    a, b = (grid.ravel() for grid in np.meshgrid(np.linspace(0, 1, 81), np.linspace(0, 1, 81)))
    inside = a + b <= 1
    grid = np.stack((1 - a - b, a, b), 1)[inside]
    searched = np.linalg.norm(np.einsum("gk,pkc->pgc", grid, corners) - points[:, None], axis=2).min(1)
    exact = np.linalg.norm((found[..., None] * corners).sum(1) - points, axis=1)
    assert (exact <= searched + 1e-9).all() and (searched - exact).max() < 0.05


def test_down_selects_and_up_gives_back_what_was_selected(flame: HeadModel, flame_levels) -> None:
    hierarchy = MeshHierarchy(flame_levels[0])
    features = torch.randn(2, 5023, 3, generator=torch.Generator().manual_seed(1))
    for step, (down, up) in enumerate(zip(hierarchy.downs, hierarchy.ups, strict=True)):
        coarse = sample(down, features)
        kept = np.searchsorted(hierarchy.vertices[step], hierarchy.vertices[step + 1])
        torch.testing.assert_close(coarse, features[:, kept])
        torch.testing.assert_close(sample(down, sample(up, coarse)), coarse)
        ones = torch.ones(1, len(kept), 1)
        torch.testing.assert_close(sample(up, ones), torch.ones(1, up.shape[0], 1))
        features = coarse


def test_sampling_has_the_gradient_of_its_matrix() -> None:
    random = np.random.default_rng(2)
    matrix = coo_matrix((random.normal(size=12), (random.integers(0, 7, 12), random.integers(0, 5, 12))), shape=(7, 5))
    operator = SparseOperator(matrix)
    features = torch.randn(3, 5, 2, requires_grad=True)
    weights = torch.randn(3, 7, 2)
    (sample(operator, features) * weights).sum().backward()
    dense = torch.from_numpy(matrix.toarray()).float()
    torch.testing.assert_close(features.grad, dense.T @ weights)
    torch.testing.assert_close(sample(operator, features), dense @ features)


def test_hierarchy_is_cached_by_fingerprint_and_a_damaged_cache_is_made_anew(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ball_head()
    first = mesh_hierarchy(model)
    (path,) = own_cache.rglob("*.npz")
    assert model.fingerprint in path.name
    with monkeypatch.context() as patch:
        patch.setattr(mesh_graph, "build_levels", lambda *_: pytest.fail("decimated although cached"))
        again = mesh_hierarchy(model)
    assert again.sizes == first.sizes
    for one, other in zip(first.vertices, again.vertices, strict=True):
        np.testing.assert_array_equal(one, other)
    path.write_bytes(b"damaged")
    assert mesh_hierarchy(model).sizes == first.sizes
    assert mesh_graph._read(path) is not None


def test_an_unwritable_cache_does_not_stop_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EFFIGY_CACHE", str(tmp_path / "file"))
    assert mesh_hierarchy(ball_head()).sizes[0] == len(ball_head().template)


def test_hierarchy_stays_out_of_checkpoints_and_lists_each_edge_once() -> None:
    hierarchy = mesh_hierarchy(ball_head())
    assert not hierarchy.state_dict()
    edges = hierarchy.edges.numpy()
    assert (edges[:, 0] < edges[:, 1]).all() and len(np.unique(edges, axis=0)) == len(edges)


def small_graph() -> SparseOperator:
    model = ball_head(rings=4, sectors=6)
    return SparseOperator(rescaled_laplacian(mesh_edges(model.faces)[0], len(model.template)))


def dense_chebyshev(features: torch.Tensor, laplacian: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """T_k from the eigenvalues, cos(k arccos(x)): no recurrence at all."""
    values, vectors = torch.linalg.eigh(laplacian)
    total = 0
    for k, theta in enumerate(weight):
        polynomial = torch.cos(k * torch.arccos(values.clamp(-1, 1)))
        total = total + vectors @ torch.diag(polynomial) @ vectors.T @ features @ theta
    return total


@pytest.mark.parametrize("order", [1, 2, 3, 6])
@pytest.mark.parametrize("inputs, outputs", [(2, 5), (5, 2)])
def test_both_forms_equal_the_dense_polynomials(order: int, inputs: int, outputs: int) -> None:
    graph = small_graph()
    random = torch.Generator().manual_seed(order)
    features = torch.randn(3, graph.shape[0], inputs, generator=random)
    weight = torch.randn(order, inputs, outputs, generator=random)
    expected = dense_chebyshev(features.double(), graph.matrix.to_dense().double(), weight.double()).float()
    for form in (chebyshev_module._Expanded, chebyshev_module._Clenshaw):
        torch.testing.assert_close(form.apply(features, weight, graph), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(chebyshev(features, graph, weight), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("form", [chebyshev_module._Expanded, chebyshev_module._Clenshaw])
@pytest.mark.parametrize("order", [1, 2, 6])
def test_gradients_of_both_forms(form, order: int) -> None:
    graph = small_graph().double()
    features = torch.randn(2, graph.shape[0], 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(order, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: form.apply(x, w, graph), (features, weight), fast_mode=True)
    # Features that need no gradient, as at the input of a network, leave the weights' as it was.
    plain = features.detach()
    form.apply(features, weight, graph).square().sum().backward()
    expected, weight.grad = weight.grad, None
    form.apply(plain, weight, graph).square().sum().backward()
    torch.testing.assert_close(weight.grad, expected)


def test_the_narrower_side_goes_through_the_laplacian(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small_graph()
    used = []
    for name in ("_Expanded", "_Clenshaw"):
        form = getattr(chebyshev_module, name)
        monkeypatch.setattr(
            chebyshev_module,
            name,
            type(
                name,
                (),
                {"apply": staticmethod(lambda *a, form=form, name=name: (used.append(name), form.apply(*a))[1])},
            ),
        )
    ChebyshevConvolution(9, 4)(torch.randn(1, graph.shape[0], 9), graph)
    ChebyshevConvolution(4, 9)(torch.randn(1, graph.shape[0], 4), graph)
    assert used == ["_Clenshaw", "_Expanded"]


def test_a_convolution_starts_with_glorot_s_uniform_weights() -> None:
    torch.manual_seed(0)
    weight = ChebyshevConvolution(20, 30, order=6).weight.detach()
    bound = (6 / (6 * 20 + 30)) ** 0.5
    assert 0.98 * bound < weight.max() <= bound and -bound <= weight.min() < -0.98 * bound
    assert abs(weight.mean()) < 0.02 * bound and weight.std() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_convolution_reaches_order_minus_one_edges_and_no_further() -> None:
    graph = small_graph()
    layer = ChebyshevConvolution(1, 1, order=3)
    impulse = torch.zeros(1, graph.shape[0], 1)
    impulse[0, 0] = 1
    with torch.no_grad():
        reached = (layer(impulse, graph) - layer.bias)[0, :, 0].abs() > 1e-7
    hops = csr_matrix(graph.matrix.to_dense().numpy() != 0).astype(int) + csr_matrix(np.eye(graph.shape[0], dtype=int))
    within = (hops @ hops).toarray()[0] > 0
    assert not (reached.numpy() & ~within).any() and reached.sum() > 7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_hierarchy_and_convolution_agree_on_cuda() -> None:
    hierarchy = mesh_hierarchy(ball_head())
    layer, features = ChebyshevConvolution(8, 3), torch.randn(2, hierarchy.sizes[0], 8)
    expected = sample(hierarchy.downs[0], layer(features, hierarchy.laplacians[0]))
    expected.square().sum().backward()
    gradient, layer.weight.grad = layer.weight.grad.clone(), None
    hierarchy, layer = hierarchy.cuda(), layer.cuda()
    found = sample(hierarchy.downs[0], layer(features.cuda(), hierarchy.laplacians[0]))
    found.square().sum().backward()
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer.weight.grad.cpu(), gradient, atol=1e-2, rtol=1e-3)


def test_vertices_of_a_plane_are_interpolated_exactly_from_the_coarse_mesh() -> None:
    side = 7
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(side), np.arange(side)))
    vertices = np.stack((x, y, 0.5 * x), 1).astype(np.float32)
    corner = np.array([row * side + column for row in range(side - 1) for column in range(side - 1)])
    faces = np.concatenate(
        [np.stack((corner, corner + 1, corner + side), 1), np.stack((corner + 1, corner + side + 1, corner + side), 1)]
    )
    kept, coarse, merged = decimate(vertices, faces, 16)
    indices, weights = project(vertices, kept, coarse, merged)
    back = (vertices[kept][indices] * weights[..., None]).sum(1)
    assert len(kept) == 16 and np.abs(back - vertices).max() < 0.3
    assert np.median(np.abs(back - vertices).max(1)) < 1e-6
