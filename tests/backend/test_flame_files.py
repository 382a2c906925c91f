"""FLAME files in the shapes in which projects keep them: read as what they are, asked about, or named."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from head_models import ball_head

from backend.errors import EffigyError
from backend.head import formats
from backend.head.formats import has_expressions, load_head, save_head
from backend.head.model import HeadModel
from backend.head.registry import find_head, known_files, load_users_head, remember_head
from backend.progress import Progress

BALL = ball_head()
COUNT = len(BALL.template)
RANDOM = np.random.default_rng(3)
DIRECTIONS = RANDOM.normal(0, 0.001, (COUNT, 3, 400)).astype(np.float32)
POSE = RANDOM.normal(0, 0.001, (COUNT, 3, 36)).astype(np.float32)
KINTREE = np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]])


@pytest.fixture(autouse=True)
def ball_as_open_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "open_head.npz"
    save_head(BALL, path)
    monkeypatch.setattr(formats, "asset_path", lambda name: path)
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))


def flame(**changed: Any) -> dict[str, Any]:
    """FLAME's arrays on the ball; a value of None leaves the array out."""
    arrays = {
        "v_template": BALL.template,
        "f": BALL.faces,
        "shapedirs": DIRECTIONS,
        "posedirs": POSE,
        "J_regressor": BALL.joint_regressor,
        "weights": BALL.skinning,
        "kintree_table": KINTREE,
    } | changed
    return {name: array for name, array in arrays.items() if array is not None}


def opened(tmp_path: Path, arrays: dict[str, Any], **options: Any) -> HeadModel:
    """The model of an archive and of a pickle of these arrays, which are the same."""
    np.savez(tmp_path / "flame.npz", **arrays)
    (tmp_path / "flame.pkl").write_bytes(pickle.dumps(arrays, 2))
    one, other = (load_head(tmp_path / f"flame.{kind}", **options) for kind in ("npz", "pkl"))
    assert one.fingerprint == other.fingerprint
    return one


def is_split(model: HeadModel, identities: np.ndarray, expressions: np.ndarray) -> bool:
    return np.array_equal(model.shape_basis, identities) and np.array_equal(model.expression_basis, expressions)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_flames_own_400_components_are_300_and_100(tmp_path: Path, kind: type) -> None:
    rounded = DIRECTIONS.astype(kind).astype(np.float32)
    assert is_split(opened(tmp_path, flame(shapedirs=DIRECTIONS.astype(kind))), rounded[..., :300], rounded[..., 300:])


@pytest.mark.parametrize("name", ["exprdirs", "expressedirs", "expr_dirs", "keyed_exprdirs"])
@pytest.mark.parametrize(("identities", "expressions"), [(100, 50), (10, 10), (300, 100), (50, 100)])
def test_expressions_of_their_own_are_expressions(tmp_path: Path, name: str, identities: int, expressions: int) -> None:
    one, other = DIRECTIONS[..., :identities], DIRECTIONS[..., 300 : 300 + expressions]
    assert is_split(opened(tmp_path, flame(shapedirs=one) | {name: other}), one, other)


def test_expressions_that_are_kept_twice_are_kept_once(tmp_path: Path) -> None:
    whole, tail = DIRECTIONS[..., :150], DIRECTIONS[..., 100:150]
    assert is_split(opened(tmp_path, flame(shapedirs=whole, exprdirs=tail)), whole[..., :100], tail)
    # The first 50 of FLAME's 100 expressions beside all of its 400 components.
    first = DIRECTIONS[..., 300:350]
    assert is_split(opened(tmp_path, flame(exprdirs=first)), DIRECTIONS[..., :300], first)


@pytest.mark.parametrize(
    ("total", "expressions"), [(150, 50), (20, 10), (300, 100), (350, 50), (310, 10), (300, 0), (60, 60), (500, 200)]
)
def test_other_numbers_of_components_are_asked_about_and_not_guessed(
    tmp_path: Path, total: int, expressions: int
) -> None:
    directions = np.concatenate((DIRECTIONS, DIRECTIONS), 2)[..., :total]
    for ending in ("npz", "pkl"):
        with pytest.raises(EffigyError) as asked:
            opened(tmp_path, flame(shapedirs=directions))
        said = str(asked.value)
        assert f"flame.npz has {total} components of shape, where FLAME has 300 of identity and 100" in said, ending
        assert "--expression-count N" in said and "the field Expressions of Use My FLAME File" in said
    model = opened(tmp_path, flame(shapedirs=directions), expression_count=expressions)
    assert is_split(model, directions[..., : total - expressions], directions[..., total - expressions :])
    assert has_expressions(model) == (expressions > 0)


