"""Cutting the body away below the rig's neck, in one frame's matte of the person.

The neck ends in a ring of vertices at its base (`neck_end`), whose position in 3D comes from the track. The ring lies
in a plane. Its front edge, extended sideways in that plane at the ring's depth, is the upper edge of the torso, and the
torso hangs from it along the plane's normal. Everything that the posed head covers in front of the torso is head: a
chin over the collar when the head looks down, an ear over the shoulder. A cut along an image row would cut these off.

Shoulders and collars rise a little above that edge beside the neck, where long hair hangs too. They differ in what is
above them: a shoulder soon ends at background or head, and hair continues upwards. At its base the rig's neck flares
out over the slope of the shoulders and over collars. There the neck is continued as a prism, no wider than above the
flare, unless hair hangs beside it.

Before the throat of a head that is turned aside lie chest and shoulder. They rise above the torso's edge, because the
ring's plane falls to the front, and end below the face. Hair there falls from the far temple, beside the face.
"""

from __future__ import annotations

import cv2
import numpy as np

from ...errors import EffigyError
from ...head.forward import Head
from ...head.model import HeadModel
from ...head.neck_end import neck_end
from ...splatting.mesh import nearest_faces

_TORSO_EXTENT = 0.6
"""Metres by which the torso extends to either side, and downwards."""
_SHOULDER_RISE = 0.06
"""Metres that a shoulder may rise above the torso's edge; what rises farther is hair."""
_FLARE_HEIGHT = 0.035
"""Metres above the ring up to which the rig's neck flares out."""
_BACKGROUND_MATTE = 20
"""Matte values up to this count as background when searching the shoulder's upper end."""
_HAIR_GAP = 0.05
"""Share of the image's side: a gap between neck and hair that is no wider counts as hair."""
_RIM = 0.015
"""Share of the image's side: faint matte within this distance of the head is its rim of hair."""
_DILATION = 0.008
"""Share of the image's side by which the protected head is dilated, because hair and tracking errors reach beyond the
mesh."""
_SOFTNESS = 0.004
"""Standard deviation of the cut's soft edge, as a share of the image's side."""
_TURNED = np.cos(np.radians(25))
"""Share of the direction from ears to lips that points along the camera's axis, below which a head counts as turned
aside. At smaller angles hair before the throat hangs on either side of the face."""
_HAIR_BESIDE_FACE = 0.012
"""Share of the image's side: the width of hair beside the face from which what hangs below it is hair."""
_CHEST_RISE = 0.18
"""Metres that the chest may rise above the torso's edge before the chin."""
_NECK, _FLARE, _ABOVE_NECK = 1, 2, 3
"""Kinds of the rig's triangles; those of the neck up to `_FLARE_HEIGHT` are its flare."""


