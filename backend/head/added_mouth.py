"""A mouth inside for head models that end behind the lips, as FLAME does.

FLAME's surface has an opening within the mouth and nothing behind it. Three parts are added, once per topology:

- the mouth's wall, a funnel from the contour of the opening to a line deeper in the head (Gaussian Déjà-vu, supplement,
  figure 7), wide enough for the other two. It is connected to the lips, and follows them less and less with its depth;
- the open head's teeth and tongue, aligned as its regions are (`regions.align_heads`), with their skinning weights.

All of them follow the identity: as the skin around the mouth does, in the least-squares sense of a translation and a
scaling. Expressions and pose correctives move the wall only. Vertices, triangles and uv of the file stay the first
ones, with their indices and bases, so that coefficients keep their meaning. `HeadModel.added` counts the added
vertices, and the fingerprint ends in `model.ADDED_MOUTH`: tracks fit the head with and without its mouth
(`model.same_coefficients`), avatars and rigs only the one on which they were made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from .model import JAW, NECK, HeadModel
from .mouth import mouth_parts
from .regions import align_heads
from .topology import connected_parts, mesh_edges, neck_ring

RINGS: Final = 10
"""Of the wall's vertices behind the contour."""
CONTOUR_LEAST: Final = 8
"""Vertices; a smaller opening is a nick, not a mouth."""
NEAR_LIPS: Final = 0.025
"""Metres between the centres of the opening and of the lips."""
ROOM: Final = 0.004
"""Metres between the wall and the teeth and tongue that it encloses."""
END_WIDTH: Final = 0.4
"""Width of the line at the wall's end, in units of the contour's."""
AROUND: Final = 0.045
"""Metres from the contour's centre within which skin tells how the identity moves and scales the mouth."""
BOUND: Final = 0.5
"""Skinning weight of the jaw that some vertex must have, or the mouth could not open."""
STRIP: Final = 0.15
"""Height of the strip at the lower edge of the uv square that the mouth takes."""
ROUNDING: Final = 1e-6
"""Metres. The networks' graph is made from the mesh, so that its vertices are to be the same on every machine."""


def with_mouth(named: HeadModel, model: HeadModel) -> HeadModel:
    """`model` with a mouth inside, if it can open one and has none; teeth and tongue are those of `named`."""
    contour = mouth_contour(model)
    if not len(contour) or model.skinning[:, JAW].max() < BOUND or _has_parts_inside(model):
        return model
    carried, carried_faces, carried_uv = _carried(named)
    similarity = align_heads(named, model)
    inside = similarity.scale * named.template[carried] @ similarity.rotation.T + similarity.translation
    wall, share = _wall(model.template[contour].astype(np.float64), inside)
    points = np.concatenate((wall, inside))
    points = (np.round(points / ROUNDING) * ROUNDING).astype(np.float32)

    ring_of = np.tile(contour, RINGS)
    follows = np.concatenate((1 - share, np.zeros(len(inside))))[:, None, None].astype(np.float32)
    sources = np.concatenate((ring_of, np.full(len(inside), contour[0])))
    around = np.flatnonzero(np.linalg.norm(model.template - model.template[contour].mean(0), axis=1) < AROUND)
    moved = _scaled_along(model.template[around], model.shape_basis[around], points)
    # Towards its end the wall is bound to jaw and skull in equal parts.
    end = np.zeros(5, np.float32)
    end[[NECK, JAW]] = 0.5
    deep = (share**3)[:, None]
    first = len(model.template)
    faces = np.concatenate((model.faces, _wall_faces(contour, first), carried_faces + first + len(wall)))
    squeezed = model.uv * (1, 1 - STRIP) + (0, STRIP)
    wall_uv, wall_uv_faces = _wall_uv(len(contour))
    uv = np.concatenate((squeezed, wall_uv, carried_uv)).astype(np.float32)
    uv_faces = (
        model.uv_faces,
        wall_uv_faces + len(model.uv),
        carried_faces + len(model.uv) + len(wall_uv),
    )
    added = np.arange(first, first + len(points), dtype=np.int32)
    grown = lambda basis, rows: np.concatenate((basis, rows.astype(np.float32)))
    return replace(
        model,
        template=grown(model.template, points),
        shape_basis=grown(model.shape_basis, follows * model.shape_basis[sources] + (1 - follows) * moved),
        expression_basis=grown(model.expression_basis, follows**2 * model.expression_basis[sources]),
        pose_basis=grown(model.pose_basis, follows**2 * model.pose_basis[sources]),
        joint_regressor=np.pad(model.joint_regressor, ((0, 0), (0, len(points)))),
        skinning=np.concatenate(
            (model.skinning, (1 - deep) * model.skinning[ring_of] + deep * end, named.skinning[carried])
        ).astype(np.float32),
        faces=faces.astype(np.int32),
        uv=uv,
        uv_faces=np.concatenate(uv_faces).astype(np.int32),
        regions=model.regions | {"mouth_inside": np.concatenate((model.regions["mouth_inside"], added))},
        added=len(points),
    )


def mouth_contour(model: HeadModel) -> np.ndarray:
    """(C,) vertices of the opening behind the lips in the order of its edges, as the triangles at it have them; empty
    if there is none.
    """
    edges, counts = mesh_edges(model.faces)
    open_edges = edges[counts == 1]
    lips = model.template[model.regions["lips"]]
    if not len(open_edges) or not len(lips):
        return np.empty(0, np.int64)
    parts = connected_parts(open_edges, len(model.template))
    members = np.setdiff1d(open_edges, neck_ring(model.template, model.faces))
    for part in np.unique(parts[members]):
        loop = members[parts[members] == part]
        near = np.linalg.norm(model.template[loop].mean(0) - lips.mean(0)) < NEAR_LIPS
        if near and len(loop) >= CONTOUR_LEAST and len(ordered := _ordered(loop, model.faces)):
            return ordered
    return np.empty(0, np.int64)


