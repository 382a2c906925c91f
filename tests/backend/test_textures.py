"""What is painted on the textures of an avatar appears on its face where it was painted, in every expression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_player import deltas_of
from test_web_page import EYE, avatar, tensor, world_to_camera  # noqa: F401  (`avatar` is a fixture)

from backend.avatar.avatar import load_avatar
from backend.head.formats import load_head
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras
from backend.training.slider_poses import SliderPose, pose_arrays
from blender_addon.player.baked_file import read_baked
from blender_addon.player.evaluate import Player
from blender_addon.textures.paint import Attribute, change_of, painted_file
from blender_addon.textures.surface import Surface, find_surface

SIZE, IMAGE, RADIUS = 512, 192, 7.0
CHIN = 199
"""A landmark of the face detector, which opening the jaw moves."""
RED = np.array((1.0, 0.0, 0.0))
POSES = ({}, {"jawOpen": 0.6, "mouthSmileLeft": 0.8, "mouthSmileRight": 0.8})


class Painted:
    """An avatar on the texture of which a red dot was painted on the chin."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.model, self.path, self.baked = load_head(), path, read_baked(path)
        self.rest = {"expression": np.zeros(52), "root": np.eye(4)}
        self.rest |= {name: np.zeros(3) for name in ("neck", "jaw", "eye_L", "eye_R")}
        self.splats = self.at_rest(path)
        vertices = np.ascontiguousarray(self.baked.vertices.T)
        uv = self.model.uv[self.model.uv_faces]
        self.surface: Surface = find_surface(SIZE, uv, self.model.faces, vertices, self.splats)
        self.texture = self.surface.mean(self.splats["colors"]).clip(0, 1)
        self.face = self.model.landmark_faces[CHIN]
        self.corners = self.model.landmark_barycentric[CHIN]
        rows, columns = np.divmod(self.surface.texels, SIZE)
        at = SIZE * (uv[self.face] * self.corners[:, None]).sum(0)
        self.dot = np.hypot(columns + 0.5 - at[0], rows + 0.5 - at[1]) < RADIUS
        wanted = np.where(self.dot[:, None], RED, self.texture)
        self.folder = folder
        self.file, self.change = self.paint(Attribute.COLOR, self.splats["colors"], wanted)

    def paint(self, attribute: Attribute, values: np.ndarray, wanted: np.ndarray) -> tuple[Path, np.ndarray]:
        """The avatar with this texture (T, c), and what changes of its Gaussians' `values` (G, c)."""
        change = change_of(attribute, self.surface, values, wanted)
        file = self.folder / f"{attribute}.effigy"
        file.write_bytes(painted_file(self.path.read_bytes(), self.baked, self.splats, attribute, change))
        return file, change

    def image(self, path: Path, pose: dict[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(H, W, 3) by the backend, where in it the chin is: x, y; and alpha (H, W)."""
        made = load_avatar(path)
        expression, rotations = pose_arrays(self.model, [SliderPose("", pose)])
        focal = 0.5 * IMAGE / np.tan(np.radians(12))
        intrinsics = np.array(((focal, 0, IMAGE / 2), (0, focal, IMAGE / 2), (0, 0, 1)))
        with torch.no_grad():
            posed = made.pose(torch.as_tensor(expression), torch.as_tensor(rotations), tensor(world_to_camera()))
            cameras = Cameras(tensor(intrinsics), tensor(world_to_camera()), IMAGE, IMAGE)
            raster = rasterize(made.networks(posed)[0], cameras)
        place = (posed.posed[0].numpy()[self.model.faces[self.face]] * self.corners[:, None]).sum(0)
        seen = intrinsics @ (world_to_camera()[:3, :3] @ place + world_to_camera()[:3, 3])
        return raster.color[0].numpy().clip(0, 1), seen[:2] / seen[2], raster.alpha[0].numpy()

    def at_rest(self, path: Path) -> dict[str, np.ndarray]:
        """The Gaussians by the player."""
        return Player(read_baked(path), deltas_of(self.model)).splats(self.rest, {"view": EYE})


@pytest.fixture(scope="module")
def painted(avatar: Path, tmp_path_factory) -> Painted:  # noqa: F811
    return Painted(avatar, tmp_path_factory.mktemp("painted"))


@pytest.mark.parametrize("pose", POSES)
def test_a_painted_dot_is_where_it_was_painted(painted, pose):
    (before, at, _), (after, *_) = (painted.image(path, pose) for path in (painted.path, painted.file))
    change = np.abs(after - before).max(2)
    rows, columns = np.nonzero(change > 0.5 * change.max())
    middle = np.array((columns.mean() + 0.5, rows.mean() + 0.5))
    x, y = at.astype(int)
    assert after[y, x] @ (1, -0.5, -0.5) > 0.6 > 0.4 > before[y, x] @ (1, -0.5, -0.5)
    # In pixels; the dot has a radius of about six.
    assert np.linalg.norm(middle - at) < 3
    distance = np.hypot(*(np.mgrid[:IMAGE, :IMAGE][::-1] + 0.5 - at[:, None, None]))
    assert change[distance > 25].max() < 0.02


def test_the_chin_moves_between_these_expressions(painted):
    first, second = (painted.image(painted.path, pose)[1] for pose in POSES)
    assert np.linalg.norm(first - second) > 6


def test_the_dot_is_in_the_texture_of_the_painted_avatar(painted):
    after = painted.surface.mean(painted.splats["colors"] + painted.change)
    assert np.abs(after[painted.dot] - RED).mean() < 0.12
    far = np.abs(after - painted.texture)[~painted.dot].max(1)
    assert np.quantile(far, 0.99) < 0.01


def test_only_the_colours_of_the_gaussians_under_the_dot_change(painted):
    touched = np.abs(painted.change).max(1) > 1 / 255
    assert 3 < touched.sum() < 200
    baked, again = painted.baked, read_baked(painted.file)
    changed = again.mean != baked.mean
    own = 11 + 3 * (baked.sh_degree + 1) ** 2
    color = np.zeros(len(changed), bool)
    color[11:14] = True
    for spawned in range(baked.spawned):
        color[own + 11 * spawned + 1 : own + 11 * spawned + 4] = True
    assert not changed[~color].any() and changed[color].any()
    assert changed.any(0).sum() < 150


def test_a_texture_that_was_rounded_to_8_bits_and_not_painted_changes_nothing(painted):
    rounded = np.round(255 * painted.texture) / 255
    assert not change_of(Attribute.COLOR, painted.surface, painted.splats["colors"], rounded).any()


@pytest.fixture(scope="module")
def heights(painted) -> np.ndarray:
    """(T,) of the texels above the middle of the eyes, metres."""
    vertices = painted.baked.vertices.T[painted.model.faces]
    triangles = vertices[_triangles(painted)]
    places = np.einsum("tc,tcd->td", painted.surface.corners, triangles)
    return places[:, 1] - painted.baked.joints[3:, 1].mean()


def _triangles(painted: Painted) -> np.ndarray:
    """(T,) by their corners, which are the first Gaussians of each texel."""
    k = 1 + painted.baked.spawned
    known = {tuple(face): index for index, face in enumerate(painted.model.faces.tolist())}
    return np.array([known[tuple(row)] for row in painted.surface.gaussians[:, ::k].tolist()])


@pytest.mark.parametrize("pose", POSES)
def test_where_opacity_was_painted_away_nothing_is_seen_of_the_head(painted, heights, pose):
    opacities = painted.splats["opacities"][:, None]
    wanted = np.where(heights[:, None] > 0.03, 0, painted.surface.mean(opacities))
    file, change = painted.paint(Attribute.OPACITY, opacities, wanted)
    assert (change < 0).mean() > 0.1 and (change <= 0).all()
    before, after = (painted.image(path, pose)[2] for path in (painted.path, file))
    rows = np.flatnonzero((before > 0.9).any(1))
    crown, chin = before[: rows[0] + 25] > 0.9, before[rows[0] + 90 :] > 0.9
    assert crown.sum() > 300 and after[: rows[0] + 25][crown].max() < 0.05
    assert np.abs(after - before)[rows[0] + 90 :][chin].max() < 0.02


def test_opacity_is_lowered_and_raised_to_what_was_painted(painted, heights):
    opacities = painted.splats["opacities"][:, None]
    shown = painted.surface.mean(opacities)
    wanted = np.where(heights[:, None] > 0, 0.5 * shown, np.minimum(1.05 * shown, 0.99))
    found = painted.surface.mean(
        painted.at_rest(painted.paint(Attribute.OPACITY, opacities, wanted)[0])["opacities"][:, None]
    )
    inside = np.abs(heights) > 0.02
    assert np.quantile(np.abs(found - wanted)[inside], 0.95) < 0.03 < np.median(np.abs(shown - wanted))


def test_offsets_move_the_gaussians_by_what_was_painted(painted, heights):
    anchors = painted.baked.vertices.T
    values = painted.splats["means"] - np.concatenate((anchors, np.repeat(anchors, painted.baked.spawned, 0)))
    moved = np.array((0.002, -0.001, 0.005), np.float32)
    wanted = painted.surface.mean(values) + np.where(heights[:, None] > 0, moved, 0)
    file, _ = painted.paint(Attribute.OFFSETS, values, wanted)
    after = painted.at_rest(file)
    difference = after["means"] - painted.splats["means"]
    k = painted.baked.spawned
    height = anchors[:, 1] - painted.baked.joints[3:, 1].mean()
    height = np.concatenate((height, np.repeat(height, k)))
    seen = painted.surface.spread(np.ones((len(painted.surface.texels), 1), np.float32), len(height))[:, 0] > 0.5
    above, below = seen & (height > 0.02), seen & (height < -0.02)
    assert above.sum() > 2000 and below.sum() > 2000
    # In metres: 16 bits keep offsets to some micrometres.
    assert np.quantile(np.linalg.norm(difference - moved, axis=1)[above], 0.99) < 1e-4
    assert np.abs(difference[below]).max() < 1e-6
    assert all(np.array_equal(after[name], painted.splats[name]) for name in ("opacities", "scales", "quaternions"))


@pytest.mark.parametrize("attribute", list(Attribute))
def test_half_of_the_paint_is_not_taken_for_rounding(painted, attribute):
    """What differs by less than the file's rounding is not paint; what differs by more is."""
    values = {"color": painted.splats["colors"], "opacity": painted.splats["opacities"][:, None]}
    found = values.get(attribute, np.zeros((len(painted.splats["means"]), 3), np.float32))
    shown = painted.surface.mean(found).clip(0, 1)
    assert not change_of(attribute, painted.surface, found, shown - 0.9 * attribute.unpainted).any()
    assert change_of(attribute, painted.surface, found, shown - 3 * attribute.unpainted).any()


def test_the_texture_is_a_mean_of_colours(painted):
    assert np.allclose(painted.surface.weights.sum(1), 1, atol=1e-5)
    grey = np.full((len(painted.splats["colors"]), 3), 0.25, np.float32)
    assert np.allclose(painted.surface.mean(grey), 0.25, atol=1e-5)
    random = np.random.default_rng(0)
    values, texels = random.normal(size=grey.shape), random.normal(size=(len(painted.surface.texels), 3))
    forward = (painted.surface.mean(values.astype(np.float32)) * texels).sum()
    backward = (painted.surface.spread(texels.astype(np.float32), len(values)) * values).sum()
    assert forward == pytest.approx(backward, abs=0.05)


def test_of_triangles_that_share_texels_the_outermost_has_them():
    """FLAME's heads have a cylindrical UV map, on which an eyeball lies over its lids."""
    uv = np.array([[(0.1, 0.1), (0.9, 0.1), (0.1, 0.9)]] * 2, np.float32)
    faces = np.array(((0, 1, 2), (3, 4, 5)))
    vertices = np.array([(0, 0, 0.1), (0.01, 0, 0.1), (0, 0.01, 0.1), (0, 0, 0.05), (0.01, 0, 0.05), (0, 0.01, 0.05)])
    splats = {
        "means": vertices.astype(np.float32),
        "quaternions": np.tile(np.float32((1, 0, 0, 0)), (6, 1)),
        "scales": np.full((6, 3), 0.01, np.float32),
        "opacities": np.full(6, 0.9, np.float32),
    }
    surface = find_surface(32, uv, faces, vertices.astype(np.float32), splats)
    assert len(surface.texels) > 200 and set(surface.gaussians.ravel()) == {0, 1, 2}
