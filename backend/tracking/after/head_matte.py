"""Which pixels of the person are head and neck: the matte without the body below the rig's neck.

The rig ends in a ring at the base of the neck, so the body below it can neither be modelled nor scored. Where it begins
is known in 3D from the track. The ring lies in a plane; its front edge, carried on sideways in that plane at the ring's
own depth, is the upper edge of the torso, and the torso hangs from it along the plane's normal. Whatever the posed head
covers in front of that is head: a chin over the collar when the head looks down, an ear over the shoulder. A cut by
image rows would bite it off.

Shoulders and collars climb a little above that edge beside the neck, where long hair hangs too. They differ in what is
above them: a shoulder ends soon, in background or at the head, and hair goes on. At its base the rig's neck flares out
over the slope of the shoulders and over collars; there the neck is taken to go on as a prism, no wider than above the
flare, unless hair hangs beside it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from ...errors import EffigyError
from ...footage.plate import find_plate
from ...formats.capture import PNG_FAST, Capture, read_frame, read_matte
from ...formats.track import Track
from ...head.forward import Head
from ...head.model import HeadModel
from ...progress import SILENT, Progress
from ...splatting.mesh import nearest_faces
from ...storage import write_beside

_WIDTH = 0.6
"""Metres that the torso reaches to either side, and down."""
_SHOULDER = 0.06
"""Metres that a shoulder may rise above the torso's edge; what rises farther is hair."""
_FLARE = 0.035
"""Metres above the ring up to which the rig's neck flares out."""
_FAINT = 20
"""Matte values up to this are background when looking for the shoulder's upper end."""
_GAP = 0.05
"""Share of the picture's side that may lie between neck and hair and is taken for hair."""
_RIM = 0.015
"""Share of the picture's side around the head in which faint matte is its rim: hair."""
_DILATION = 0.008
"""Share of the picture's side by which the protected head is grown: hair and tracking are a little wider than the
mesh."""
_SOFTNESS = 0.004
"""Standard deviation of the cut's soft edge, as a share of the picture's side."""
_BATCH = 64
_RIG, _FLARING, _ABOVE_NECK = 1, 2, 3
"""What a triangle of the rig is; those of the neck below its flare's upper end count as flaring."""


def make_head_mattes(capture: Capture, track: Track, model: HeadModel, progress: Progress = SILENT) -> None:
    """Write `capture.head_matte_path(i)` for every frame: grey PNG, 255 = head or neck. A frame without a pose gets
    black. Those of an earlier track are replaced once all are made.
    """
    cutter, plate = NeckCutter(model), find_plate(capture)
    # A capture of the same crop at another size differs by a factor.
    factor = capture.size / track.size
    intrinsics = track.intrinsics * np.array([[factor], [factor], [1.0]])
    with (
        write_beside(capture.head_matte_path(0).parent) as folder,
        ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool,
    ):
        folder.mkdir()
        for start in range(0, capture.frame_count, _BATCH):
            frames = range(start, min(start + _BATCH, capture.frame_count))
            vertices = camera_vertices(cutter.head, track, frames)

            def write(index: int, vertices: np.ndarray = vertices, start: int = start) -> None:
                person = plate.remove_from(read_matte(capture, index), read_frame(capture, index))
                matte = cutter.cut(person, vertices[index - start], intrinsics)
                # Encoded here and not by cv2.imwrite, which fails without a reason and, on Windows, on many paths.
                encoded = cv2.imencode(".png", matte, PNG_FAST)[1]
                (folder / capture.head_matte_path(index).name).write_bytes(encoded.tobytes())

            for done, _ in enumerate(pool.map(write, frames), start + 1):
                progress.update("head mattes", done, capture.frame_count)
            progress.raise_if_cancelled()


def camera_vertices(head: Head, track: Track, frames: range) -> np.ndarray:
    """(len(frames), N, 3): the tracked head in the camera's space, metres."""
    chosen = slice(frames.start, frames.stop)
    with torch.no_grad():
        shaped = head.shaped(torch.as_tensor(track.identity, dtype=torch.float32)[None])
        expression = torch.as_tensor(track.expression[chosen], dtype=torch.float32)
        rotations = torch.as_tensor(track.rotations[chosen], dtype=torch.float32)
        posed = head(shaped, expression, rotations).vertices.numpy()
    pose = track.head_to_camera[chosen]
    return posed @ pose[:, :3, :3].swapaxes(1, 2) + pose[:, None, :3, 3]