class NeckCutter:
    """Cuts the body away below the neck of one head model."""

    def __init__(self, model: HeadModel) -> None:
        if len(model.regions["boundary"]) < 3:
            raise EffigyError(
                f"The head model {model.name} has no open edge at its neck, so the body cannot be cut away."
            )
        self.head = Head(model)
        corners = model.template[model.faces].astype(np.float64)
        volume = np.linalg.det(corners).sum()
        # Counter-clockwise seen from outside, whatever the model's orientation, so that the inner side of the head,
        # visible through the open neck, can be excluded.
        self._faces = np.ascontiguousarray(model.faces if volume > 0 else model.faces[:, ::-1], np.int32)
        self._ring = neck_end(model)
        neck = np.zeros(len(model.template), bool)
        neck[model.regions["neck"]] = True
        neck[self._ring] = True
        ring = model.template[self._ring].astype(np.float64)
        up = np.linalg.svd(ring - ring.mean(0))[2][2]
        height = (model.template - ring.mean(0)) @ up * np.sign((model.template.mean(0) - ring.mean(0)) @ up)
        # One entry more at the end, for the index -1 of pixels without a triangle.
        self._kind = np.append(np.full(len(model.faces), _NECK, np.uint8), np.uint8(0))
        self._kind[:-1][~neck[model.faces].any(1)] = _ABOVE_NECK
        self._kind[:-1][(neck & (height < _FLARE_HEIGHT))[model.faces].any(1)] = _FLARE
        if self._ring is not model.regions["boundary"]:
            self._kind[:-1][(height < 0)[model.faces].all(1)] = 0
        self._lips, self._ears = model.regions["lips"], model.regions["ears"]
        self._waist = np.flatnonzero(neck & (height >= _FLARE_HEIGHT) & (height < _FLARE_HEIGHT + 0.015))

    def cut(self, matte: np.ndarray, vertices: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
        """The part of `matte` (H, W) uint8 that is head and neck.

        `vertices` (N, 3) are the posed head in camera space, metres; `intrinsics` (3, 3) belong to the matte's size.
        """
        if not np.isfinite(vertices).all():
            return np.zeros_like(matte)
        height, width = matte.shape
        torso = self._torso(vertices, intrinsics, width, height)
        kind = self._kind.take(
            nearest_faces(vertices, self._faces, intrinsics, width, height, front_only=True), mode="wrap"
        )
        covered = kind > 0
        dilation = 2 * round(_DILATION * width) + 1
        head = cv2.dilate(
            (kind == _ABOVE_NECK).view(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (dilation, dilation))
        )
        flare = (kind == _FLARE) & (self._prism(vertices, intrinsics, width, height) == 0)
        rise = round(_SHOULDER_RISE * intrinsics[1, 1] / vertices[self._ring, 2].mean())
        person = (matte > _BACKGROUND_MATTE) & (head == 0)
        top = int(torso.any(1).argmax())
        edge = np.where(torso[top:].any(0), top + cv2.reduceArgMax(torso[top:], 0)[0], height)
        body, gap = person & ~covered, round(_HAIR_GAP * width)
        hair = _hair_columns(edge, body, covered, rise, gap)
        chest = self._before_the_throat(vertices, intrinsics, width)
        if chest.any():
            face = self._face_row(vertices, intrinsics)
            chest &= ~_reaching(edge, person & ~covered, hair & chest, face, round(_HAIR_BESIDE_FACE * width))
            hair &= ~chest
        collar = _pieces_without_hair(flare, hair, gap)
        torso |= collar | _shoulders(edge, body | (person & (collar > 0)), hair, rise, dilation)
        if chest.any():
            torso |= _shoulders(edge, body, ~chest, round(rise * _CHEST_RISE / _SHOULDER_RISE), dilation)
        kept = _connected(1 - torso * (1 - head), matte, head)
        return _with_soft_edge(matte, kept)

    def _before_the_throat(self, vertices: np.ndarray, intrinsics: np.ndarray, width: int) -> np.ndarray:
        """(W,) bool: the columns before the throat of a head that is turned aside; none for other heads."""
        columns = np.zeros(width, bool)
        if min(len(self._waist), len(self._lips), len(self._ears)) < 3:
            return columns
        forward = vertices[self._lips].mean(0) - vertices[self._ears].mean(0)
        # The chin's fall does not turn the head.
        forward[1] = 0
        if abs(forward[2]) > _TURNED * np.linalg.norm(forward):
            return columns
        side = np.sign(forward[0])
        waist = vertices[self._waist]
        throat = waist[(side * waist[:, 0]).argmax()]
        start = round(float(intrinsics[0, 0] * throat[0] / throat[2] + intrinsics[0, 2] - 0.5))
        if side > 0:
            columns[max(start, 0) :] = True
        else:
            columns[: max(start + 1, 0)] = True
        return columns

    def _face_row(self, vertices: np.ndarray, intrinsics: np.ndarray) -> int:
        """The row halfway between lips and ears."""
        middle = (vertices[self._lips].mean(0) + vertices[self._ears].mean(0)) / 2
        return round(float(intrinsics[1, 1] * middle[1] / middle[2] + intrinsics[1, 2] - 0.5))

    def _prism(self, vertices: np.ndarray, intrinsics: np.ndarray, width: int, height: int) -> np.ndarray:
        """(H, W) uint8: the neck above its flare, continued downwards."""
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
        """(H, W) uint8: everything below the ring's front edge and its extension to both sides."""
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
        # Depth and height of the ring's front half as functions of `across`. Seen from above or below, the front half
        # hides the rear half or is hidden by the body that hangs from it.
        positions = np.linspace(left_end, right_end, 16)
        ends = towards[across.argmin()], towards[across.argmax()]
        chosen = towards >= np.interp(across, [left_end, right_end], ends) - 1e-9
        order = np.argsort(across[chosen])
        depth = np.interp(positions, across[chosen][order], towards[chosen][order])
        height_off = np.interp(positions, across[chosen][order], ((ring - centre) @ up)[chosen][order])
        curve = centre + positions[:, None] * right + depth[:, None] * front + height_off[:, None] * up
        edge = np.concatenate([[curve[0] - _TORSO_EXTENT * right], curve, [curve[-1] + _TORSO_EXTENT * right]])
        outline = np.concatenate([edge, edge[::-1] - _TORSO_EXTENT * up])
        outline[:, 2] = np.maximum(outline[:, 2], 0.05)
        pixels = outline @ intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        torso = np.zeros((height, width), np.uint8)
        cv2.fillPoly(torso, [np.round((pixels - 0.5).clip(-1e4, 1e4) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
        return torso


def _with_soft_edge(matte: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`matte` (H, W) uint8 where `kept` (H, W) uint8 is 1 and black elsewhere, with a soft edge between the two."""
    sigma = _SOFTNESS * matte.shape[1]
    # The blur changes only rows that are kept in part, and rows near them.
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
    """(W,) bool: the columns in which hair hangs over the torso.

    There the person continues upwards for more than `rise` pixels from the torso's edge (W,). `body` (H, W) bool is the
    person outside the rig, `covered` (H, W) bool the rig. Gaps between neck and hair, or hair and hair, that are no
    wider than `gap` count as hair.
    """
    height, width = body.shape
    continues = _above(edge, body, rise)[0].all(0) & (edge < height)
    neck = covered[(edge - 2).clip(0, height - 1), np.arange(width)]
    padded = np.pad((continues | neck).astype(np.uint8), gap)[None]
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((1, gap), np.uint8))[0, gap:-gap] > 0
    # Single columns of hair between shoulders would look like streaks.
    return (cv2.blur(closed.astype(np.float32)[None], (gap // 2 * 2 + 1, 1))[0] > 0.5) & closed & ~(neck & ~continues)


def _above(edge: np.ndarray, body: np.ndarray, rise: int) -> tuple[np.ndarray, np.ndarray]:
    """The `rise` pixels of `body` (H, W) bool above the torso's edge (W,).

    Returns them upwards, (rise, W) bool, and their indices in the flattened image, (rise, W).
    """
    height, width = body.shape
    rows = edge - np.arange(1, rise + 1)[:, None]
    indices = rows.clip(0, height - 1) * width + np.arange(width)
    return body.reshape(-1).take(indices) & (rows >= 0), indices


def _reaching(edge: np.ndarray, body: np.ndarray, columns: np.ndarray, row: int, width: int) -> np.ndarray:
    """(W,) bool: the runs of neighbouring `columns` (W,) bool, of which at least `width` show the person without a gap
    from the torso's edge (W,) up to `row`.
    """
    rise = max(int(edge[edge < len(body)].max(initial=row)) - row, 1)
    above = _above(edge, body, rise)[0] | (edge - np.arange(1, rise + 1)[:, None] < row)
    runs = cv2.connectedComponents(columns.astype(np.uint8)[None])[1][0]
    tall = np.bincount(runs[columns & above.all(0)], minlength=runs.max() + 1) >= width
    return columns & tall[runs]


def _shoulders(edge: np.ndarray, body: np.ndarray, hair: np.ndarray, rise: int, smoothing: int) -> np.ndarray:
    """(H, W) uint8: up to `rise` pixels of the person directly above the torso's edge (W,), except in `hair` columns
    (W,).
    """
    above, indices = _above(edge, body, rise)
    standing = np.logical_and.accumulate(above, 0)
    found = np.zeros(body.shape, np.uint8)
    standing &= ~hair & (edge < len(body))
    found.reshape(-1)[indices[standing]] = 1
    # The shoulder's soft edge extends above it.
    return cv2.dilate(found, np.ones((smoothing, 3), np.uint8))


def _pieces_without_hair(flare: np.ndarray, hair: np.ndarray, gap: int) -> np.ndarray:
    """(H, W) uint8: the connected pieces of the flare that have no hair beside them."""
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
    """`kept` (H, W) uint8 without the pieces of the person that are not connected to the head, and their faint rims.

    Such pieces are what the cut leaves of a shoulder.
    """
    person = kept * (matte > 64).view(np.uint8)
    filled = person.copy()
    # The pieces that contain a pixel of the head are filled with 2, until no pixel of the head is a 1.
    while (seeds := head & filled).ravel().view(bool)[(seed := int(seeds.argmax()))]:
        row, column = divmod(seed, filled.shape[1])
        cv2.floodFill(filled, None, (column, row), 2)
    belonging = (filled == 2).view(np.uint8)
    rim = np.ones((2 * round(_RIM * matte.shape[1]) + 1,) * 2, np.uint8)
    # Around the connected pieces, faint matte stays as it is.
    return kept * (belonging | ((person == 0) & (cv2.dilate(belonging, rim) > 0)))
