"""The identity basis: principal components of heads sampled from MakeHuman's modelling sliders, with size removed.

A sampled head is the base mesh plus *macro* targets (an interpolation over gender, age, muscle, weight and three
ancestries) plus *detail* targets (the sliders of face, ears and neck). Size is removed because a single camera cannot
distinguish a small head from a distant one: with size in the basis, tracking could not separate size from distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.head.rigid_alignment import fit_similarity

from .mpfb import MakeHuman

ANCESTRIES = ("african", "asian", "caucasian")
AGES = ("baby", "child", "young", "old")
AGE_ANCHORS = (0.0, 1 / 3, 2 / 3, 1.0)
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")
LEVELS = (0.0, 0.5, 1.0)

DIRICHLET = 0.7
YOUNGEST = 0.42
SLIDER_DEVIATION = 0.22
SIDE_DEVIATION = 0.035
"""Standard deviation of the independent part of left and right sliders, and of sideways shifts of nose and mouth. Fully
independent sides (0.3 each) give caricatures; equal sides give a basis that cannot fit a real, asymmetric face."""

DETAIL_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "cheek", "chin", "neck")
SIDEWAYS = ("nose-trans-in-out", "mouth-trans-in-out")
EXCLUDED_SLIDERS = ("head-trans-", "neck-trans-", "ear-shape-pointed")
"""Translations of the whole head are not part of identity, and pointed ears do not occur in people."""


@dataclass(frozen=True)
class Slider:
    """A modelling slider: its value is drawn from N(0, common) for both sides, plus N(0, own) for each."""

    sides: list[list[np.ndarray | None]]
    """For each side the (P, 3) offsets of its negative and its positive target."""
    common: float
    own: float


@dataclass(frozen=True)
class Sampler:
    """Samples random heads, given as P points of the base mesh, which may include joint cubes."""

    base: np.ndarray
    """(P, 3) metres."""
    macro: np.ndarray
    """(K, P, 3)"""
    macro_keys: list[tuple[str, ...]]
    """For each macro target the names of its levels, whose product is its coefficient."""
    sliders: list[Slider]

    def draw(self, count: int, seed: int) -> np.ndarray:
        """(count, P, 3) metres."""
        random = np.random.default_rng(seed)
        ancestry = random.dirichlet([DIRICHLET] * 3, count)
        gender, muscle, weight = random.random((3, count))
        age = random.uniform(YOUNGEST, 1, count)
        levels = dict(zip(ANCESTRIES, ancestry.T, strict=True))
        levels |= {"male": 1 - gender, "female": gender}
        levels |= dict(zip(AGES, _interpolation_weights(age, AGE_ANCHORS), strict=True))
        levels |= dict(zip(MUSCLES, _interpolation_weights(muscle, LEVELS), strict=True))
        levels |= dict(zip(WEIGHTS, _interpolation_weights(weight, LEVELS), strict=True))
        coefficients = np.stack([np.prod([levels[name] for name in key], 0) for key in self.macro_keys], 1)
        heads = self.base + np.tensordot(coefficients, self.macro, 1)
        for slider in self.sliders:
            common = random.normal(0, 1, count) * slider.common
            for side in slider.sides:
                _apply_slider(heads, side, common + random.normal(0, 1, count) * slider.own)
        return heads


def make_sampler(human: MakeHuman, points: np.ndarray) -> Sampler:
    """A sampler of the base mesh's vertices `points` (the cut's, and those of joint cubes)."""
    keys, macro = [], []
    for gender in ("female", "male"):
        for age in AGES[1:]:  # the minimum age YOUNGEST lies between child and young
            for ancestry in ANCESTRIES:
                keys.append((ancestry, gender, age))
                macro.append(human.target(f"macrodetails/{ancestry}-{gender}-{age}")[points])
            for muscle in MUSCLES:
                for weight in WEIGHTS:
                    keys.append((gender, age, muscle, weight))
                    macro.append(human.target(f"macrodetails/universal-{gender}-{age}-{muscle}-{weight}")[points])
    sliders = []
    for folder in DETAIL_FOLDERS:
        for entry in human.sliders(folder):
            if entry["name"].startswith(EXCLUDED_SLIDERS):
                continue
            sides = []
            for side in ("left", "right") if entry["has_left_and_right"] else ("unsided",):
                # A slider without opposites has one target, in the positive direction.
                ends = entry.get("opposites", {f"negative-{side}": "", f"positive-{side}": entry["targets"][0]})
                names = [ends[f"{sign}-{side}"] for sign in ("negative", "positive")]
                sides.append([human.target(f"{folder}/{name}")[points] if name else None for name in names])
            sideways = entry["name"] in SIDEWAYS
            sliders.append(
                Slider(
                    sides,
                    0 if sideways else SLIDER_DEVIATION,
                    SIDE_DEVIATION if sideways or len(sides) == 2 else 0,
                )
            )
    return Sampler(human.mesh.vertices[points], np.stack(macro), keys, sliders)


def _interpolation_weights(value: np.ndarray, anchors: tuple[float, ...]) -> list[np.ndarray]:
    """Weights of linear interpolation between anchors."""
    return [np.interp(value, anchors, np.eye(len(anchors))[i]) for i in range(len(anchors))]


def _apply_slider(heads: np.ndarray, pair: list[np.ndarray | None], value: np.ndarray) -> None:
    """Add a slider in place: its negative target below zero, its positive above; the offsets are sparse."""
    for offsets, amount in zip(pair, (np.maximum(-value, 0), np.maximum(value, 0)), strict=True):
        if offsets is not None:
            moved = np.flatnonzero(np.abs(offsets).max(1) > 0)
            heads[:, moved] += amount[:, None, None] * offsets[moved]


def align(heads: np.ndarray, reference: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Align each head (M, P, 3) with `reference` (P, 3) by the similarity transform of its points `used`.

    Only shape differences remain. The points used should move with the skull, so that the length of the neck does not
    affect the head's rotation.
    """
    scale, rotation, translation = fit_similarity(heads[:, used], reference[used])
    return np.asarray(scale)[:, None, None] * heads @ np.swapaxes(rotation, -1, -2) + translation[:, None]


def principal_components(heads: np.ndarray, mean: np.ndarray, mirror: np.ndarray, count: int) -> np.ndarray:
    """(N, 3, count): directions of greatest variance about `mean`, each scaled to one standard deviation.

    Each head counts twice, once mirrored, so that every component is either symmetric or antisymmetric. The two kinds
    are computed separately, from the symmetric and antisymmetric halves of the deviations, and merged by their
    variance.
    """
    deviation = heads - mean
    flipped = deviation[:, mirror] * (-1, 1, 1)
    found = []
    for half in ((deviation + flipped) / 2, (deviation - flipped) / 2):
        rows = half.reshape(len(half), -1)
        variance, mixing = np.linalg.eigh(rows @ rows.T / len(rows))
        kept = variance > variance[-1] * 1e-9
        # A unit eigenvector of the Gram matrix mixes the heads into a direction as long as sqrt(M) deviations.
        found += list(zip(variance[kept], (mixing[:, kept].T @ rows) / np.sqrt(len(rows)), strict=True))
    found.sort(key=lambda pair: -pair[0])
    return np.stack([direction.reshape(-1, 3) for _, direction in found[:count]], 2)
