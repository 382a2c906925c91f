"""The web page with an avatar inside: what it holds, and what a browser makes of it, opened from the disk."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from chromium import Page
from scipy.spatial.transform import Rotation
from test_player import deltas_of

from backend.avatar.anchors import mean_edge_lengths
from backend.avatar.avatar import Avatar, build_networks, load_avatar, save_avatar
from backend.avatar.bust import Bust
from backend.avatar.filmed import expression_limits, filmed_faces
from backend.avatar.settings import AvatarSettings
from backend.errors import EffigyError
from backend.head.formats import load_head
from backend.progress import SILENT
from backend.service import commands
from backend.service.requests import PageRequest
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras, Splats
from backend.training.filmed_limits import store_materials
from backend.training.filmed_regions import store_regions
from backend.training.slider_poses import SliderPose, pose_arrays
from backend.training.warmup import VertexBoundGaussians, distil_into_networks
from backend.web_page import PROGRAM, page_of
from blender_addon.player.baked_file import read_baked
from blender_addon.player.evaluate import Player

ROOT = Path(__file__).resolve().parents[2]
SIZE, FIELD_OF_VIEW = 192, 24.0
EYE, TARGET = np.array((0.12, 0.05, 0.75)), np.array((0.0, -0.02, 0.0))
POSE = {"mouthSmileLeft": 0.8, "browInnerUp": 0.7, "jawOpen": 0.5, "eyeLookOutLeft": 0.6}


def world_to_camera() -> np.ndarray:
    """The camera of `EYE` and `TARGET`, OpenCV axes."""
    back = (EYE - TARGET) / np.linalg.norm(EYE - TARGET)
    right = np.cross((0.0, 1.0, 0.0), back)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = right, -np.cross(back, right), -back
    matrix[:3, 3] = -matrix[:3, :3] @ EYE
    return matrix


def camera() -> Cameras:
    """That of `world_to_camera`, with `FIELD_OF_VIEW` and `SIZE`."""
    focal = 0.5 * SIZE / np.tan(np.radians(FIELD_OF_VIEW / 2))
    intrinsics = ((focal, 0, SIZE / 2), (0, focal, SIZE / 2), (0, 0, 1))
    return Cameras(tensor(intrinsics), tensor(world_to_camera()), SIZE, SIZE)


def tensor(values) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)[None]


@pytest.fixture(scope="module")
def avatar(tmp_path_factory) -> Path:
    """An untrained avatar that looks like a head, coloured by place, with a pattern of 3 cm."""
    model = load_head()
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    torch.manual_seed(3)
    settings = AvatarSettings(blendshapes=5, sh_degree=2)
    made = Avatar(build_networks(settings, model, identity).eval(), model, identity, settings)
    free = VertexBoundGaussians(torch.as_tensor(mean_edge_lengths(model.template, model.faces)), settings.sh_degree)
    share = (model.template - model.template.min(0)) / np.ptp(model.template, axis=0)
    with torch.no_grad():
        free.appearance[:, 0] = 4.0
        colors = 0.25 + 0.5 * share + 0.15 * np.sin(model.template * 2 * np.pi / 0.03)
        free.appearance[:, 1:4] = torch.as_tensor(colors - 0.5) / 0.28209479177387814
        # Bright dashes across, which show how the lips turn.
        lips = torch.as_tensor(model.regions["lips"], dtype=torch.long)
        free.geometry[lips, 3] += 1.2
        free.appearance[lips, 1:4] = 1.5
    pose = made.pose(torch.zeros(1, 52), torch.zeros(1, 5, 3), tensor(world_to_camera()))
    distil_into_networks(free, made.networks, pose, steps=1)
    # The poses below were never filmed, and show the mouth's inside.
    faces = 0.05 * torch.rand(200, 61)
    with torch.no_grad():
        made.networks.performed.copy_(expression_limits(faces))
        made.networks.filmed.copy_(filmed_faces(faces))
        head, shaped = made.head, made.shaped
        store_regions(made.networks.blendshapes.regions, model, head, shaped, faces)
        made.networks.blendshapes.limit_weights(torch.cat((faces, torch.zeros(200, 3)), 1))
        store_materials(made.networks, model, pose)
    path = tmp_path_factory.mktemp("avatar") / "ann.effigy"
    made.metrics = {"source": "a secret film"}
    save_avatar(made, path)
    return path


@pytest.fixture(scope="module")
def file(avatar, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "Ann & co.html"
    commands.run(PageRequest(avatar, path), SILENT)
    return path


@pytest.fixture(scope="module")
def page(file, tmp_path_factory):
    with Page(tmp_path_factory.mktemp("browser"), file.as_uri()) as opened:
        opened.run("effigy.ready")
        yield opened


REST = (0.0, 0.0, 0.0)


def picture(
    page: Page,
    pose: dict[str, float],
    turn: tuple[float, ...] = REST,
    torso: tuple[tuple[float, ...], ...] = (REST, REST),
) -> np.ndarray:
    """(H, W, 4) premultiplied, in [0, 1]. `turn`: axis-angle of the neck; `torso`: of the torso, and its shift."""
    page.run(f"effigy.setPose({pose}, {list(turn)}, {list(torso[0])}, {list(torso[1])})")
    page.run(f"effigy.setCamera({EYE.tolist()}, {TARGET.tolist()}, {FIELD_OF_VIEW}, [{SIZE}, {SIZE}])")
    return drawn(page)


def drawn(page: Page) -> np.ndarray:
    image = page.canvas() / 255
    return np.concatenate((image[..., :3] * image[..., 3:], image[..., 3:]), 2)


@pytest.fixture(scope="module")
def rendered(avatar) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) and alpha (H, W) by the backend."""
    loaded, matrix = load_avatar(avatar), world_to_camera()
    expression, rotations = pose_arrays(loaded.head_model, [SliderPose("", POSE)])
    with torch.no_grad():
        pose = loaded.pose(torch.as_tensor(expression), torch.as_tensor(rotations), tensor(matrix))
        truth = rasterize(loaded.networks(pose)[0], camera())
    return truth.color[0].numpy().clip(0, 1), truth.alpha[0].numpy()


