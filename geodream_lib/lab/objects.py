"""The population of the lab world: what kinds of object there are, in which colours, and which are kept for testing."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from geodream_lib.errors import InputError
from geodream_lib.lab import birds_and_reptiles, figures, mammals, things, vehicles
from geodream_lib.lab.shape import COLORS, Shape

RADIUS = 0.9


@dataclass(frozen=True)
class LabObject:
    """One object, its front toward +x, up +z, its furthest surface point at distance 0.9 from the origin.

    colors: names of the primary (body) and secondary (second named part) colour. attachments: optional parts it has.
    primitives: table `[n, 21]` float32, layout in `primitives`. symmetric: looks the same after a quarter turn about z.
    seat: the point of its surface where a rider sits or a thing is put; None where nothing can.
    """

    category: str
    colors: tuple[str, str]
    attachments: tuple[str, ...]
    primitives: Float[np.ndarray, "n 21"]
    symmetric: bool
    seat: tuple[float, float, float] | None


@dataclass(frozen=True)
class _Kind:
    build: Callable
    natural: tuple[tuple[str, ...], tuple[str, ...]]  # primary and secondary colours one expects, drawn more often
    attachments: tuple[str, ...] = ()
    symmetric: bool = False
    held_out: tuple[str, str] = ("", "")


_KINDS: dict[str, _Kind] = {
    "mushroom": _Kind(things.mushroom, (("red", "orange", "brown"), ("brown",)), ("ladybug",), False, ("blue", "pink")),
    "icecream": _Kind(
        things.icecream, (("pink", "white", "brown"), ("orange", "brown")), ("cherry",), True, ("green", "purple")
    ),
    "corgi": _Kind(mammals.corgi, (("orange", "brown"), ("red", "blue")), ("hat",), False, ("blue", "green")),
    "astronaut": _Kind(figures.astronaut, (("white", "orange"), ("grey", "red")), ("flag",), False, ("pink", "green")),
    "giraffe": _Kind(mammals.giraffe, (("yellow", "orange"), ("brown",)), ("scarf",), False, ("pink", "blue")),
    "rocket": _Kind(
        vehicles.rocket, (("white", "red", "grey"), ("red", "blue")), ("flames",), False, ("green", "pink")
    ),
    "house": _Kind(
        things.house, (("white", "yellow"), ("red", "brown")), ("chimney", "flag"), False, ("purple", "green")
    ),
    "robot": _Kind(figures.robot, (("grey", "blue"), ("red", "yellow")), ("antenna",), False, ("pink", "orange")),
    "squirrel": _Kind(
        mammals.squirrel, (("brown", "orange"), ("brown", "yellow")), ("hat",), False, ("purple", "blue")
    ),
    "bust": _Kind(figures.bust, (("white", "grey"), ("brown", "black")), ("crown", "beard"), False, ("red", "purple")),
    "dinosaur": _Kind(
        birds_and_reptiles.dinosaur, (("green",), ("yellow", "red")), ("hat",), False, ("pink", "yellow")
    ),
    "axe": _Kind(things.axe, (("grey", "red"), ("brown",)), (), False, ("green", "yellow")),
    "kitten": _Kind(
        mammals.kitten, (("grey", "white", "black"), ("red", "blue")), ("hat",), False, ("green", "purple")
    ),
    "snowman": _Kind(figures.snowman, (("white",), ("black", "red")), ("scarf",), False, ("yellow", "purple")),
    "cake": _Kind(things.cake, (("brown", "yellow"), ("pink", "white")), ("candles", "cherry"), True, ("blue", "red")),
    "teapot": _Kind(things.teapot, (("blue", "white"), ("yellow",)), (), False, ("orange", "black")),
    "car": _Kind(
        vehicles.car, (("red", "blue", "yellow"), ("white", "black")), ("suitcase",), False, ("purple", "brown")
    ),
    "owl": _Kind(
        birds_and_reptiles.owl, (("brown", "grey"), ("white", "yellow")), ("hat", "scarf"), False, ("pink", "red")
    ),
    "vase": _Kind(things.vase, (("blue", "white"), ("yellow", "red")), ("flowers",), True, ("green", "brown")),
    "tree": _Kind(things.tree, (("green",), ("red", "brown")), ("star", "balls"), True, ("purple", "orange")),
    "horse": _Kind(mammals.horse, (("brown", "white", "black"), ("red", "blue")), (), False, ("turquoise", "pink")),
    "guitar": _Kind(
        things.guitar, (("orange", "brown", "yellow"), ("brown", "black")), (), False, ("purple", "turquoise")
    ),
    "penguin": _Kind(
        birds_and_reptiles.penguin, (("black", "blue"), ("white",)), ("hat", "scarf"), False, ("orange", "green")
    ),
    "turtle": _Kind(
        birds_and_reptiles.turtle, (("green", "turquoise"), ("brown", "orange")), ("hat",), False, ("blue", "red")
    ),
    "boat": _Kind(vehicles.boat, (("brown", "red", "blue"), ("white",)), ("flag",), False, ("yellow", "purple")),
    "airplane": _Kind(vehicles.airplane, (("white", "red", "grey"), ("red", "blue")), (), False, ("brown", "green")),
}

CATEGORIES: tuple[str, ...] = tuple(_KINDS)
HELD_OUT: frozenset[tuple[str, str]] = frozenset((name, c) for name, kind in _KINDS.items() for c in kind.held_out)


def sample_object(
    rng: np.random.Generator,
    category: str | None = None,
    colors: tuple[str, str] | None = None,
    split: str = "train",
) -> LabObject:
    """Draw an object.

    Args:
        rng: the only source of randomness.
        category: one of `CATEGORIES`; drawn uniformly if not given.
        colors: primary and secondary name of `COLORS`; given colours are taken as they are, whatever the split.
        split: "train" never draws a (category, primary colour) of `HELD_OUT`, "held_out" always draws one.

    Raises:
        InputError: for an unknown category, colour or split.
    """
    if split not in ("train", "held_out"):
        raise InputError(f"split is {split!r}; expected 'train' or 'held_out'")
    category = category or CATEGORIES[rng.integers(len(CATEGORIES))]
    if category not in _KINDS:
        raise InputError(f"unknown category {category!r}; choose one of {', '.join(CATEGORIES)}")
    colors = colors or _sample_colors(rng, category, split)
    for color in colors:
        if color not in COLORS:
            raise InputError(f"unknown colour {color!r}; choose one of {', '.join(COLORS)}")
    kind = _KINDS[category]
    attachments = tuple(name for name in kind.attachments if rng.random() < 0.4)
    if len(attachments) > 1:
        attachments = (attachments[rng.integers(len(attachments))],)
    shape = Shape()
    kind.build(shape, rng, COLORS[colors[0]], COLORS[colors[1]], attachments)
    primitives, seat = shape.normalized(RADIUS)
    return LabObject(category, tuple(colors), attachments, primitives, kind.symmetric, seat)


def is_symmetric(category: str) -> bool:
    """Whether objects of the category look the same from every side."""
    return _KINDS[category].symmetric


def _sample_colors(rng: np.random.Generator, category: str, split: str) -> tuple[str, str]:
    kind, names = _KINDS[category], list(COLORS)
    held_out = kind.held_out
    if split == "held_out":
        primaries = list(held_out)
    else:
        primaries = [c for c in (kind.natural[0] if rng.random() < 0.4 else names) if c not in held_out]
    primary = primaries[rng.integers(len(primaries))]
    options = kind.natural[1] if rng.random() < 0.4 else names
    distinct = [c for c in options if math.dist(COLORS[c], COLORS[primary]) > 0.4]
    distinct = distinct or [c for c in names if math.dist(COLORS[c], COLORS[primary]) > 0.4]
    return primary, distinct[rng.integers(len(distinct))]