def test_an_impossible_number_of_expressions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EffigyError, match=r"has 150 components, of which 151 cannot be expressions"):
        opened(tmp_path, flame(shapedirs=DIRECTIONS[..., :150]), expression_count=151)
    with pytest.raises(EffigyError, match=r"its exprdirs hold 50 expressions, and not 40"):
        opened(tmp_path, flame(shapedirs=DIRECTIONS[..., :100], exprdirs=POSE[..., :50]) | {
            "exprdirs": np.repeat(POSE, 2, 2)[..., :50]}, expression_count=40)  # fmt: skip


def test_what_the_user_has_said_of_a_file_holds_from_then_on(tmp_path: Path) -> None:
    path, other = tmp_path / "flame.npz", tmp_path / "other.npz"
    for each in (path, other):
        np.savez(each, **flame(shapedirs=DIRECTIONS[..., :150]))
    model, count = load_users_head(path, expression_count=50)
    remember_head(model, path, count)
    again, count = load_users_head(path)
    assert again.fingerprint == model.fingerprint and count == 50
    assert find_head("flame", model.fingerprint, "The track").expression_basis.shape[2] == 50
    assert known_files() == [path]
    with pytest.raises(EffigyError, match="--expression-count"):
        load_users_head(other)
    # The last word counts.
    changed, count = load_users_head(path, expression_count=20)
    remember_head(changed, path, count)
    assert load_users_head(path)[1] == 20
    assert load_users_head(None)[0].fingerprint == BALL.fingerprint


def test_avatars_of_heads_that_were_split_at_300_by_an_earlier_version_are_found(tmp_path: Path) -> None:
    path = tmp_path / "flame.npz"
    np.savez(path, **flame(shapedirs=DIRECTIONS[..., :310]))
    before = load_head(path, is_known=True)
    assert before.shape_basis.shape[2] == 300 and before.expression_basis.shape[2] == 10
    remember_head(before, path)
    assert find_head("flame", before.fingerprint, "The avatar").fingerprint == before.fingerprint


ARRANGED: dict[str, Callable[[], dict[str, Any]]] = {
    "flattened directions": lambda: flame(shapedirs=DIRECTIONS.reshape(-1, 400), posedirs=POSE.reshape(-1, 36)),
    "transposed directions": lambda: flame(shapedirs=DIRECTIONS.reshape(-1, 400).T, posedirs=POSE.reshape(-1, 36).T),
    "buffers of a module": lambda: flame(f=None, weights=None, faces_tensor=BALL.faces.astype(np.int64),
                                         lbs_weights=BALL.skinning, posedirs=POSE.reshape(-1, 36).T),
    "faces": lambda: flame(f=None, faces=BALL.faces.astype(np.uint32)),
    "a regressor by vertex": lambda: flame(J_regressor=np.ascontiguousarray(BALL.joint_regressor.T)),
    "no tree": lambda: flame(kintree_table=None),
    "a tree whose root has no number": lambda: flame(kintree_table=np.array([np.nan, 0, 1, 1, 1])),
    "a tree of its parents alone": lambda: flame(kintree_table=np.array([-1.0, 0, 1, 1, 1])),
    "doubles": lambda: flame(v_template=BALL.template.astype(float), weights=BALL.skinning.astype(float)),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRANGED)
def test_the_same_arrays_in_another_arrangement_are_the_same_head(tmp_path: Path, name: str) -> None:
    assert opened(tmp_path, ARRANGED[name]()).fingerprint == opened(tmp_path, flame()).fingerprint


def test_a_head_without_pose_correctives_has_none(tmp_path: Path) -> None:
    assert not opened(tmp_path, flame(posedirs=None)).pose_basis.any()


def body(vertices: int, joints: int, **more: Any) -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        "v_template": random.normal(0, 0.5, (vertices, 3)).astype(np.float32),
        "f": random.integers(0, vertices, (vertices, 3)),
        "shapedirs": np.zeros((vertices, 3, 20), np.float32),
        "posedirs": np.zeros((vertices, 3, 9), np.float32),
        "J_regressor": np.zeros((joints, vertices), np.float32),
        "weights": np.full((vertices, joints), 1 / joints, np.float32),
        "kintree_table": np.stack((np.arange(joints) - 1, np.arange(joints))),
    } | more