def check_picture(found: np.ndarray, color: np.ndarray, alpha: np.ndarray) -> None:
    head = alpha > 0.5
    assert 0.1 < head.mean() < 0.9
    difference = np.abs(found[..., :3] - color)[head]
    print(f"mean difference inside the head: {255 * difference.mean():.2f}/255")
    assert difference.mean() < 1.5 / 255 and np.quantile(difference, 0.99) < 8 / 255
    assert np.abs(found[..., 3] - alpha).mean() < 1.5 / 255


def test_the_browser_draws_what_the_backend_renders(page, rendered):
    """By the processor, because Chromium has no graphics card here."""
    check_picture(picture(page, POSE), *rendered)
    assert not page.run("effigy.measure(0.1)")["webgl"]


def test_the_page_shows_collar_and_shoulders(avatar, tmp_path):
    made, turn = load_avatar(avatar), (0.1, 0.3, 0.0)
    random = torch.Generator().manual_seed(5)

    def numbers(*size: int) -> torch.Tensor:
        return torch.rand((300, *size), generator=random)

    low = torch.tensor((0.2, 0.06, 0.1)) * (numbers(3) - 0.5) + torch.tensor((0.0, -0.13, 0.03))
    scales = 0.003 + 0.01 * numbers(3)
    made.bust = Bust(low, scales, numbers(4) - 0.5, 0.2 + 0.7 * numbers(), numbers(3), (3 * numbers(3)).softmax(1))
    save_avatar(made, tmp_path / "ann.effigy")
    commands.run(PageRequest(tmp_path / "ann.effigy", tmp_path / "ann.html"), SILENT)
    player = Player(read_baked(tmp_path / "ann.effigy"), deltas_of(made.head_model))
    pose = {name: np.zeros(3) for name in ("jaw", "eye_L", "eye_R")}
    pose |= {"expression": np.zeros(52), "neck": np.array(turn), "root": np.eye(4)}
    torso = ((0.1, -0.4, 0.2), (0.03, 0.01, -0.02))
    moved, rest = np.eye(4), pose | {"torso": np.eye(4)}
    moved[:3, :3], moved[:3, 3] = Rotation.from_rotvec(torso[0]).as_matrix(), torso[1]
    drawn_by_player = [pictured(player, each) for each in (rest, pose | {"torso": moved}, pose)]
    alphas = [alpha for _, alpha in drawn_by_player]
    assert (alphas[0] - alphas[2]).mean() > 0.02 < np.abs(alphas[1] - alphas[0]).mean()
    with Page(tmp_path / "browser", (tmp_path / "ann.html").as_uri()) as opened:
        opened.run("effigy.ready")
        found = [picture(opened, {}, turn), picture(opened, {}, turn, torso)]
        opened.run("document.getElementById('bust').click()")
        found.append(picture(opened, {}, turn, torso))
        assert opened.run("getComputedStyle(document.getElementById('shoulders')).display") == "grid"
        assert opened.problems == []
    for image, (color, alpha) in zip(found, drawn_by_player, strict=True):
        check_picture(image, color, alpha)