class NeckCutter:
    """The parts of a head model that the cut needs, gathered once."""

    def __init__(self, model: HeadModel) -> None:
        if len(model.regions["boundary"]) < 3:
            raise EffigyError(
                f"The head model {model.name} has no open edge at its neck, so the body cannot be cut away."
            )
        self.head = Head(model)
        corners = model.template[model.faces].astype(np.float64)
        volume = np.linalg.det(corners).sum()
        # Counter-clockwise seen from outside, whichever way the model has them: what is seen through the open neck of
        # the head's inner side is no head.
        self._faces = np.ascontiguousarray(model.faces if volume > 0 else model.faces[:, ::-1], np.int32)
        self._ring = model.regions["boundary"]
        neck = np.zeros(len(model.template), bool)
        neck[model.regions["neck"]] = True
        neck[self._ring] = True
        ring = model.template[self._ring].astype(np.float64)
        up = np.linalg.svd(ring - ring.mean(0))[2][2]
        height = (model.template - ring.mean(0)) @ up * np.sign((model.template.mean(0) - ring.mean(0)) @ up)
        # One more at the end, which the index -1 of pixels that see no triangle meets.
        self._kind = np.append(np.full(len(model.faces), _RIG, np.uint8), np.uint8(0))
        self._kind[:-1][~neck[model.faces].any(1)] = _ABOVE_NECK
        self._kind[:-1][(neck & (height < _FLARE))[model.faces].any(1)] = _FLARING
        self._waist = np.flatnonzero(neck & (height >= _FLARE) & (height < _FLARE + 0.015))

    def cut(self, matte: np.ndarray, vertices: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
        """The part of `matte` (H, W) uint8 that is head and neck, given the posed head (N, 3) in the camera's space."""
        if not np.isfinite(vertices).all():
            return np.zeros_like(matte)
        height, width = matte.shape
        torso = self._torso(vertices, intrinsics, width, height)
        seen = self._kind.take(
            nearest_faces(vertices, self._faces, intrinsics, width, height, front_only=True), mode="wrap"
        )
        covered = seen > 0
        reach = 2 * round(_DILATION * width) + 1
        head = cv2.dilate(
            (seen == _ABOVE_NECK).view(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        )
        flare = (seen == _FLARING) & (self._prism(vertices, intrinsics, width, height) == 0)
        rise = round(_SHOULDER * intrinsics[1, 1] / vertices[self._ring, 2].mean())
        person = (matte > _FAINT) & (head == 0)
        top = int(torso.any(1).argmax())
        edge = np.where(torso[top:].any(0), top + cv2.reduceArgMax(torso[top:], 0)[0], height)
        body, gap = person & ~covered, round(_GAP * width)
        hair = _hair_columns(edge, body, covered, rise, gap)
        collar = _without_hair_beside(flare, hair, gap)
        torso |= collar | _shoulders(edge, body | (person & (collar > 0)), hair, rise, reach)
        kept = _connected(1 - torso * (1 - head), matte, head)
        return _softly_kept(matte, kept)

    def _prism(self, vertices: np.ndarray, intrinsics: np.ndarray, width: int, height: int) -> np.ndarray:
        """(H, W) uint8: the neck carried on downwards from above its flare."""
        prism = np.zeros((height, width), np.uint8)
        waist = vertices[self._waist].astype(np.float64)
        if len(waist) < 3:
            return prism + 1
        down = vertices[self._ring].mean(0) - waist.mean(0)
        corners = np.concatenate([waist, waist + 3 * down])
        pixels = corners @ intrinsics.T
        pixels = (pixels[:, :2] / np.maximum(pixels[:, 2:], 0.05) - 0.5).clip(-1e4, 1e4)
        cv2.fillConvexPoly(prism, cv2.convexHull(np.round(pixels).astype(np.int32)), 1)
        return prism

    def _torso(self, vertices: np.ndarray, intrinsics: np.ndarray, width: int, height: int) -> np.ndarray:
        """(H, W) uint8: what lies below the ring's front edge and its continuation to both sides."""
        ring = vertices[self._ring].astype(np.float64)
        centre = ring.mean(0)
        up = np.linalg.svd(ring - centre)[2][2]
        up *= np.sign(up @ (vertices.mean(0) - centre)) or 1.0
        right = np.cross(centre, up)
        right /= np.linalg.norm(right)
        front = np.cross(right, up)
        front *= -np.sign(front @ centre) or 1.0
        across, towards = (ring - centre) @ right, (ring - centre) @ front
        left_end, right_end = across.min(), across.max()
        # The ring's front half as a function of `across`: seen from above or below, it hides the rear half or is hidden
        # by the body that hangs from it.
        places = np.linspace(left_end, right_end, 16)
        ends = towards[across.argmin()], towards[across.argmax()]
        chosen = towards >= np.interp(across, [left_end, right_end], ends) - 1e-9
        order = np.argsort(across[chosen])
        depth = np.interp(places, across[chosen][order], towards[chosen][order])
        height_off = np.interp(places, across[chosen][order], ((ring - centre) @ up)[chosen][order])
        curve = centre + places[:, None] * right + depth[:, None] * front + height_off[:, None] * up
        edge = np.concatenate([[curve[0] - _WIDTH * right], curve, [curve[-1] + _WIDTH * right]])
        outline = np.concatenate([edge, edge[::-1] - _WIDTH * up])
        outline[:, 2] = np.maximum(outline[:, 2], 0.05)
        pixels = outline @ intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        torso = np.zeros((height, width), np.uint8)
        cv2.fillPoly(torso, [np.round((pixels - 0.5).clip(-1e4, 1e4) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
        return torso


def _softly_kept(matte: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`matte` (H, W) uint8 where `kept` (H, W) uint8 is 1, with the edge between 1 and 0 made soft."""
    sigma = _SOFTNESS * matte.shape[1]
    # Only rows where something is kept and something is not, or near such, are changed by the blur.
    whole = kept.min(1) > 0
    mixed = np.flatnonzero(~whole)
    if not len(mixed):
        return matte
    reach = int(np.ceil(5 * sigma)) + 2
    rows = slice(max(mixed[0] - 2 * reach, 0), mixed[-1] + 2 * reach)
    soft = cv2.GaussianBlur(kept[rows] * np.uint8(255), (0, 0), sigma)
    result = matte.copy()
    result[rows] = cv2.multiply(matte[rows], soft, scale=1 / 255)
    return result


def _hair_columns(edge: np.ndarray, body: np.ndarray, covered: np.ndarray, rise: int, gap: int) -> np.ndarray:
    """(W,) bool: where the person goes on upwards for more than `rise` pixels from the torso's edge (W,).

    `body` (H, W) bool is the person where the rig is not, `covered` where it is. Hair beside the neck ends at the head
    soon; what lies between neck and hair, or hair and hair, and is no wider than `gap`, is hair as well.
    """
    height, width = body.shape
    goes_on = _above(edge, body, rise)[0].all(0) & (edge < height)
    neck = covered[(edge - 2).clip(0, height - 1), np.arange(width)]
    padded = np.pad((goes_on | neck).astype(np.uint8), gap)[None]
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((1, gap), np.uint8))[0, gap:-gap] > 0
    # Single columns of hair between shoulders would be streaks.
    return (cv2.blur(closed.astype(np.float32)[None], (gap // 2 * 2 + 1, 1))[0] > 0.5) & closed & ~(neck & ~goes_on)


def _above(edge: np.ndarray, body: np.ndarray, rise: int) -> tuple[np.ndarray, np.ndarray]:
    """(rise, W) bool: `body` (H, W) bool upwards from above the torso's edge (W,), and where in the flat picture that
    is.
    """
    height, width = body.shape
    rows = edge - np.arange(1, rise + 1)[:, None]
    places = rows.clip(0, height - 1) * width + np.arange(width)
    return body.reshape(-1).take(places) & (rows >= 0), places


def _shoulders(edge: np.ndarray, body: np.ndarray, hair: np.ndarray, rise: int, smoothing: int) -> np.ndarray:
    """(H, W) uint8: what of the person stands on the torso's edge (W,), where it is no `hair` (W,), up to `rise`
    pixels.
    """
    above, places = _above(edge, body, rise)
    standing = np.logical_and.accumulate(above, 0)
    found = np.zeros(body.shape, np.uint8)
    standing &= ~hair & (edge < len(body))
    found.reshape(-1)[places[standing]] = 1
    # The shoulder's soft rim lies above its end.
    return cv2.dilate(found, np.ones((smoothing, 3), np.uint8))


def _without_hair_beside(flare: np.ndarray, hair: np.ndarray, gap: int) -> np.ndarray:
    """(H, W) uint8: those pieces of the flare beside which no hair hangs."""
    found = np.zeros(flare.shape, np.uint8)
    left, top, width, height = cv2.boundingRect(flare.view(np.uint8))
    box = slice(top, top + height), slice(left, left + width)
    if not width:
        return found
    count, labels = cv2.connectedComponents(np.ascontiguousarray(flare[box]).view(np.uint8), connectivity=8)
    for piece in range(1, count):
        columns = left + np.flatnonzero((labels == piece).any(0))
        if hair[max(columns[0] - gap, 0) : columns[-1] + gap + 1].sum() < gap / 2:
            found[box][labels == piece] = 1
    return found


def _connected(kept: np.ndarray, matte: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Without the pieces of the person that hang together with the head nowhere, and their faint rims: what the cut
    leaves of a shoulder.
    """
    person = kept * (matte > 64).view(np.uint8)
    filled = person.copy()
    # What hangs together with a pixel of the head is filled with 2, until no pixel of the head is a 1.
    while (seeds := head & filled).ravel().view(bool)[(seed := int(seeds.argmax()))]:
        row, column = divmod(seed, filled.shape[1])
        cv2.floodFill(filled, None, (column, row), 2)
    belonging = (filled == 2).view(np.uint8)
    rim = np.ones((2 * round(_RIM * matte.shape[1]) + 1,) * 2, np.uint8)
    # What is hardly the person stays as the matte has it around what is.
    return kept * (belonging | ((person == 0) & (cv2.dilate(belonging, rim) > 0)))
