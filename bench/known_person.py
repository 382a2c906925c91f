"""Videos of rendered people with known ground truth: the open head with random identity, appearance, light, lens and
performance.

Detector and matting process these images like footage, so their errors are part of the measured error; `known_clip`
generates noisy landmarks instead. The albedo is painted once into a texture. Skin is lit by a sky, a key and a fill
light without cast shadows, and hair is a rough shell. The renderer is simpler than the demo clip's and thirty times
faster.
"""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from assets.derive.appearance import EYE_GLOSS, Appearance, Painted, albedo, eye_colour, hair_growth, paint_head
from assets.derive.clothes import shoulders
from backend.formats.track import Track
from backend.head.forward import Head, vertex_normals
from backend.head.model import EYE_L, EYE_R, JAW, NECK, HeadModel
from backend.splatting.mesh import interpolate, rasterize_mesh

SIZE = 512
FPS = 25
IDENTITIES = 60
"""Number of the head's first identity shapes that are varied; the shapes are sorted by decreasing variance."""
_TEXTURE = 1024
_MOVING = (
    "mouthSmile",
    "mouthPucker",
    "mouthFunnel",
    "mouthStretch",
    "mouthPress",
    "mouthUpperUp",
    "mouthLowerDown",
    "mouthFrown",
    "browInnerUp",
    "browOuterUp",
    "browDown",
    "cheekSquint",
    "noseSneer",
    "eyeSquint",
)
_DISTANCE_SCALE = 1.18
"""Scale of the camera distance: a larger value shows the face smaller. The face fills a little less than half of the
image's height."""


@dataclass(frozen=True)
class KnownPerson:
    video: Path
    truth: Track
    """Ground truth, in pixels of the uncropped video."""


class Scene:
    """A rendered person whose images are computed on request.

    With `still` every frame has an independent pose and expression. The rendering time grows with the square of
    `oversampling`.
    """

    def __init__(
        self, model: HeadModel, seed: int, frames: int, yaw: float, still: bool = False, oversampling: int = 2
    ) -> None:
        self._oversampling = oversampling
        random = np.random.default_rng(seed)
        self.model = model
        self.truth = _performance(model, random, frames, yaw, still)
        self.appearance = _random_appearance(random, seed)
        painted = paint_head(model, self.appearance)
        self._painted, self._texture = painted, _bake(painted)
        self._body = shoulders(model, self.truth.identity)
        with torch.no_grad():
            parts = (self.truth.identity[None], self.truth.expression, self.truth.rotations)
            posed = Head(model)(*(torch.as_tensor(part) for part in parts)).vertices
            normals = vertex_normals(posed, torch.as_tensor(model.faces.astype(np.int64))).numpy()
        cover, length = hair_growth(painted, model.template.astype(np.float64))
        self._grows = (cover * (1 - painted.material[:, 4])).clip(0, 1)
        roughness = 1 + 0.3 * random.normal(size=len(self._grows))
        lift = (length * np.clip(2 * self._grows - 0.4, 0, 1) * roughness)[:, None].astype(np.float32)
        self._posed = posed.numpy()
        self._haired = self._posed + lift * normals
        self._lights = _lights(random)
        small = random.uniform(0.1, 0.7, (4, 4, 3)).astype(np.float32)
        self._background = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        self._grain = int(random.integers(0, 2**31))

    def seen_from(self, motion: np.ndarray) -> Scene:
        """The same moments in another camera; `motion` (4, 4) is from this camera's space to that one's."""
        other = copy.copy(self)
        poses = (motion @ self.truth.head_to_camera).astype(np.float32)
        other.truth = replace(self.truth, head_to_camera=poses)
        # The lights stay where they are in the room.
        other._lights = [(motion[:3, :3] @ towards, colour) for towards, colour in self._lights]
        return other

    @property
    def key(self) -> np.ndarray:
        """(3,) the unit direction towards the stronger lamp, in camera space."""
        return max(self._lights, key=lambda light: light[1].sum())[0]

    def irradiance(self, normals: np.ndarray) -> np.ndarray:
        """(..., 3): linear light that white, matte skin with these unit normals (..., 3) in camera space sends back."""
        total = np.repeat(_sky(normals), 3, -1)
        for towards, strength in self._lights:
            total = total + _diffuse(normals, towards) * strength
        return total

    def image(self, index: int, *, occluder: bool = False, noise: float = 2.5) -> np.ndarray:
        """(SIZE, SIZE, 3) uint8 sRGB; `noise` is the standard deviation of the noise, in grey values of 255."""
        camera = self.truth.head_to_camera[index]
        points, hair, torso = (
            part @ camera[:3, :3].T + camera[:3, 3] for part in (self._posed[index], self._haired[index], self._body[0])
        )
        image = _render(
            self._painted,
            self._texture,
            points,
            hair,
            self._grows,
            (torso, self._body[1]),
            self.truth.intrinsics,
            self._lights,
            self._background,
            self._oversampling,
        )
        if occluder:
            _draw_hand(image, index / self.truth.frame_count, np.array(self.appearance.skin))
        frame_random = np.random.default_rng(self._grain + index)
        return (image * 255 + frame_random.normal(0, noise, image.shape)).round().clip(0, 255).astype(np.uint8)


