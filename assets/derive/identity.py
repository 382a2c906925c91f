"""The identity basis: principal components of heads sampled from MakeHuman's modelling sliders, with size removed.

A sampled head is the base mesh plus *macro* targets (an interpolation over gender, age, muscle, weight and three
ancestries) plus *detail* targets (the sliders of face, ears and neck). Size is removed because a single camera cannot
tell a small head from a distant one: with size in the basis, tracking would trade it against distance for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
"""What left and right sliders add to their common value, each on its own; crooked noses and mouths have it too. Fully
independent sides (0.3 each) give caricatures, fully paired ones a basis that cannot fit a real, uneven face."""

DETAIL_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "cheek", "chin", "neck")
SIDEWAYS = ("nose-trans-in-out", "mouth-trans-in-out")
LEFT_OUT = ("head-trans-", "neck-trans-", "ear-shape-pointed")
"""Moving the whole head is no identity; pointed ears are for elves."""


@dataclass(frozen=True)
class Slider:
    """A modelling slider: its value is drawn from N(0, common) for both sides, plus N(0, own) for each."""

    sides: list[list[np.ndarray | None]]
    """For each side the (P, 3) offsets of its negative and its positive target."""
    common: float
    own: float


@dataclass(frozen=True)
class Sampler:
    """Draws heads: any points of the base mesh that take part in its targets, joint cubes among them."""

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
        levels |= dict(zip(AGES, _hats(age, AGE_ANCHORS), strict=True))
        levels |= dict(zip(MUSCLES, _hats(muscle, LEVELS), strict=True))
        levels |= dict(zip(WEIGHTS, _hats(weight, LEVELS), strict=True))
        coefficients = np.stack([np.prod([levels[name] for name in key], 0) for key in self.macro_keys], 1)
        heads = self.base + np.tensordot(coefficients, self.macro, 1)
        for slider in self.sliders:
            common = random.normal(0, 1, count) * slider.common
            for side in slider.sides:
                _slide(heads, side, common + random.normal(0, 1, count) * slider.own)
        return heads


def make_sampler(human: MakeHuman, points: np.ndarray) -> Sampler:
    """A sampler of the base mesh's vertices `points` (the cut's, and those of joint cubes)."""
    keys, macro = [], []
    for gender in ("female", "male"):
        for age in AGES[1:]:  # nobody is younger than YOUNGEST, which lies between child and young
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
            if entry["name"].startswith(LEFT_OUT):
                continue
            sides = []
            for side in ("left", "right") if entry["has_left_and_right"] else ("unsided",):
                # A slider without opposites only runs from nothing to its one target.
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


def _hats(value: np.ndarray, anchors: tuple[float, ...]) -> list[np.ndarray]:
    """Weights of linear interpolation between anchors."""
    return [np.interp(value, anchors, np.eye(len(anchors))[i]) for i in range(len(anchors))]


def _slide(heads: np.ndarray, pair: list[np.ndarray | None], value: np.ndarray) -> None:
    """Add a slider in place: its negative target below zero, its positive above; the offsets are sparse."""
    for offsets, amount in zip(pair, (np.maximum(-value, 0), np.maximum(value, 0)), strict=True):
        if offsets is not None:
            moved = np.flatnonzero(np.abs(offsets).max(1) > 0)
            heads[:, moved] += amount[:, None, None] * offsets[moved]


def align(heads: np.ndarray, reference: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Rotate, shift and scale each head (M, P, 3) onto `reference` (P, 3), by its points `used`: Procrustes analysis.

    What is left is shape alone. The points used all move with the skull, so a long neck does not tip a head over.
    """
    goal = reference[used] - reference[used].mean(0)
    aligned = np.empty_like(heads)
    for i, head in enumerate(heads):
        centre = head[used].mean(0)
        centred = head[used] - centre
        left, strength, right = np.linalg.svd(centred.T @ goal)
        turn = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
        rotation = left @ turn @ right
        scale = (strength * np.diag(turn)).sum() / (centred**2).sum()
        aligned[i] = (head - centre) @ rotation * scale + reference[used].mean(0)
    return aligned


def principal_components(heads: np.ndarray, mean: np.ndarray, mirror: np.ndarray, count: int) -> np.ndarray:
    """(N, 3, count): directions of greatest variance about `mean`, each scaled to one standard deviation.

    Each head counts twice, once mirrored, so that every component is either symmetric or antisymmetric. The two kinds
    are found apart, from the symmetric and antisymmetric halves of the deviations, and merged by their variance.
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