def _ordered(loop: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The vertices of an open edge along the sides of the triangles at it; empty if it is no simple loop."""
    sides = np.concatenate((faces[:, (0, 1)], faces[:, (1, 2)], faces[:, (2, 0)])).astype(np.int64)
    sides = sides[np.isin(sides, loop).all(1)]
    inner = {(start, end) for start, end in sides.tolist()}
    following = {start: end for start, end in inner if (end, start) not in inner}
    found = [int(loop[0])]
    while len(found) <= len(loop) and (after := following.get(found[-1])) is not None and after != found[0]:
        found.append(after)
    is_simple = len(found) == len(loop) and following.get(found[-1]) == found[0]
    return np.array(found if is_simple else [], np.int64)


def _has_parts_inside(model: HeadModel) -> bool:
    """Whether teeth or a tongue are there already."""
    parts = mouth_parts(model)
    return bool(len(parts["teeth"]) or len(parts["tongue"]))


def _carried(named: HeadModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Teeth and tongue of a head: their M vertices, triangles as indices of these, and uv (M, 2) in the strip, where
    they lie as seen from above, the upper teeth beside the rest.
    """
    parts = mouth_parts(named)
    vertices = np.sort(np.concatenate((parts["teeth"], parts["tongue"])))
    local = np.full(len(named.template), -1)
    local[vertices] = np.arange(len(vertices))
    faces = local[named.faces]
    pieces = connected_parts(mesh_edges(named.faces)[0], len(named.template))[vertices]
    cells = np.unique(pieces, return_inverse=True)[1]
    uv = np.empty((len(vertices), 2))
    for cell in range(cells.max() + 1):
        plan = named.template[vertices[cells == cell]][:, (0, 2)]
        inside = (plan - plan.min(0)) / np.ptp(plan, axis=0).max()
        uv[cells == cell] = (0.5 + 0.5 * cell / (cells.max() + 1), 0.01) + (STRIP - 0.02) * inside
    return vertices, faces[(faces >= 0).all(1)], uv


def _wall(contour: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contour (C, 3) and what the wall encloses (M, 3) → vertices (RINGS C, 3), ring by ring, and each one's share
    (RINGS C,) of the way from the contour, 0, to the end, 1.
    """
    low, high = inside.min(0) - ROOM, inside.max(0) + ROOM
    centre = contour.mean(0)
    half = max(float(np.abs(contour[:, 0] - centre[0]).max()), 1e-6)
    aside = (contour[:, 0] - centre[0]) / half
    share = np.repeat(np.arange(1, RINGS + 1) / RINGS, len(contour))
    start, aside = np.tile(contour, (RINGS, 1)), np.tile(aside, RINGS)
    # Half an ellipse, steep behind the lips and at the end.
    bulge = np.sqrt(np.clip(1 - (2 * share - 1) ** 2, 0, 1))
    across = np.sqrt(np.clip(1 - aside**2, 0, 1))
    width = max(high[0] - centre[0], centre[0] - low[0])
    level = centre[1]
    vault = np.where(start[:, 1] > level, np.maximum(high[1] - start[:, 1], 0), np.minimum(low[1] - start[:, 1], 0))
    along = (1 - share) + share * END_WIDTH
    x = centre[0] + aside * (half * along + np.maximum(width - half, 0) * bulge)
    y = start[:, 1] + (level - start[:, 1]) * share**2 + vault * across * bulge
    z = start[:, 2] + (low[2] - start[:, 2]) * share
    return np.stack((x, y, z), 1), share


def _wall_faces(contour: np.ndarray, first: int) -> np.ndarray:
    """Triangles between the contour and the rings, whose vertices begin at index `first`."""
    count = len(contour)
    rings = np.concatenate((contour[None], first + np.arange(RINGS * count).reshape(RINGS, count)))
    outer, inner = rings[:-1], rings[1:]
    corners = (outer, np.roll(outer, -1, 1), inner, np.roll(inner, -1, 1))
    here, after, deep, deep_after = (part.ravel() for part in corners)
    return np.concatenate((np.stack((after, here, deep), 1), np.stack((after, deep, deep_after), 1)))


def _wall_uv(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The wall's uv, a rectangle in the left half of the strip with a seam of its own, and its triangles."""
    across = np.linspace(0.01, 0.49, count + 1)
    up = np.linspace(STRIP - 0.01, 0.01, RINGS + 1)
    uv = np.stack(np.meshgrid(across, up), -1).reshape(-1, 2)
    corner = np.arange((RINGS + 1) * (count + 1)).reshape(RINGS + 1, count + 1)
    here, after, deep, deep_after = (
        part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:])
    )
    return uv, np.concatenate((np.stack((after, here, deep), 1), np.stack((after, deep, deep_after), 1)))


def _scaled_along(around: np.ndarray, basis: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Displacements (P, 3, S) of points (P, 3): the translation and the scaling that fit the displacements
    `basis` (A, 3, S) of vertices `around` (A, 3) best.
    """
    centre = around.mean(0)
    arms = around - centre
    scaling = np.einsum("ac,acs->s", arms, basis) / (arms**2).sum()
    return basis.mean(0) + (points - centre)[..., None] * scaling
