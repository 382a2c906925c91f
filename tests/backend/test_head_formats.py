"""Opening head models: our own files, FLAME's pickles and archives, and files that would do harm."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from head_models import ball_head

from backend.errors import EffigyError
from backend.head import formats
from backend.head.formats import has_expressions, load_head, save_head
from backend.head.forward import Head
from backend.head.model import NECK, REGION_NAMES
from backend.head.restricted_pickle import load_restricted_pickle
from backend.progress import Progress

VERTICES = len(ball_head().template)


class Messages(Progress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(autouse=True)
def ball_as_open_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions are taken over from the open head; here a ball stands for it, so that the tests need no assets."""
    path = tmp_path / "open_head.npz"
    save_head(ball_head(), path)
    monkeypatch.setattr(formats, "asset_path", lambda name: path)


def flame_arrays() -> dict[str, object]:
    """Arrays of FLAME's names, kinds and numbers of components, on the ball."""
    model = ball_head()
    random = np.random.default_rng(3)
    return {
        "v_template": model.template.astype(np.float64),
        "f": model.faces.astype(np.uint32),
        "shapedirs": random.normal(0, 0.001, (VERTICES, 3, 400)),
        "posedirs": random.normal(0, 0.001, (VERTICES, 3, 36)),
        "J_regressor": scipy.sparse.csc_matrix(model.joint_regressor.astype(np.float64)),
        "weights": model.skinning.astype(np.float64),
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote `str`, which is what FLAME's files hold."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_python2_str(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_python2_str


def write_python2_pickle(content: object, path: Path) -> None:
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(content)
    data = stream.getvalue()
    for new, old in ((b"numpy._core.", b"numpy.core."), (b"scipy.sparse._csc\n", b"scipy.sparse.csc\n")):
        data = data.replace(b"c" + new, b"c" + old)
    path.write_bytes(data)


@pytest.fixture
def chumpy(monkeypatch: pytest.MonkeyPatch) -> type:
    """A module `chumpy.ch` with a class Ch of the real one's state, there while a test writes its pickle."""
    module = types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, array: np.ndarray) -> None:
            self.__dict__ = {"x": array, "_dirty_vars": {"x"}, "_itr": None, "_depends_on_deps": {}}

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    return Ch


def assert_is_the_flame_of_the_test(path: Path) -> None:
    model, arrays = load_head(path), flame_arrays()
    np.testing.assert_array_equal(model.shape_basis, arrays["shapedirs"][..., :300].astype(np.float32))
    np.testing.assert_array_equal(model.expression_basis, arrays["shapedirs"][..., 300:].astype(np.float32))
    np.testing.assert_array_equal(model.pose_basis, arrays["posedirs"].astype(np.float32))
    np.testing.assert_array_equal(model.joint_regressor, arrays["J_regressor"].toarray().astype(np.float32))
    np.testing.assert_array_equal(model.faces, arrays["f"])
    assert model.expression_names[7] == "expression_007" and model.expression_range == (-10, 10)
    assert has_expressions(model)
    assert sorted(model.regions) == sorted(REGION_NAMES) and len(model.regions["face"])
    assert model.faces.dtype == np.int32 and model.template.dtype == np.float32


def test_our_files_come_back_as_they_were(tmp_path: Path) -> None:
    model = ball_head()
    save_head(model, tmp_path / "head.npz")
    again = load_head(tmp_path / "head.npz")
    assert again.fingerprint == model.fingerprint and again.expression_names == model.expression_names
    assert again.name == "ball" and again.expression_range == (-1.0, 1.0)
    for name in REGION_NAMES:
        np.testing.assert_array_equal(again.regions[name], model.regions[name])
    assert load_head().fingerprint == model.fingerprint


