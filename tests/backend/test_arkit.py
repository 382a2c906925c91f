"""ARKit's names on a head that does not have them: the right expressions, and another's performance by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from backend.correspondence import arkit
from backend.correspondence.arkit import ARKIT_NAMES, ArkitMap, arkit_map, shapes_of, transferred_shapes
from backend.footage.detector import SCORE_NAMES
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.jaw import JAW_SHAPES, jaw_rotations_of_shapes
from backend.head.model import JAW, HeadModel
from backend.retargeting.retarget import retarget
from backend.service.parameters import Parameters
from backend.service.rig_data import head_rig
from backend.tracking.terms.priors import priors_for

JAW_ROWS = [ARKIT_NAMES.index(name) for name in JAW_SHAPES]
OTHERS = [row for row in range(len(ARKIT_NAMES)) if row not in JAW_ROWS]


@pytest.fixture(scope="module", autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory):
    """Maps are derived here, and not found in the user's folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    patch.undo()


def in_disguise(model: HeadModel, person: np.ndarray) -> tuple[HeadModel, np.ndarray]:
    """The same head as another person, larger, its vertices in another order, with mixtures of its shapes as nameless
    components; and the mixture (52, 52).
    """
    random = np.random.default_rng(5)
    order = random.permutation(len(model.template))
    back = np.argsort(order)
    mixture = np.linalg.qr(random.normal(size=(len(OTHERS), len(OTHERS))))[0]
    named = model.expression_basis[..., [model.expression_names.index(ARKIT_NAMES[row]) for row in OTHERS]]
    template = (1.08 * (model.template + model.shape_basis @ person)).astype(np.float32)
    return replace(
        model,
        name="stranger",
        template=template[order],
        shape_basis=model.shape_basis[order],
        expression_basis=(1.08 * named @ mixture)[order].astype(np.float32),
        pose_basis=model.pose_basis[order],
        joint_regressor=model.joint_regressor[:, order],
        skinning=model.skinning[order],
        faces=back[model.faces].astype(np.int32),
        expression_names=tuple(f"expression_{index:03d}" for index in range(len(OTHERS))),
        expression_range=(-10.0, 10.0),
        regions={name: np.sort(back[rows]).astype(np.int32) for name, rows in model.regions.items()},
    ), mixture


@pytest.fixture(scope="module")
def stranger() -> tuple[HeadModel, np.ndarray]:
    model = load_head()
    return in_disguise(model, np.random.default_rng(2).normal(0, 0.6, model.shape_basis.shape[2]).astype(np.float32))


def test_the_shapes_are_found_again_among_nameless_mixtures(stranger: tuple[HeadModel, np.ndarray]) -> None:
    model, mixture = stranger
    mapping = arkit_map(model)
    truth = np.zeros((len(ARKIT_NAMES), len(OTHERS)))
    truth[OTHERS] = mixture
    face = model.regions["face"]
    named = np.einsum("nce,ke->knc", model.expression_basis[face], truth)
    found = np.einsum("nce,ke->knc", model.expression_basis[face], mapping.expression)
    size, error = (np.sqrt((part**2).sum(2).mean(1))[OTHERS] for part in (named, found - named))
    visible = size > 2e-4
    assert visible.sum() > 40
    assert np.median(error[visible] / size[visible]) < 0.15
    opened = jaw_rotations_of_shapes(load_head())["jawOpen"]
    assert np.linalg.norm(mapping.jaw[ARKIT_NAMES.index("jawOpen")] - opened) < 0.15 * np.linalg.norm(opened)
    assert not mapping.expression[JAW_ROWS].any() and not mapping.jaw[OTHERS].any()


def test_a_nameless_head_starts_from_the_scores_too(stranger: tuple[HeadModel, np.ndarray]) -> None:
    model, mixture = stranger
    scores = np.zeros((2, len(SCORE_NAMES)), np.float32)
    scores[1, SCORE_NAMES.index("mouthSmileLeft")] = 0.8
    table = priors_for(model, scores, SCORE_NAMES, 30.0)
    face = model.regions["face"]
    truth = np.zeros((len(ARKIT_NAMES), len(OTHERS)))
    truth[OTHERS] = mixture
    named = 0.8 * model.expression_basis[face] @ truth[ARKIT_NAMES.index("mouthSmileLeft")]
    said = model.expression_basis[face] @ table.mean[1, : len(OTHERS)]
    assert np.linalg.norm(said - named) < 0.25 * np.linalg.norm(named)
    assert not table.mean[0].any()