def pictured(player: Player, pose: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) and alpha (H, W) of what the extension's player makes of a pose."""
    answer = player.splats(pose, {"view": EYE})
    image = rasterize(Splats(**{name: tensor(part) for name, part in answer.items()}), camera())
    return image.color[0].numpy().clip(0, 1), image.alpha[0].numpy()


def test_a_graphics_card_draws_what_the_backend_renders(file, rendered, tmp_path):
    with Page(tmp_path, f"{file.as_uri()}#webgl") as opened:
        opened.run("effigy.ready")
        check_picture(picture(opened, POSE), *rendered)
        assert opened.run("effigy.measure(0.1)")["webgl"] and opened.problems == []


def test_a_slider_moves_the_mouth_and_not_the_forehead(page):
    before = picture(page, {})
    page.run(
        "(() => { const slider = document.querySelector('input[name=jawOpen]');"
        " slider.value = 0.8; slider.dispatchEvent(new Event('input')); })()"
    )
    change = np.abs(drawn(page) - picture(page, {})).max(2)
    rows = np.flatnonzero(before[..., 3].max(1) > 0.5)
    forehead, mouth = (int(rows[0] + share * np.ptp(rows)) for share in (0.3, 0.7))
    assert change[mouth:].max() > 0.2 and change[:forehead].max() < 0.02


def test_the_page_says_whose_it_is_and_its_console_is_empty(page):
    assert page.run("document.title") == "Ann & co" == page.run("document.querySelector('h1').textContent")
    assert page.run("document.querySelectorAll('input[type=range]').length") == 52
    assert page.run("[...document.querySelectorAll('summary')].map(group => group.textContent)")[0] == "Mouth"
    page.run("[...document.querySelectorAll('button')].find(button => button.textContent === 'Smile').click()")
    assert page.run("document.querySelector('input[name=mouthSmileLeft]').value") == "0.7"
    assert page.run("effigy.measure(0.3)")["rate"] > 0
    # Dragging turns the head, but not far beyond the views from which it was filmed.
    assert page.run("getComputedStyle(document.getElementById('shoulders')).display") == "none"
    page.run("effigy.setCamera([0, 0, 0.85], [0, 0, 0])")
    front = drawn(page)
    page.drag((200, 200), (600, 200))
    turned = drawn(page)
    assert np.abs(turned - front).max() > 0.3
    assert page.problems == []


def test_the_page_of_a_damaged_avatar_has_a_sentence(avatar, tmp_path):
    content = page_of(avatar.read_bytes(), "Ann")
    begin = content.index(b'text/plain">') + 12
    (tmp_path / "ann.html").write_bytes(content[:begin] + b"AAAA" + content[begin + 4 :])
    with Page(tmp_path / "browser", (tmp_path / "ann.html").as_uri()) as opened:
        opened.run("effigy.ready")
        assert "damaged" in opened.run("document.getElementById('message').textContent")
        assert opened.run("document.body.className") == "told"


def inside(page: bytes) -> tuple[dict, dict]:
    """The headers of the avatar in a page: the list of tensors, and the avatar's own."""
    packed = re.search(rb'<script id="avatar" type="text/plain">([^<]+)</script>', page)[1]
    data = gzip.decompress(base64.b64decode(packed))
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    assert max(entry["data_offsets"][1] for name, entry in entries.items() if name[0] != "_") == len(data) - 8 - length
    return entries, json.loads(entries.pop("__metadata__")["effigy"])


def test_a_page_holds_what_posing_needs_and_nothing_else(avatar):
    page = page_of(avatar.read_bytes(), "</title><script>alert(1)</script>")
    assert b"<script>alert" not in page and b"&lt;script&gt;alert(1)" in page
    entries, own = inside(page)
    assert not any("codes" in name or "decode" in name or name == "identity" for name in entries)
    assert {"networks.blendshapes.mix.2.bias", "networks.blendshapes.regions.reach"} <= entries.keys()
    assert len(own["baked"]["sliders"]) == 52
    assert "secret" not in json.dumps(own)
    assert len(page) < 3e6
    # Nothing is fetched.
    assert not re.search(rb"""(src|href)\s*=\s*["']?(http|//)|@import|fetch\(""", PROGRAM.read_bytes())