def make_person(
    model: HeadModel, video: Path, *, seed: int, frames: int = 75, yaw: float = 35.0, occluder: bool = False
) -> KnownPerson:
    """Render a video and return it with its ground truth; `yaw` is the maximum rotation to either side in degrees."""
    scene = Scene(model, seed, frames, yaw)
    with av.open(str(video), "w") as container, ThreadPoolExecutor(2) as pool:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for image in pool.map(lambda index: scene.image(index, occluder=occluder), range(frames)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return KnownPerson(video, scene.truth)


def _performance(model: HeadModel, random: np.random.Generator, frames: int, yaw: float, still: bool) -> Track:
    def drift(sigma: float, columns: int) -> np.ndarray:
        """(F, columns) in about [-1, 1], smooth over time unless the frames are independent."""
        if still:
            return random.uniform(-1, 1, (frames, columns))
        walk = gaussian_filter1d(random.normal(size=(frames + 200, columns)), sigma, axis=0)[100 : frames + 100]
        return walk / np.abs(walk).max(0)

    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    identity[:IDENTITIES] = random.normal(0, 0.6, IDENTITIES)
    expression = np.zeros((frames, len(model.expression_names)), np.float32)
    for name, curve in zip(_MOVING, drift(5.0, len(_MOVING)).T, strict=True):
        columns = [
            index
            for index, known in enumerate(model.expression_names)
            if known in (name, name + "Left", name + "Right")
        ]
        expression[:, columns] = (0.8 * np.clip(curve - 0.25, 0, 1))[:, None]
    time = np.arange(frames)
    for blink in range(int(random.integers(8, 20)), frames, 30):
        for side in ("Left", "Right"):
            column = model.expression_names.index(f"eyeBlink{side}")
            expression[:, column] = np.maximum(expression[:, column], np.clip(1.35 - np.abs(time - blink) / 2.6, 0, 1))
    rotations = np.zeros((frames, 5, 3), np.float32)
    rotations[:, JAW, 0] = 0.22 * np.clip(drift(3.0, 1)[:, 0], 0, 1)
    gaze = np.radians((8, 18)) * drift(6.0, 2)
    rotations[:, EYE_L, :2] = rotations[:, EYE_R, :2] = gaze
    # A full sweep to either side, so that every clip reaches the maximum yaw.
    sway = np.sin(2 * np.pi * (time / frames * 1.5 + random.uniform())) if not still else drift(0.0, 1)[:, 0]
    head_angles = np.radians(np.stack((yaw * sway, 14 * drift(12.0, 1)[:, 0], 7 * drift(14.0, 1)[:, 0]), 1))
    rotations[:, NECK] = Rotation.from_euler("YXZ", head_angles).as_rotvec()
    focal = float(np.exp(random.uniform(np.log(750), np.log(1700))))
    camera = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    camera[:, :3, :3] = (
        np.diag((1.0, -1.0, -1.0)) @ Rotation.from_rotvec(np.radians(random.normal(0, 3, 3))).as_matrix()
    )
    camera[:, :3, 3] = (0, 0.0, focal * _DISTANCE_SCALE * 0.33 / SIZE) + 0.008 * drift(10.0, 3)
    intrinsics = np.array(((focal, 0, SIZE / 2), (0, focal, SIZE / 2), (0, 0, 1)), np.float32)
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=identity,
        expression=expression,
        rotations=rotations,
        head_to_camera=camera,
        intrinsics=intrinsics,
        size=SIZE,
        fps=Fraction(FPS),
        residual=np.zeros(frames, np.float32),
        flags=np.zeros(frames, np.int32),
        training_count=frames,
    )