BODIES = {
    "SMPLX_NEUTRAL": (lambda: body(10475, 55, hands_meanl=np.eye(9), lmk_faces_idx=np.eye(9)), "a SMPL-X body model"),
    "SMPLX without its names": (lambda: body(10475, 55), "a SMPL-X body model"),
    "SMPL": (lambda: body(6890, 24), "a SMPL or SMPL-H body model"),
    "SMPLH": (lambda: body(6890, 52, hands_meanl=np.eye(9), hands_componentsl=np.eye(9)), "a SMPL or SMPL-H body"),
    "STAR": (lambda: body(6890, 24, posedirs=np.zeros((6890, 3, 93), np.float32)), "a STAR body model"),
    "MANO": (lambda: body(778, 16, hands_components=np.eye(45), hands_mean=np.zeros(45)), "a MANO hand model"),
    "MANO without its names": (lambda: body(778, 16), "a MANO hand model"),
    "a quadruped": (lambda: body(3889, 35), "it has 35 joints, where FLAME has 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_body_or_a_hand_is_called_so_and_not_taken_for_a_head(tmp_path: Path, name: str) -> None:
    make, called = BODIES[name]
    arrays = make()
    np.savez(tmp_path / "model.npz", **arrays)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(arrays, 2))
    for ending in ("npz", "pkl"):
        with pytest.raises(EffigyError) as refused:
            load_head(tmp_path / f"model.{ending}")
        said = str(refused.value)
        assert called in said and ("choose a FLAME model" in said or "joints" in said), said


def test_a_pickle_with_objects_is_named_by_its_keys_too(tmp_path: Path) -> None:
    """SMPL-X keeps the names of its joints as an array of a dictionary, which no head has."""
    names = np.empty((), object)
    names[()] = {"Pelvis": 0}
    content = body(200, 55, hands_meanl=np.zeros(45), joint2num=names, lmk_bary_coords=np.zeros((51, 3)))
    (tmp_path / "SMPLX_MALE.pkl").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(EffigyError, match="is a SMPL-X body model, where a head model is needed"):
        load_head(tmp_path / "SMPLX_MALE.pkl")
    np.savez(tmp_path / "SMPLX_MALE.npz", **content)
    with pytest.raises(EffigyError, match="is a SMPL-X body model, where a head model is needed"):
        load_head(tmp_path / "SMPLX_MALE.npz")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".h5", ".mat", ".npy", ""])
def test_another_suffix_says_what_is_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"flame{suffix}").write_bytes(b"\x01\x02\x03\x04" * 20)
    with pytest.raises(EffigyError, match=r"is not a head model .*choose a FLAME model \(generic_model\.pkl"):
        load_head(tmp_path / f"flame{suffix}")


def test_other_arrays_are_told_by_their_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", colour=np.zeros(3), weight=np.zeros(3))
    with pytest.raises(EffigyError, match=r"is not a head model \(it holds colour, weight\): choose a FLAME model"):
        load_head(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("unit", "size"), [("millimetres", 1000.0), ("centimetres", 100.0), ("decimetres", 10.0), (None, 1.0), (None, 0.1)]
)
def test_a_head_in_another_unit_is_read_in_metres_and_told(tmp_path: Path, unit: str | None, size: float) -> None:
    said: list[str] = []

    class Listener(Progress):
        def message(self, text: str) -> None:
            said.append(text)

    # The ball is as large as a head, 0.3 m.
    head = BALL.template * np.float32(0.3 / np.ptp(BALL.template, axis=0).max())
    scaled = flame(v_template=size * head, shapedirs=size * DIRECTIONS, posedirs=size * POSE)
    model = opened(tmp_path, scaled, progress=Listener())
    factor = 1.0 if unit else size
    np.testing.assert_allclose(model.template, factor * head, rtol=1e-5)
    np.testing.assert_allclose(model.shape_basis, factor * DIRECTIONS[..., :300], rtol=1e-5)
    np.testing.assert_allclose(model.expression_basis, factor * DIRECTIONS[..., 300:], rtol=1e-5)
    np.testing.assert_allclose(model.pose_basis, factor * POSE, rtol=1e-5)
    assert [text for text in said if "metres" in text] == (
        [f"flame.{kind} is in {unit}: it is read in metres." for kind in ("npz", "pkl")] if unit else []
    )
    # It is found again, also by what an earlier version made of it.
    path = tmp_path / "flame.npz"
    earlier = [] if size > 500 else [load_head(path, is_known=True, in_metres=True)]
    for used in (model, *earlier):
        remember_head(used, path)
        assert find_head(used.name, used.fingerprint, "x.effigy").fingerprint == used.fingerprint
