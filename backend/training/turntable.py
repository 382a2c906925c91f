"""Turntable videos and expression sheets: the avatar from all sides and with each expression at its maximum.

Both show an avatar beyond the views and expressions of its clip, for visual inspection.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.transform import Rotation

from ..avatar.avatar import Avatar
from ..avatar.render import draw, render_track
from ..errors import EffigyError
from ..formats.image_files import to_bytes, write_png
from ..formats.track import Track
from ..head.jaw import JAW_SHAPES, jaw_rotations_of_shapes
from ..head.model import JAW, HeadModel
from ..progress import SILENT, Progress
from ..storage import write_beside

ORBIT_FRAMES = 150
ORBIT_PITCH = 20.0
"""Degrees up and down."""
FPS = Fraction(25)
FIELD_OF_VIEW = 20.0
"""Degrees; the angle of a portrait lens, with which clips of heads are typically filmed."""
MARGIN = 1.15
"""Width of the image divided by the width of the head."""
COEFFICIENT = 3.0
"""Maximum of a FLAME coefficient, in standard deviations of FLAME's training scans. Named shapes go to 1."""
COLUMNS = 9
LINE = 18
"""Pixels of a line above a tile."""
WHITE = (1.0, 1.0, 1.0)
GREY = (40, 40, 40)


def render_orbit(avatar: Avatar, out: Path, *, size: int, degrees: float = 45.0, progress: Progress = SILENT) -> int:
    """Render an MP4 of the resting head from a camera that swings by `degrees` to each side, then up and down.

    Returns the number of frames.
    """
    if Path(out).suffix.lower() != ".mp4":
        raise EffigyError(f"An orbit is a video: give a name that ends in .mp4, not {Path(out).name}.")
    if not 0 < degrees <= 180:
        raise EffigyError(
            f"The camera cannot go {degrees:g} degrees to each side: choose more than 0, and 180 at most."
        )
    swing = np.sin(np.linspace(0, 2 * math.pi, ORBIT_FRAMES // 2, endpoint=False))
    still = np.zeros_like(swing)
    yaw, pitch = np.concatenate([degrees * swing, still]), np.concatenate([still, ORBIT_PITCH * swing])
    return render_track(
        avatar, orbit_track(avatar, yaw, pitch), out, size=size, fmt="mp4", background="#ffffff", progress=progress
    )


def render_extremes(avatar: Avatar, out: Path, *, size: int = 192, progress: Progress = SILENT) -> int:
    """Render one PNG of labelled heads, at rest and with each single expression at its maximum.

    Returns the number of heads.
    """
    if Path(out).suffix.lower() != ".png":
        raise EffigyError(f"The expressions are one image: give a name that ends in .png, not {Path(out).name}.")
    names = avatar.head_model.expression_names
    count = 1 + len(names)
    expression, rotations = extreme_expressions(avatar.head_model)
    # Slightly from the side, where the shapes of nose and lips are visible.
    track = orbit_track(avatar, np.full(count, 12.0), np.zeros(count), expression, rotations)
    tiles = []
    for index, name in enumerate(("at rest", *names)):
        progress.raise_if_cancelled()
        # Rendered at twice the size: at the tile's own size the Gaussians would be smaller than a pixel.
        image = to_bytes(draw(avatar, track, [index], 2 * size)[0].over(WHITE))
        tiles.append(labelled_tile(image, size, name))
        progress.update("Expressions", index + 1, count)
    with write_beside(Path(out), durable=False) as temporary:
        write_png(temporary, grid_of(tiles, COLUMNS))
    return count


def labelled_tile(image: np.ndarray, size: int, *lines: str, color: tuple[int, int, int] = GREY) -> np.ndarray:
    """(H, W, 3) uint8 -> the image at `size` x `size` below one or more centred lines."""
    title = LINE * len(lines)
    tile = Image.new("RGB", (size, size + title), (255, 255, 255))
    tile.paste(Image.fromarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)), (0, title))
    for index, line in enumerate(lines):
        place = (size / 2, LINE * (index + 0.5))
        ImageDraw.Draw(tile).text(place, line, color, ImageFont.load_default(12), anchor="mm")
    return np.asarray(tile)


def grid_of(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    """Tiles of one size, row by row; the last row is filled up with white."""
    tiles = tiles + [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[row : row + columns], 1) for row in range(0, len(tiles), columns)])


def extreme_expressions(model: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """(1 + E, E) expressions and (1 + E, 5, 3) rotations: at rest, then each expression at its maximum.

    The jaw's shapes become rotations of the jaw joint, as in a track (`backend.head.jaw`).
    """
    size = len(model.expression_names)
    end = min(float(model.expression_range[1]), COEFFICIENT)
    expression = np.concatenate([np.zeros((1, size)), end * np.eye(size)]).astype(np.float32)
    rotations = np.zeros((1 + size, 5, 3), np.float32)
    jaw = jaw_rotations_of_shapes(model)
    for row, name in enumerate(model.expression_names, start=1):
        if name in JAW_SHAPES:
            expression[row] = 0
            rotations[row, JAW] = jaw[name]
        elif name == "mouthClose":
            # It closes the lips of an open jaw, and does nothing over a shut one.
            rotations[row, JAW] = jaw["jawOpen"]
    return expression, rotations


def orbit_track(
    avatar: Avatar,
    yaw: np.ndarray,
    pitch: np.ndarray,
    expression: np.ndarray | None = None,
    rotations: np.ndarray | None = None,
) -> Track:
    """A track of the avatar's own head, at rest or as given, rendered by a camera that orbits around it.

    `yaw` and `pitch` (F,) are the camera's angles from the front in degrees, positive to the person's left and upwards.
    """
    frames, model = len(yaw), avatar.head_model
    vertices = avatar.shaped.vertices[0].cpu().numpy()
    low, high = vertices.min(0), vertices.max(0)
    middle, width = (low + high) / 2, float((high - low)[:2].max())
    distance = MARGIN * width / 2 / math.tan(math.radians(FIELD_OF_VIEW / 2)) + float(high[2] - low[2]) / 2
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    orbit = Rotation.from_euler("XY", np.stack((pitch, -yaw), 1), degrees=True).as_matrix()
    # To OpenCV's axes: y down, z away from the camera.
    to_camera = np.diag([1.0, -1, -1]) @ orbit
    cameras[:, :3, :3] = to_camera
    cameras[:, :3, 3] = np.array([0, 0, distance]) - to_camera @ middle
    size = avatar.settings.size
    focal = size / 2 / math.tan(math.radians(FIELD_OF_VIEW / 2))
    shape = (frames, len(model.expression_names))
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=avatar.identity,
        expression=np.zeros(shape, np.float32) if expression is None else expression,
        rotations=np.zeros((frames, 5, 3), np.float32) if rotations is None else rotations,
        head_to_camera=cameras.astype(np.float32),
        intrinsics=np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], np.float32),
        size=size,
        fps=FPS,
        residual=np.zeros(frames, np.float32),
        flags=np.zeros(frames, np.int32),
        training_count=0,
    )