def test_half_precision_is_widened_and_weights_sum_to_one_again(tmp_path: Path) -> None:
    save_head(ball_head(), tmp_path / "head.npz")
    with np.load(tmp_path / "head.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    for key in ("shape_basis", "expression_basis", "pose_basis", "skinning", "joint_regressor"):
        arrays[key] = arrays[key].astype(np.float16)
    np.savez(tmp_path / "half.npz", **arrays)
    model = load_head(tmp_path / "half.npz")
    assert model.shape_basis.dtype == np.float32
    assert np.abs(model.skinning.sum(1) - 1).max() < 1e-6
    save_head(model, tmp_path / "again.npz")
    assert load_head(tmp_path / "again.npz").fingerprint == model.fingerprint


def test_a_newer_format_is_refused_with_a_sentence(tmp_path: Path) -> None:
    save_head(ball_head(), tmp_path / "head.npz")
    with np.load(tmp_path / "head.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    np.savez(tmp_path / "newer.npz", **arrays | {"schema": np.int64(formats.SCHEMA + 1)})
    with pytest.raises(EffigyError, match="newer Effigy"):
        load_head(tmp_path / "newer.npz")


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda a: a.update(template=a["template"] * np.nan), "not finite"),
        (lambda a: a.update(faces=a["faces"] + 1), "points outside"),
        (lambda a: a.update(skinning=a["skinning"] * 2), "do not sum to one"),
        (lambda a: a.update(region_face=np.array([5, 9999])), "points outside"),
        (lambda a: a.update(pose_basis=a["pose_basis"][..., :9]), "should be"),
        (lambda a: a.pop("uv"), "lacks uv"),
    ],
)
def test_a_spoilt_head_is_refused_with_what_is_wrong(tmp_path: Path, spoil, said: str) -> None:
    save_head(ball_head(), tmp_path / "head.npz")
    with np.load(tmp_path / "head.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    spoil(arrays)
    np.savez(tmp_path / "spoilt.npz", **arrays)
    with pytest.raises(EffigyError, match=said):
        load_head(tmp_path / "spoilt.npz")


def test_flame_2020_pickle_of_python_2_with_chumpy_and_sparse_arrays(tmp_path: Path, chumpy: type) -> None:
    arrays = flame_arrays()
    # Fortran order and big-endian bytes occur in FLAME's files and must not be taken for the usual ones.
    arrays["posedirs"] = np.asfortranarray(arrays["posedirs"])
    arrays["weights"] = arrays["weights"].astype(">f8")
    arrays["shapedirs"] = chumpy(arrays["shapedirs"])
    write_python2_pickle(arrays, tmp_path / "generic_model.pkl")
    assert b"numpy.core.multiarray" in (tmp_path / "generic_model.pkl").read_bytes()
    assert_is_the_flame_of_the_test(tmp_path / "generic_model.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_flame_2023_pickle_of_python_3(tmp_path: Path, chumpy: type, protocol: int) -> None:
    arrays = flame_arrays()
    arrays["J_regressor"] = scipy.sparse.csr_matrix(arrays["J_regressor"])
    arrays["v_template"] = chumpy(arrays["v_template"])
    (tmp_path / "flame2023.pkl").write_bytes(pickle.dumps(arrays, protocol))
    assert_is_the_flame_of_the_test(tmp_path / "flame2023.pkl")


def test_flame_archive(tmp_path: Path) -> None:
    arrays = flame_arrays()
    arrays["J_regressor"] = arrays["J_regressor"].toarray()
    np.savez(tmp_path / "flame2023_Open.npz", **arrays)
    assert_is_the_flame_of_the_test(tmp_path / "flame2023_Open.npz")


def test_flames_own_landmarks_beside_the_file_are_used(tmp_path: Path) -> None:
    arrays = flame_arrays()
    arrays["J_regressor"] = arrays["J_regressor"].toarray()
    np.savez(tmp_path / "flame.npz", **arrays)
    assert (load_head(tmp_path / "flame.npz").landmark_faces == -1).all()
    np.savez(
        tmp_path / "mediapipe_landmark_embedding.npz",
        lmk_face_idx=np.array([5, 8]),
        lmk_b_coords=np.array([[1, 0, 0], [0.5, 0.5, 0]]),
        landmark_indices=np.array([4, 33]),
    )
    model = load_head(tmp_path / "flame.npz")
    assert model.landmark_faces[33] == 8 and model.landmark_barycentric[33, 1] == 0.5
    assert (model.landmark_faces >= 0).sum() == 2


def test_an_identity_only_file_says_so_and_is_rigid_with_the_neck(tmp_path: Path) -> None:
    arrays = flame_arrays()
    np.savez(
        tmp_path / "identity.npz",
        v_template=arrays["v_template"],
        faces=arrays["f"],
        shapedirs=arrays["shapedirs"][..., :60],
    )
    messages = Messages()
    model = load_head(tmp_path / "identity.npz", messages)
    assert "identity only" in messages.texts[0] and not has_expressions(model)
    assert (model.skinning[:, NECK] == 1).all() and model.expression_basis.shape == (VERTICES, 3, 0)


def test_real_flame_topology_opens_and_poses(shared_flame: Path) -> None:
    messages = Messages()
    model = load_head(shared_flame, messages)
    assert model.template.shape == (5023, 3) and model.shape_basis.shape == (5023, 3, 60) and messages.texts
    assert (model.landmark_faces >= 0).sum() == 105
    # A whole head posed by the neck alone keeps its shape: distances between vertices stay.
    rotations = torch.zeros(1, 5, 3)
    rotations[0, NECK, 1] = 0.7
    head = Head(model)
    identity, expression = torch.randn(1, 60, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 0)
    still = head(identity, expression, torch.zeros(1, 5, 3)).vertices[0]
    turned = head(identity, expression, rotations).vertices[0]
    torch.testing.assert_close(torch.pdist(still[::50]), torch.pdist(turned[::50]), atol=1e-6, rtol=0)
    assert (still - turned).norm(dim=1).max() > 0.02
    # uv: inside the square, one triangle of uv for every triangle, and none stretched across the seam
    # but the one at the crown that the axis itself goes through.
    assert model.uv.min() >= 0 and model.uv.max() <= 1 and model.uv_faces.shape == model.faces.shape
    assert (np.ptp(model.uv[model.uv_faces][..., 0], axis=1) > 0.5).sum() <= 1


class Harm:
    """Pickles to a call of `os.system` that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"echo harm > {self.mark}",)


def test_a_pickle_that_would_run_a_program_runs_nothing_and_is_named(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / "harm.pkl"
        path.write_bytes(pickle.dumps(flame_arrays() | {"extra": Harm(mark)}, protocol))
        with pytest.raises(EffigyError, match=r"(posix|nt)\.system"):
            load_head(path)
        assert not mark.exists()
    # The same bytes do harm to a reader that trusts them, so the test can fail.
    pickle.loads(path.read_bytes())
    assert mark.exists()


@pytest.mark.parametrize(
    "program, said",
    [
        (b"cbuiltins\neval\n(S'1+1'\ntR.", r"builtins\.eval"),
        (b"c__builtin__\ngetattr\n(S'a'\nS'b'\ntR.", r"__builtin__\.getattr"),
        (b"cnumpy\nload\n(S'x'\ntR.", r"numpy\.load"),
        (b"cnumpy.core.multiarray\nscalar.__class__\n.", "scalar.__class__"),
        (b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.", "ndarray.__init__"),
        (b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.", "text encoding"),
        (b"c__builtin__\nbytes\n(I999999999999\ntR.", "makes bytes"),
        (b"ccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtR.", "of a kind"),
        (b"Pname\n.", "outside of the file"),
        (b"cnumpy.core.multiarray\n_reconstruct\n}S'_call'\nI1\nsb.", "change a function"),
        (b"cchumpy.ch\nCh\n}S'x'\nI1\nsb.", "damaged"),
        (b"cchumpy.ch\nCh\n)\x81}S'y'\nI1\nsb.", "chumpy expression"),
        (b"not a pickle at all", "damaged"),
        (b"", "empty"),
        (b"\x80\x02]q\x00h\x00a.", "damaged"),
    ],
)
def test_every_other_trick_is_refused_with_a_sentence(tmp_path: Path, program: bytes, said: str) -> None:
    (tmp_path / "trick.pkl").write_bytes(program)
    with pytest.raises(EffigyError, match=said):
        load_restricted_pickle(tmp_path / "trick.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_empty_array_is_read_from_every_kind_of_pickle(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "empty.pkl").write_bytes(pickle.dumps({"none": np.zeros((0, 3), np.int64), "one": [b""]}, protocol))
    found = load_restricted_pickle(tmp_path / "empty.pkl")
    assert found["none"].shape == (0, 3) and len(found["one"][0]) == 0


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_single_numbers_of_numpy_1_and_2_are_read(tmp_path: Path, core: str) -> None:
    written = pickle.dumps({"scale": np.float64(1.5), "count": np.int32(7)}, protocol=0)
    (tmp_path / "numbers.pkl").write_bytes(written.replace(b"numpy._core", core.encode()))
    assert load_restricted_pickle(tmp_path / "numbers.pkl") == {"scale": 1.5, "count": 7}


def test_arrays_of_python_objects_are_refused_in_pickles_and_archives(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    (tmp_path / "objects.pkl").write_bytes(pickle.dumps({"v_template": objects}))
    with pytest.raises(EffigyError, match="Python objects"):
        load_head(tmp_path / "objects.pkl")
    np.savez(tmp_path / "objects.npz", v_template=objects)
    with pytest.raises(EffigyError, match="Python objects"):
        load_head(tmp_path / "objects.npz")


def test_a_sparse_matrix_with_indices_out_of_range_is_refused(tmp_path: Path) -> None:
    matrix = flame_arrays()["J_regressor"]
    matrix.indices[3] = 1_000_000
    (tmp_path / "sparse.pkl").write_bytes(pickle.dumps({"J_regressor": matrix}))
    with pytest.raises(EffigyError, match="damaged"):
        load_head(tmp_path / "sparse.pkl")


def test_truncated_and_missing_files_get_a_sentence(tmp_path: Path) -> None:
    whole = pickle.dumps(flame_arrays())
    (tmp_path / "cut.pkl").write_bytes(whole[: len(whole) // 2])
    save_head(ball_head(), tmp_path / "head.npz")
    data = (tmp_path / "head.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.npz").write_text("hello")
    for name in ("cut.pkl", "cut.npz", "text.npz"):
        with pytest.raises(EffigyError, match="damaged"):
            load_head(tmp_path / name)
    with pytest.raises(EffigyError, match="no head model"):
        load_head(tmp_path / "nowhere.pkl")
    (tmp_path / "head.obj").write_text("v 0 0 0")
    with pytest.raises(EffigyError, match="a mesh or a scene of another program, where a head model is needed"):
        load_head(tmp_path / "head.obj")


def test_another_skeleton_is_refused(tmp_path: Path) -> None:
    arrays = flame_arrays()
    arrays["kintree_table"] = np.array([[4294967295, 0, 1, 2, 2], [0, 1, 2, 3, 4]])
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(arrays))
    with pytest.raises(EffigyError, match="hang together in another way"):
        load_head(tmp_path / "other.pkl")


def test_a_head_with_expressions_needs_as_many_names(tmp_path: Path) -> None:
    save_head(replace(ball_head(), expression_names=("one",)), tmp_path / "names.npz")
    with pytest.raises(EffigyError, match="expression_basis"):
        load_head(tmp_path / "names.npz")
