"""Scenes of two objects: what rides, plays, stands on or stands beside what. Only the 2D data shows them."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from geodream_lib.errors import InputError
from geodream_lib.lab import arrangements
from geodream_lib.lab.objects import CATEGORIES, RADIUS, LabObject, sample_object
from geodream_lib.lab.shape import COLORS, Shape

Triple = tuple[str, str, str]

_ARRANGE = {
    "riding": arrangements.riding,
    "playing": arrangements.playing,
    "on": arrangements.on,
    "beside": arrangements.beside,
}
RELATIONS = tuple(_ARRANGE)
_RIDERS = ("astronaut", "corgi", "dinosaur", "kitten", "owl", "penguin", "robot", "snowman", "squirrel", "turtle")
_MOUNTS = ("airplane", "boat", "car", "horse", "rocket", "turtle")
_PLAYERS = ("astronaut", "corgi", "dinosaur", "kitten", "owl", "penguin", "robot", "snowman", "squirrel")
_TOPS = ("bust", "cake", "corgi", "kitten", "mushroom", "owl", "penguin", "snowman", "squirrel")
_TOPS += ("teapot", "tree", "vase")
_BASES = ("airplane", "boat", "cake", "car", "house", "mushroom", "turtle")
_ALWAYS_TRAINED: frozenset[Triple] = frozenset(
    [("astronaut", "riding", "horse"), ("corgi", "riding", "rocket"), ("squirrel", "playing", "guitar")]
)


def _all_triples() -> tuple[Triple, ...]:
    triples = [(a, "riding", b) for a in _RIDERS for b in _MOUNTS if a != b]
    triples += [(a, "playing", "guitar") for a in _PLAYERS]
    triples += [(a, "on", b) for a in _TOPS for b in _BASES if a != b]
    # every second pair: the other half never stands together
    triples += [(a, "beside", b) for a, b in itertools.islice(itertools.combinations(CATEGORIES, 2), 0, None, 2)]
    return tuple(triples)


def _hold_out(counts: dict[str, int]) -> frozenset[Triple]:
    rng = np.random.default_rng(40)
    held_out = []
    for relation, count in counts.items():
        candidates = [t for t in COMPOSITIONS if t[1] == relation and t not in _ALWAYS_TRAINED]
        held_out += [candidates[i] for i in rng.choice(len(candidates), count, replace=False)]
    return frozenset(held_out)


COMPOSITIONS: tuple[Triple, ...] = _all_triples()
HELD_OUT_COMPOSITIONS: frozenset[Triple] = _hold_out({"riding": 12, "playing": 2, "on": 12, "beside": 14})
_SPLITS = {
    "train": tuple(t for t in COMPOSITIONS if t not in HELD_OUT_COMPOSITIONS),
    "held_out": tuple(t for t in COMPOSITIONS if t in HELD_OUT_COMPOSITIONS),
}


@dataclass(frozen=True)
class Composition:
    """Two objects as one scene, its front toward +x, its furthest surface point at distance 0.9 from the origin.

    parts: the subject and the object of the sentence, as they were drawn. relation: one of `RELATIONS`. primitives:
    table `[n, 21]` float32 of the scene, layout in `primitives`. owner: 0 or 1 for every row, the part it belongs to.
    """

    parts: tuple[LabObject, LabObject]
    relation: str
    primitives: Float[np.ndarray, "n 21"]
    owner: Int[np.ndarray, " n"]


def sample_composition(rng: np.random.Generator, triple: Triple | None = None, split: str = "train") -> Composition:
    """Draw a scene of two objects whose primary colours can be told apart.

    Args:
        rng: the only source of randomness.
        triple: subject, relation and object of `COMPOSITIONS`; drawn if not given, and taken as it is, whatever the
            split, if given. Three relations in four are equally likely; fewer play the guitar, as fewer triples do.
        split: "train" never draws a triple of `HELD_OUT_COMPOSITIONS` nor a (category, primary colour) of `HELD_OUT`,
            "held_out" draws nothing else.

    Raises:
        InputError: for an unknown triple or split.
    """
    if split not in _SPLITS:
        raise InputError(f"split is {split!r}; expected 'train' or 'held_out'")
    if triple is None:
        relation = rng.choice(RELATIONS, p=(0.36, 0.1, 0.27, 0.27))
        candidates = [t for t in _SPLITS[split] if t[1] == relation]
        triple = candidates[rng.integers(len(candidates))]
    if tuple(triple) not in COMPOSITIONS:
        raise InputError(f"unknown composition {' '.join(triple)!r}; choose one of lab.COMPOSITIONS")
    first = sample_object(rng, triple[0], split=split)
    while True:
        second = sample_object(rng, triple[2], split=split)
        # both parts are seen, and nothing stands where a rider sits
        distinct = math.dist(COLORS[first.colors[0]], COLORS[second.colors[0]]) > 0.3
        if distinct and (triple[1] == "beside" or not second.attachments):
            return compose(first, triple[1], second, rng)


def compose(first: LabObject, relation: str, second: LabObject, rng: np.random.Generator) -> Composition:
    """Put two objects into one scene; the generator moves and scales them a little."""
    one, two = _ARRANGE[relation](first, second, rng)
    scene = Shape()
    scene.rows = [*one, *two]
    owner = np.repeat([0, 1], [len(one), len(two)])
    return Composition((first, second), relation, scene.normalized(RADIUS)[0], owner)