def _random_appearance(random: np.random.Generator, seed: int) -> Appearance:
    skin = np.array((0.86, 0.68, 0.58)) * random.uniform(0.45, 1.05) * random.uniform(0.95, 1.05, 3)
    hair = np.array((0.30, 0.20, 0.13)) * random.uniform(0.25, 1.8)
    return Appearance(
        skin=tuple(skin),
        hair=tuple(hair),
        lips=tuple(skin * (0.82, 0.6, 0.66)),
        iris=tuple(random.uniform(0.15, 0.5, 3)),
        cloth=tuple(random.uniform(0.1, 0.6, 3)),
        hair_length=random.uniform(0.012, 0.028),
        stubble=random.uniform(0, 0.9),
        hairline=random.uniform(-2, 8),
        seed=seed,
    )


def _lights(random: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each light the unit direction towards it in camera space, and its colour."""
    sides = random.choice((-1.0, 1.0))
    key = np.array((sides * random.uniform(0.2, 1.0), -random.uniform(0.2, 0.8), -0.8))
    fill = np.array((-sides * 0.8, -0.1, -0.6))
    return [
        (light / np.linalg.norm(light), strength * random.uniform(0.9, 1.0, 3))
        for light, strength in ((key, random.uniform(0.6, 1.0)), (fill, random.uniform(0.1, 0.5)))
    ]


def _bake(painted: Painted) -> np.ndarray:
    """(_TEXTURE, _TEXTURE, 4): linear colour and gloss over the head's uv."""
    model = painted.model
    flat = np.concatenate((model.uv * _TEXTURE, np.ones((len(model.uv), 1))), 1)
    raster = rasterize_mesh(flat, model.uv_faces, np.eye(3), _TEXTURE, _TEXTURE)
    normals = vertex_normals(torch.as_tensor(model.template)[None], torch.as_tensor(model.faces.astype(np.int64)))[
        0
    ].numpy()
    sampled = interpolate(raster, model.faces, np.concatenate((model.template, normals[:, 2:], painted.material), 1))[
        raster.covered
    ]
    colour, gloss = albedo(painted, sampled[:, :3].astype(np.float64), sampled[:, 3], sampled[:, 4:])
    texture = np.zeros((_TEXTURE, _TEXTURE, 4), np.float32)
    texture[raster.covered] = np.concatenate((colour.clip(0, 1) ** 2.2, gloss[:, None]), 1)
    # Extend the colours beyond the edges of the UV charts, so that interpolation at a seam samples skin.
    for _ in range(6):
        empty = texture[..., 3] == 0
        texture[empty] = cv2.dilate(texture, np.ones((3, 3), np.uint8))[empty]
    return texture


def _render(
    painted: Painted,
    texture: np.ndarray,
    points: np.ndarray,
    hair: np.ndarray,
    grows: np.ndarray,
    torso: tuple[np.ndarray, np.ndarray],
    intrinsics: np.ndarray,
    lights: list[tuple[np.ndarray, np.ndarray]],
    background: np.ndarray,
    oversampling: int,
) -> np.ndarray:
    model, hair_colour, cloth = painted.model, np.array(painted.appearance.hair), np.array(painted.appearance.cloth)
    large = SIZE * oversampling
    scale = intrinsics.astype(np.float64) * np.array([[oversampling], [oversampling], [1.0]])
    canvas = cv2.resize(background, (large, large)) ** 2.2
    nearest = np.full((large, large), np.inf, np.float32)

    def draw(vertices: np.ndarray, faces: np.ndarray, colour_of: object, values: np.ndarray) -> None:
        raster = rasterize_mesh(vertices, faces, scale, large, large)
        where = raster.covered & (raster.depth < nearest)
        index, weights = raster.face_index[where], raster.barycentric[where]
        triangles = faces[index]
        attributes = np.concatenate((_normals(vertices, faces), vertices, values), 1).astype(np.float32)
        sampled = sum(attributes[triangles[:, k]] * weights[:, k, None] for k in range(3))
        colour, gloss = colour_of(index, weights, sampled[:, 6:])
        canvas[where] = _light(colour, gloss, sampled[:, :3], sampled[:, 3:6], lights)
        nearest[where] = raster.depth[where]

    def skin(index: np.ndarray, weights: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        position = (model.uv[model.uv_faces[index]] * weights[..., None]).sum(1) * _TEXTURE - 0.5
        rows = -len(position) % 1024
        position = np.pad(position.astype(np.float32), ((0, rows), (0, 0))).reshape(-1, 1024, 2)
        sampled = cv2.remap(texture, position, None, cv2.INTER_LINEAR).reshape(-1, 4)[: len(index)]
        # An eyeball is 26 texels wide in the texture and its iris only four, so its colour is computed for each pixel.
        eye = (painted.material[model.faces[index], 0] > 0.5).all(1)
        if eye.any():
            rest = (model.template[model.faces[index[eye]]] * weights[eye, :, None]).sum(1).astype(np.float64)
            sampled[eye, :3], sampled[eye, 3] = eye_colour(painted, rest).clip(0, 1) ** 2.2, EYE_GLOSS
        return sampled[:, :3], sampled[:, 3]

    def strands(index: np.ndarray, weights: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        around = np.arctan2(values[:, 0], values[:, 2] + 0.05)
        streak = 1 + 0.25 * np.sin(70 * around + 9 * np.sin(60 * values[:, 1]))
        return (hair_colour**2.2 * streak[:, None]).astype(np.float32), np.full(len(index), 0.3, np.float32)

    def shirt(index: np.ndarray, weights: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.tile((cloth**2.2).astype(np.float32), (len(index), 1)), np.zeros(len(index), np.float32)

    draw(points, model.faces, skin, np.zeros((len(points), 0)))
    draw(hair, model.faces[(grows[model.faces] > 0.3).all(1)], strands, model.template)
    draw(*torso, shirt, np.zeros((len(torso[0]), 0)))
    return cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA).clip(0, 1) ** (1 / 2.2)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return vertex_normals(
        torch.as_tensor(vertices, dtype=torch.float32)[None], torch.as_tensor(faces.astype(np.int64))
    )[0].numpy()


def _light(
    colour: np.ndarray,
    gloss: np.ndarray,
    normal: np.ndarray,
    position: np.ndarray,
    lights: list[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Linear colours (P, 3) of the surface points, lit by the sky and the lights."""
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-9)
    view = -position / np.linalg.norm(position, axis=1, keepdims=True)
    normal = np.where((normal * view).sum(1, keepdims=True) < 0, -normal, normal)
    total = colour * _sky(normal)
    for towards, strength in lights:
        diffuse = _diffuse(normal, towards)
        half = towards + view
        shine = np.clip((normal * half).sum(1) / np.linalg.norm(half, axis=1), 0, 1) ** np.where(gloss > 1, 200, 24)
        total = total + (colour * diffuse + (0.22 * gloss * shine)[:, None]) * strength
    return total.astype(np.float32)


def _sky(normal: np.ndarray) -> np.ndarray:
    """(..., 1) the irradiance by the sky of surfaces with these normals (..., 3)."""
    return 0.30 - 0.12 * normal[..., 1:2]


def _diffuse(normal: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """(..., 1) the irradiance by a lamp of strength 1, which is a little larger than a point."""
    return np.clip((normal @ towards + 0.1) / 1.1, 0, None)[..., None]


def _draw_hand(image: np.ndarray, time: float, skin: np.ndarray) -> None:
    """Draw a hand that moves in front of the mouth and away again, in place; `time` in [0, 1]."""
    height = SIZE * (0.62 + 0.9 * abs(time - 0.5) / 0.25)
    if height > 1.3 * SIZE:
        return
    mask = np.zeros(image.shape[:2], np.float32)
    for finger in range(4):
        foot = np.array((0.40 + 0.055 * finger, height / SIZE + 0.20)) * SIZE
        tip = foot + np.array((0.01 * (finger - 1.5), -0.22 + 0.02 * abs(finger - 1.5))) * SIZE
        cv2.line(mask, tuple(foot.astype(int).tolist()), tuple(tip.astype(int).tolist()), 1.0, 25, cv2.LINE_AA)
    cv2.ellipse(mask, (int(0.48 * SIZE), int(height + 0.26 * SIZE)), (62, 70), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    shade = cv2.GaussianBlur(mask, (0, 0), 8)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.2)[..., None]
    image[:] = image * (1 - mask) + mask * (skin * (0.55 + 0.4 * shade[..., None]))
