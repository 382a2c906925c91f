"""The extension's player evaluates an avatar as the backend does, and refuses damaged files with a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation

from backend.avatar.avatar import Avatar, build_networks, load_avatar, save_avatar
from backend.avatar.filmed import filmed_faces
from backend.avatar.settings import LARGEST, AvatarSettings
from backend.errors import EffigyError as BackendError
from backend.head.formats import load_head
from backend.service.parameters import Parameters
from backend.service.posing import _vertices_of_gaussians, eye_in_direction, posed_splats, read_pose
from backend.training.filmed_limits import store_materials
from blender_addon.errors import EffigyError
from blender_addon.player import baked_file
from blender_addon.player.baked_file import read_baked
from blender_addon.player.evaluate import Player
from blender_addon.player.head import HeadDeltas

REGIONS = ("shares", "emphasis", "faces", "reach")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model():
    """The open head; with pose correctives, which it lacks."""
    waves = np.random.default_rng(2).normal(0, 0.002, (5200, 3, 36)).astype(np.float32)
    return replace(load_head(), pose_basis=waves)


def make_avatar(model, path: Path, degree: int = 1, seed: int = 0) -> Path:
    """An avatar with random networks, whose ranges of views and expressions are narrow."""
    torch.manual_seed(seed)
    identity = np.random.default_rng(seed).normal(0, 0.5, model.shape_basis.shape[2]).astype(np.float32)
    settings = AvatarSettings(blendshapes=6, sh_degree=degree)
    networks = build_networks(settings, model, identity)
    with torch.no_grad():
        for parameter in filter(lambda parameter: parameter.requires_grad, networks.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
        networks.views[:] = torch.tensor(((-0.2, 0.3), (-0.1, 0.2)))
        networks.performed[0], networks.performed[1] = -0.3, 0.5
        random = torch.Generator().manual_seed(seed)
        networks.filmed.copy_(filmed_faces(0.2 * torch.randn(200, networks.filmed.shape[1], generator=random)))
        regions = networks.blendshapes.regions
        regions.shares.copy_(torch.rand(regions.shares.shape, generator=random) ** 4)
        # As what is inside a mouth, which no face changes.
        regions.shares[::7] = 0
        regions.emphasis.copy_(0.1 + torch.rand(regions.emphasis.shape, generator=random))
        regions.faces.copy_(0.2 * torch.randn(regions.faces.shape, generator=random))
        regions.reach.copy_(torch.tensor((0.5, 3.0)))
        weights = networks.blendshapes.weights(torch.zeros(1, networks.filmed.shape[1] + 3))
        networks.blendshapes.weight_limits.copy_(torch.cat((weights - 0.1, weights + 0.1)))
    avatar = Avatar(networks.eval(), model, identity, settings)
    rest = torch.zeros(1, len(model.expression_names)), torch.zeros(1, 5, 3), torch.eye(4)[None]
    store_materials(networks, model, avatar.pose(*rest))
    save_avatar(avatar, path)
    return path


@pytest.fixture(scope="module")
def file(model, tmp_path_factory) -> Path:
    return make_avatar(model, tmp_path_factory.mktemp("avatar") / "person.effigy")


def deltas_of(model) -> HeadDeltas:
    used = np.flatnonzero(model.pose_basis.any((0, 1)))
    planar = (basis.transpose(2, 1, 0).astype(np.float32) for basis in (model.expression_basis, model.pose_basis))
    expression, corrective = map(np.ascontiguousarray, planar)
    return HeadDeltas(expression, corrective[used], used)


def make_pose(model, seed: int = 0, jaw_open: float = 0.4) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    expression = random.uniform(-0.2, 0.8, len(model.expression_names)).astype(np.float32)
    expression[model.expression_names.index("jawOpen")] = jaw_open
    root = np.eye(4)
    root[:3, :3] = 1.3 * Rotation.from_rotvec(random.normal(0, 1, 3)).as_matrix()
    root[:3, 3] = random.normal(0, 1, 3)
    joints = {name: random.normal(0, 0.2, 3).astype(np.float32) for name in ("neck", "jaw", "eye_L", "eye_R")}
    return {"expression": expression, "root": root} | joints


def differences(file: Path, model, pose: dict[str, np.ndarray], view: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest difference of each part of the splats from the backend's."""
    avatar = load_avatar(file, model)
    subject = read_pose(Parameters(pose, "test"), model)
    eye = eye_in_direction(avatar, subject, view["direction"]) if "direction" in view else subject.to_head(view["view"])
    expected = {name: part[0].numpy() for name, part in vars(posed_splats(avatar, subject, eye)).items()}
    found = Player(read_baked(file), deltas_of(model)).splats(pose, view)
    assert found.keys() == expected.keys()
    assert all(found[name].shape == part.shape and found[name].dtype == np.float32 for name, part in expected.items())
    sign = np.sign((found["quaternions"] * expected["quaternions"]).sum(1, keepdims=True))
    # A random quaternion may be so short that half precision turns it: the few worst are left out.
    turns = np.quantile(np.abs(sign * found.pop("quaternions") - expected.pop("quaternions")), 0.999)
    return {name: float(np.abs(found[name] - part).max()) for name, part in expected.items()} | {"turns": turns}