def test_a_file_of_before_the_baked_model_gets_one(avatar, tmp_path):
    content = avatar.read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    own = json.loads(entries.pop("__metadata__")["effigy"])
    del own["baked"]
    made, parts, at = {"__metadata__": {"effigy": json.dumps(own)}}, [], 0
    for name, entry in entries.items():
        if not name.startswith("baked."):
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            made[name], at = entry | {"data_offsets": [at, at + last - first]}, at + last - first
            parts.append(content[first:last])
    text = json.dumps(made).encode()
    (tmp_path / "old.effigy").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    commands.run(PageRequest(tmp_path / "old.effigy", tmp_path / "old.html"), SILENT)
    assert inside((tmp_path / "old.html").read_bytes()) == inside(page_of(content, "old"))


def test_what_a_file_says_about_its_heads_motion_is_not_taken_on_trust(avatar, tmp_path):
    content = avatar.read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    own = json.loads(entries["__metadata__"]["effigy"])
    own["baked"] = {"sliders": ["</script>"]}
    entries["__metadata__"]["effigy"] = json.dumps(own)
    first, last = (8 + length + offset for offset in entries["baked.delta_starts"]["data_offsets"])
    text = json.dumps(entries).encode()
    hostile = content[8 + length : first] + b"\x7f" * (last - first) + content[last:]
    (tmp_path / "ann.effigy").write_bytes(len(text).to_bytes(8, "little") + text + hostile)
    for name, file in (("good", avatar), ("hostile", tmp_path / "ann.effigy")):
        (tmp_path / name).mkdir()
        commands.run(PageRequest(file, tmp_path / name / "ann.html"), SILENT)
    assert (tmp_path / "good" / "ann.html").read_bytes() == (tmp_path / "hostile" / "ann.html").read_bytes()


def test_the_page_of_another_head_model_gets_sliders_of_its_expressions(avatar, tmp_path, monkeypatch):
    monkeypatch.setattr("backend.avatar.baked.own_sliders", lambda model: None)
    save_avatar(load_avatar(avatar), tmp_path / "flame.effigy")
    messages = []
    monkeypatch.setattr(type(SILENT), "message", lambda _, text: messages.append(text))
    commands.run(PageRequest(tmp_path / "flame.effigy", tmp_path / "flame.html"), SILENT)
    found, given = (inside(page) for page in ((tmp_path / "flame.html").read_bytes(), page_of(avatar.read_bytes(), "")))
    assert found[0].keys() == given[0].keys()
    assert all(found[0][name]["shape"] == given[0][name]["shape"] for name in found[0])
    assert set(found[1]["baked"]["sliders"]) == set(given[1]["baked"]["sliders"])
    assert "licence" in messages[0]


def test_what_is_no_page_gives_a_sentence(avatar, tmp_path):
    with pytest.raises(EffigyError, match=r"should end in \.html"):
        commands.run(PageRequest(avatar, tmp_path / "ann.htm"), SILENT)
    model = load_head()
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    settings = AvatarSettings(filters=1, latent_size=1, blendshapes=0)
    save_avatar(Avatar(build_networks(settings, model, identity), model, identity, settings), tmp_path / "unet.effigy")
    with pytest.raises(EffigyError, match="make one of blendshapes"):
        commands.run(PageRequest(tmp_path / "unet.effigy", tmp_path / "unet.html"), SILENT)
    assert [path.name for path in tmp_path.iterdir()] == ["unet.effigy"]


@pytest.mark.parametrize("name", ["channel_change.py", "head_motion.py", "web_page.py"])
def test_the_extension_has_the_same_modules(name):
    assert (ROOT / "backend" / name).read_bytes() == (ROOT / "blender_addon" / name).read_bytes()


def test_the_page_in_the_repository_is_made_of_its_sources(tmp_path):
    if shutil.which("node") is None or not (ROOT / "web" / "node_modules").is_dir():
        pytest.skip("The packages of the web page are not installed (`python3 build.py web` installs them).")
    subprocess.run(["node", "build.mjs", str(tmp_path / "page.html")], cwd=ROOT / "web", check=True)
    assert (tmp_path / "page.html").read_bytes() == PROGRAM.read_bytes()