def test_channels_are_read_back_from_what_they_did(stranger: tuple[HeadModel, np.ndarray]) -> None:
    mapping = arkit_map(stranger[0])
    channels = np.zeros((3, len(ARKIT_NAMES)))
    for row, names in enumerate(
        (("mouthSmileLeft", "mouthSmileRight"), ("eyeBlinkLeft", "browInnerUp"), ("jawOpen", "jawLeft"))
    ):
        channels[row, [ARKIT_NAMES.index(name) for name in names]] = 0.7
    back = mapping.read(*mapping.applied(channels))
    chosen = channels > 0
    np.testing.assert_allclose(back[chosen], 0.7, atol=0.2)
    assert np.abs(back[~chosen]).max() < 0.3


def test_a_map_is_derived_once(stranger: tuple[HeadModel, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    first = arkit_map(stranger[0])
    monkeypatch.setattr("backend.correspondence.arkit.transferred_shapes", None)
    assert np.array_equal(arkit_map(stranger[0]).expression, first.expression)


def test_anothers_performance_moves_the_same_parts_of_the_face(stranger: tuple[HeadModel, np.ndarray]) -> None:
    from test_retarget import perform

    open_head, (model, _) = load_head(), stranger
    performance = perform(open_head, {}, 1)
    theirs = replace(
        perform(open_head, {}, 2),
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        expression=np.zeros((90, len(OTHERS)), np.float32),
    )
    made = retarget(performance, open_head, theirs, model)
    head = Head(model)
    posed = head(
        torch.zeros(1, head.identity_size),
        torch.as_tensor(made.expression[[0, 40, 61]]),
        torch.as_tensor(made.rotations[[0, 40, 61]]) * torch.tensor([0, 0, 1, 0, 0])[:, None],
    ).vertices.numpy()
    smile, blink = np.linalg.norm(posed[1] - posed[0], axis=1), np.linalg.norm(posed[2] - posed[0], axis=1)
    left, right = model.template[:, 0] > 0, model.template[:, 0] < -0.03
    lids, lips = (np.isin(np.arange(len(left)), model.regions[name]) for name in ("lids", "lips"))
    assert blink[lids & left].max() > 0.006 and blink[lids & right].max() < 0.002 and blink[lips].max() < 0.002
    assert smile[lips & left].max() > 0.006
    back = retarget(made, model, performance, open_head)
    names = open_head.expression_names
    assert (
        back.expression[40, names.index("mouthSmileLeft")] > 0.4
        and back.expression[61, names.index("eyeBlinkLeft")] > 0.7
    )


def test_a_rig_of_such_a_head_is_told_the_channels_beside_its_own(
    stranger: tuple[HeadModel, np.ndarray], tmp_path: Path
) -> None:
    from backend.head.formats import save_head

    model = stranger[0]
    save_head(model, tmp_path / "stranger.npz")
    rig = head_rig(Parameters({"head": {"file": str(tmp_path / "stranger.npz")}}, "head.rig"))
    assert rig.arkit_names == ARKIT_NAMES and rig.arkit_deltas.shape == (52, len(model.template), 3)
    mapping = arkit_map(model)
    # The jaw's channel at 1 is its joint, turned.
    head, rotations = Head(model), torch.zeros(1, 5, 3)
    rotations[0, JAW] = torch.as_tensor(mapping.jaw[ARKIT_NAMES.index("jawOpen")])
    bare = replace(model, pose_basis=np.zeros_like(model.pose_basis))
    posed = (
        Head(bare)(torch.zeros(1, head.identity_size), torch.zeros(1, head.expression_size), rotations)
        .vertices[0]
        .numpy()
    )
    np.testing.assert_allclose(rig.arkit_deltas[ARKIT_NAMES.index("jawOpen")], posed - model.template, atol=1e-4)
    assert head_rig(Parameters({}, "head.rig")).arkit_names == ()


def test_flames_surface_takes_the_shapes_and_its_lids_close(shared_flame: Path) -> None:
    model = load_head(shared_flame)
    open_head = load_head()
    deltas, weights = transferred_shapes(model)
    assert (weights > 0).sum() > 2500
    for name in ("eyeBlinkLeft", "mouthSmileLeft", "browInnerUp", "noseSneerRight", "mouthPucker"):
        column = open_head.expression_names.index(name)
        moved = [
            np.linalg.norm(part, axis=1)
            for part in (deltas[..., ARKIT_NAMES.index(name)], open_head.expression_basis[..., column])
        ]
        assert 0.6 < moved[0].max() / moved[1].max() < 1.6, name
    # Lids that are apart at rest touch: vertices of the upper edge come to those of the lower.
    lids = np.intersect1d(model.regions["lids"], np.flatnonzero(weights > 0))
    closed = model.template + deltas[..., ARKIT_NAMES.index("eyeBlinkLeft")]
    moving = lids[np.linalg.norm(deltas[lids, :, ARKIT_NAMES.index("eyeBlinkLeft")], axis=1) > 0.006]
    still = lids[
        (np.linalg.norm(deltas[lids, :, ARKIT_NAMES.index("eyeBlinkLeft")], axis=1) < 0.003)
        & (model.template[lids, 0] > 0)
    ]
    gaps = [KDTree(points[still]).query(points[moving])[0] for points in (model.template, closed)]
    assert np.median(gaps[1]) < 0.5 * np.median(gaps[0]) and np.median(gaps[1]) < 0.0035


def test_flame_components_made_of_the_shapes_get_them_back(shared_flame: Path) -> None:
    """FLAME's own expressions are not to be had here: 40 rotated principal components of the transferred shapes stand
    in.
    """
    model, open_head = load_head(shared_flame), load_head()
    near = KDTree(open_head.template - open_head.template.mean(0)).query(model.template - model.template.mean(0))[1]
    skinning = open_head.skinning[near]
    deltas, _ = transferred_shapes(model)
    flat = deltas[..., OTHERS].reshape(-1, len(OTHERS))
    u, sizes, _ = np.linalg.svd(flat, full_matrices=False)
    turned = (u[:, :40] * (sizes[:40] / 2)) @ np.linalg.qr(np.random.default_rng(1).normal(size=(40, 40)))[0]
    regressor = np.zeros((5, len(near)), np.float32)
    joints = open_head.joint_regressor @ open_head.template - open_head.template.mean(0) + model.template.mean(0)
    for joint, nearest in enumerate(KDTree(model.template).query(joints, 40)[1]):
        regressor[joint, nearest] = 1 / 40
    able = replace(
        model,
        expression_basis=turned.reshape(-1, 3, 40).astype(np.float32),
        skinning=skinning,
        joint_regressor=regressor,
        expression_names=tuple(f"expression_{index:03d}" for index in range(40)),
    )
    mapping = arkit_map(able)
    visible = np.array([row for row in OTHERS if mapping.size_mm[row] > 0.5])
    assert len(visible) > 40
    assert np.median(mapping.error_mm[visible] / mapping.size_mm[visible]) < 0.3
    assert np.abs(mapping.expression).max() < 10
    assert 0.2 < np.linalg.norm(mapping.jaw[ARKIT_NAMES.index("jawOpen")]) < 0.7
    assert shapes_of(able, mapping).shape == (52, len(near), 3)


def test_a_stored_map_is_read_as_it_was_written_and_only_in_its_own_version(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    shapes = ((52, 7), (52, 3), (52, 52), (52, 7), (52,), (52,))
    made = ArkitMap(*(random.normal(size=shape) for shape in shapes))
    arkit._store("a head", made)
    back = arkit._cached("a head")
    assert back is not None and all(np.array_equal(getattr(back, name), value) for name, value in vars(made).items())
    assert arkit._cached("another head") is None
    monkeypatch.setattr(arkit, "SCHEMA", arkit.SCHEMA + 1)
    arkit._read.cache_clear()
    assert arkit._cached("a head") is None
    arkit._file("a head").write_bytes(b"no archive")
    arkit._read.cache_clear()
    assert arkit._cached("a head") is None