@pytest.mark.parametrize("jaw_open", [0.0, 0.3, 0.6], ids=["filmed", "at the margin", "beyond"])
def test_the_rigs_mouth_shows_as_in_the_backend(file, model, jaw_open):
    pose = make_pose(model, jaw_open=jaw_open) | {"jaw": np.zeros(3, np.float32)}
    pose["expression"][:] *= pose["expression"] == np.float32(jaw_open)
    found = differences(file, model, pose, {"direction": np.array((0.0, 0.0, -1.0))})
    assert found["colors"] < 1 / 255 and found["means"] < 1e-5 and found["scales"] < 1e-5


def with_bust(file: Path, path: Path) -> Path:
    """The avatar with a bust of six Gaussians in a file of its own."""
    tensors, metadata = stored(file)
    random = torch.Generator().manual_seed(3)
    sizes = {"means": (3,), "scales": (3,), "quaternions": (4,), "opacities": (), "colors": (3,), "weights": (3,)}
    bust = {f"baked.bust_{name}": torch.rand((6, *size), generator=random).half() for name, size in sizes.items()}
    bust["baked.bust_weights"] = bust["baked.bust_weights"].float().softmax(1).half()
    save_file(tensors | bust, path, metadata)
    return path


def test_the_bust_is_the_backends_and_shows_where_the_pose_says_where_the_torso_is(file, model, tmp_path):
    person, view = with_bust(file, tmp_path / "person.effigy"), {"view": np.array((0.3, -0.2, 2.0))}
    pose = make_pose(model)
    torso = np.eye(4)
    torso[:3, :3] = Rotation.from_rotvec((0.3, -0.2, 0.1)).as_matrix()
    torso[:3, 3] = 0.05, -0.02, 0.01
    found = differences(person, model, pose | {"torso": torso}, view)
    assert found["means"] < 1e-5 and found["colors"] < 1 / 255 and found["turns"] < 1e-3
    player, head = (Player(read_baked(path), deltas_of(model)) for path in (person, file))
    count = head.baked.gaussians
    shown, hidden = (player.splats(each, view)["means"] for each in (pose | {"torso": torso}, pose))
    assert len(shown) == count + 6 == player.baked.gaussians and np.array_equal(hidden, shown[:count])
    vertices = player.vertices_of_gaussians
    distances = np.linalg.norm(player.baked.bust.means[:, None] - player.baked.vertices.T, axis=2)
    assert np.array_equal(vertices[:count], head.vertices_of_gaussians)
    assert np.array_equal(vertices[count:], distances.argmin(1))
    subject = read_pose(Parameters(pose | {"torso": torso}, "test"), model)
    avatar = load_avatar(person, model)
    assert np.array_equal(_vertices_of_gaussians(avatar), vertices) and subject.torso is not None


@pytest.mark.parametrize(
    ("name", "part"),
    [("weights", torch.zeros(6, 2)), ("means", torch.zeros(0, 3)), ("colors", torch.full((6, 3), torch.nan))],
)
def test_a_damaged_bust_gets_a_sentence(file, tmp_path, name, part):
    person = with_bust(file, tmp_path / "person.effigy")
    tensors, metadata = stored(person)
    save_file(tensors | {f"baked.bust_{name}": part}, tmp_path / "damaged.effigy", metadata)
    with pytest.raises(EffigyError, match="is damaged"):
        read_baked(tmp_path / "damaged.effigy")


def test_the_distance_from_the_filmed_faces_is_the_backends(file, model):
    avatar, player = load_avatar(file, model), Player(read_baked(file), deltas_of(model))
    for seed in (0, 1):
        pose = make_pose(model, seed)
        subject = read_pose(Parameters(pose, "test"), model)
        expected = avatar.distances(subject.expression[None], subject.rotations[None])[0]
        assert player.distance(pose) == pytest.approx(expected, rel=1e-4) and expected > 1.2


def test_files_of_before_know_no_limits(file, model, tmp_path):
    """Their avatars are drawn as ever, and every face counts as filmed."""
    newer = ("weight_limits", "materials", "reveals", *(f"regions.{name}" for name in REGIONS))
    names = ("networks.filmed", *(f"networks.blendshapes.{each}" for each in newer))
    tensors, metadata = stored(file)
    old = tmp_path / "old.effigy"
    save_file({name: value for name, value in tensors.items() if name not in names}, old, metadata)
    pose = make_pose(model)
    view = {"direction": np.array((0.0, 0.0, -1.0))}
    found = differences(old, model, pose, view)
    assert found["colors"] < 1 / 255 and found["means"] < 1e-5
    player, limited = (Player(read_baked(path), deltas_of(model)) for path in (old, file))
    assert player.distance(pose) == 0
    assert np.abs(player.splats(pose, view)["colors"] - limited.splats(pose, view)["colors"]).max() > 0.05
    filmed = tensors[names[0]].float()
    for name, change in (
        ("a shape", {names[0]: tensors[names[0]][1:]}),
        ("an axis", {names[0]: 0 * tensors[names[0]]}),
        ("a short axis", {names[0]: torch.cat((filmed[:1], 1e-20 * filmed[1:2], filmed[2:]))}),
    ):
        damaged = tmp_path / f"{name}.effigy"
        save_file(tensors | change, damaged, metadata)
        with pytest.raises(EffigyError, match="is damaged"):
            read_baked(damaged)
        with pytest.raises(BackendError, match="is damaged"):
            load_avatar(damaged, model)


def stored(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["view", "direction"])
def test_the_players_splats_are_the_backends(file, model, kind, seed):
    pose = make_pose(model, seed)
    front = pose["root"][:3, :3] @ Rotation.from_rotvec(pose["neck"]).as_matrix() @ (0.02, 0.03, 1.0)
    view = {"view": pose["root"][:3, 3] + 0.6 * front} if kind == "view" else {"direction": -front}
    found = differences(file, model, pose, view)
    assert found["means"] < 1e-5 and found["scales"] < 1e-5
    assert found["colors"] < 1 / 255 and found["opacities"] < 1 / 255 and found["turns"] < 2e-3


def test_a_view_outside_the_training_range_is_clamped_as_by_the_backend(file, model):
    pose = make_pose(model)
    for place in ((1.0, 0.5, -0.4), (0.0, 0.0, -1.0)):
        found = differences(file, model, pose, {"view": pose["root"][:3, :3] @ place + pose["root"][:3, 3]})
        assert found["colors"] < 1 / 255 and found["means"] < 1e-5


def test_harmonics_of_the_highest_degree(model, tmp_path):
    file = make_avatar(model, tmp_path / "person.effigy", degree=3)
    pose = make_pose(model)
    found = differences(file, model, pose, {"view": pose["root"][:3, :3] @ (0.1, 0.1, 0.6) + pose["root"][:3, 3]})
    assert found["colors"] < 1 / 255 and found["means"] < 1e-5


def test_the_file_of_a_unet_avatar_has_no_baked_model(model, tmp_path):
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    settings = AvatarSettings(filters=1, latent_size=1, blendshapes=0)
    save_avatar(Avatar(build_networks(settings, model, identity), model, identity, settings), tmp_path / "a.effigy")
    assert read_baked(tmp_path / "a.effigy") is None


def test_a_baked_model_of_a_newer_kind_is_left_to_the_backend(file, tmp_path):
    assert read_baked(changed(file, tmp_path, lambda header, own: own["baked"].update(schema=2))) is None


def changed(file: Path, folder: Path, change: Callable[[dict, dict], None]) -> Path:
    """A copy of the file whose headers, that of safetensors and the avatar's own, were changed."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    own = json.loads(header["__metadata__"]["effigy"])
    change(header, own)
    header["__metadata__"]["effigy"] = json.dumps(own)
    text = json.dumps(header).encode()
    target = folder / "changed.effigy"
    target.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return target


def rename(old: str, new: str) -> Callable[[dict, dict], None]:
    return lambda header, own: header.update({new: header.pop(old)})


def reshape(name: str, *shape: int) -> Callable[[dict, dict], None]:
    return lambda header, own: header[name].update(shape=list(shape))


DAMAGES = {
    "features are gone": rename("baked.features", "baked.other"),
    "a layer is gone": rename("networks.blendshapes.mix.2.weight", "networks.blendshapes.mix.x.weight"),
    "all layers are gone": lambda header, own: [
        header.update({f"other{number}": header.pop(f"networks.blendshapes.mix.{number}.weight")}) for number in (0, 2)
    ],
    "other features": reshape("baked.features", 16, 5200),
    "other vertices": reshape("baked.vertices", 15600),
    "other weights": reshape("baked.skinning", 26000, 1),
    "no anchor": lambda header, own: header["baked.base_scale"].update(shape=[0, 5200]),
    "integers": lambda header, own: header["baked.joints"].update(dtype="I32"),
    "other degree": lambda header, own: own["settings"].update(sh_degree=2),
    "a degree that is no number": lambda header, own: own["settings"].update(sh_degree="1"),
    "too many spawned": lambda header, own: own["settings"].update(neural_per_anchor=10**9),
    "no settings": lambda header, own: own.update(settings=None),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_gives_a_sentence(file, tmp_path, damage):
    with pytest.raises(EffigyError, match="is damaged|is not an avatar"):
        read_baked(changed(file, tmp_path, damage))


def test_numbers_that_are_not_finite_give_a_sentence(file, tmp_path):
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    begin = 8 + length + json.loads(content[8 : 8 + length])["baked.vertices"]["data_offsets"][0]
    content[begin : begin + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "nan.effigy").write_bytes(content)
    with pytest.raises(EffigyError, match=r"baked\.vertices holds numbers that are not finite"):
        read_baked(tmp_path / "nan.effigy")


def test_an_avatar_on_the_rig_of_another_head_gives_a_sentence(file, model):
    deltas = deltas_of(model)
    with pytest.raises(EffigyError, match="other vertices"):
        Player(read_baked(file), HeadDeltas(deltas.expression[:, :, :-1], deltas.corrective, deltas.corrective_index))


def test_the_player_needs_neither_blender_nor_the_backends_packages():
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('bpy', 'torch', 'scipy', 'backend'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import blender_addon.player.evaluate, blender_addon.player.baked_file\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_an_avatars_bounds_are_those_of_the_backend() -> None:
    assert (
        LARGEST["neural_per_anchor"],
        LARGEST["enhancer_width"],
    ) == (baked_file.MOST_SPAWNED, baked_file.MOST_ENHANCED)
