"""How two objects are put into one scene: a rider in its seat, a guitar before its player, things on and beside things.

Every function takes the objects as they were drawn and returns their primitive tables placed in a common frame, front
toward +x; the scene is centred and scaled afterwards.
"""

import numpy as np
from jaxtyping import Float

from geodream_lib.lab.objects import LabObject
from geodream_lib.lab.primitives import CENTRE, COLOUR, LENGTHS, ROTATION, ROUNDING, support_points, union_distance
from geodream_lib.lab.shape import Shape, shade, turn

Tables = tuple[Float[np.ndarray, "n 21"], Float[np.ndarray, "m 21"]]

# how large things are beside each other: life, with the extremes brought together so that both stay visible
_SIZE = {
    "mushroom": 0.75,
    "icecream": 0.7,
    "corgi": 0.95,
    "astronaut": 1.0,
    "giraffe": 1.25,
    "rocket": 1.2,
    "house": 1.25,
    "robot": 1.0,
    "squirrel": 0.75,
    "bust": 0.9,
    "dinosaur": 1.15,
    "axe": 0.85,
    "kitten": 0.75,
    "snowman": 1.0,
    "cake": 0.8,
    "teapot": 0.75,
    "car": 1.15,
    "owl": 0.75,
    "vase": 0.8,
    "tree": 1.2,
    "horse": 1.25,
    "guitar": 0.9,
    "penguin": 0.8,
    "turtle": 0.9,
    "boat": 1.1,
    "airplane": 1.15,
}
# share of a rider's height that disappears in the mount, so that it sits instead of standing; more where it sits inside
_SINK = {"astronaut": 0.24, "robot": 0.24, "corgi": 0.22, "dinosaur": 0.16}
# height of the guitar, as a share of the player's; no higher than its chest
_BELLY = {"astronaut": 0.36, "corgi": 0.34, "robot": 0.42, "snowman": 0.45}
_SIT_INSIDE = {"boat": 0.2, "car": 0.34}


def riding(rider: LabObject, mount: LabObject, rng: np.random.Generator) -> Tables:
    """The rider looks where the mount goes and has its legs on both sides of it; a rocket is ridden lying down."""
    below, seat = mount.primitives.astype(np.float64), _seat(mount)
    if mount.category == "rocket":
        # its nose turns to the front, a little up, and its door to the side
        below = _placed(below, rotation=turn("y", 90 - rng.uniform(8, 16)) @ turn("z", 90))
        seat = np.array([-0.05, 0, _reach(below, (-0.05, 0, 0), (0, 0, 1))])
    scale = rng.uniform(0.62, 0.70)
    low, high = _bounds(rider.primitives)
    height = scale * (high[2] - low[2])
    sink = max(_SINK.get(rider.category, 0.1), _SIT_INSIDE.get(mount.category, 0.0)) * height
    above = _placed(rider.primitives, scale, shift=seat - [0, 0, scale * low[2] + sink])
    if mount.category not in _SIT_INSIDE:
        above = np.concatenate([above, _legs(above, below, seat, height)])
    return above, below


def _seat(obj: LabObject) -> Float[np.ndarray, " 3"]:
    """The object's own seat, or else the top of its middle."""
    if obj.seat is not None:
        return np.array(obj.seat)
    foot = np.array([0.0, 0.0, -0.9])
    return foot + [0, 0, _reach(obj.primitives, foot, (0, 0, 1))]


def _legs(rider, mount, seat: np.ndarray, height: float) -> Float[np.ndarray, "n 21"]:
    """A leg and a foot down each side of the mount, in the colour of the rider's body (its first solid)."""
    legs, colour = Shape(), tuple(map(float, rider[0, COLOUR]))
    for side in (-1, 1):
        hip = seat - [0, 0, 0.1 * height]
        width = min(_reach(mount, hip, (0, side, 0)), 0.4 * height)
        knee = hip + [0.1 * height, side * (width + 0.03 * height), 0]
        foot = knee + [0.02 * height, side * 0.03 * height, -0.26 * height]
        legs.capsule(hip, knee, 0.09 * height, colour)
        legs.capsule(knee, foot, 0.085 * height, colour)
        legs.ellipsoid(foot + [0.06 * height, 0, 0], (0.15 * height, 0.09 * height, 0.08 * height), shade(colour, 0.7))
    return np.array(legs.rows)


def playing(player: LabObject, guitar: LabObject, rng: np.random.Generator) -> Tables:
    """The guitar is in front of the belly, its neck up to one side, and two arms of the player lie on it."""
    rows, tilt = player.primitives.astype(np.float64), turn("x", rng.choice([-1, 1]) * rng.uniform(48, 62))
    low, high = _bounds(rows)
    height = high[2] - low[2]
    scale = rng.uniform(0.40, 0.44) * height
    front = _bounds(_placed(guitar.primitives, scale, tilt))
    belly = np.array([0, 0, low[2] + _BELLY.get(player.category, 0.4) * height])
    across = [_reach(rows, belly + [0, y, z], (1, 0, 0)) for y in (-0.12, 0, 0.12) for z in (-0.1, 0, 0.1)]
    held = _placed(guitar.primitives, scale, tilt, belly + [max(across) - 0.4 * front[0, 0], 0, 0])
    return rows, held


def on(thing: LabObject, base: LabObject, rng: np.random.Generator) -> Tables:
    """The thing stands where a rider would sit."""
    scale = np.clip(_SIZE[thing.category] / _SIZE[base.category], 0.55, 0.72) * rng.uniform(0.92, 1.02)
    low = _bounds(thing.primitives)[0]
    shift = _seat(base) - [0, 0, scale * low[2] + 0.03]
    return _placed(thing.primitives, scale, shift=shift), base.primitives.astype(np.float64)


def beside(first: LabObject, second: LabObject, rng: np.random.Generator) -> Tables:
    """Both stand on one floor and look to the front; either may be on the left."""
    side, gap = rng.choice([-1, 1]), rng.uniform(0.05, 0.12)
    one, two = (_placed(part.primitives, _SIZE[part.category]) for part in (first, second))
    (low, high), (other_low, other_high) = _bounds(one), _bounds(two)
    shift = side * (gap + (high[1] - low[1] + other_high[1] - other_low[1]) / 2)
    two = _placed(two, shift=(0, shift, low[2] - other_low[2]))
    return one, two


def _placed(rows: np.ndarray, scale: float = 1.0, rotation: np.ndarray | None = None, shift=(0.0, 0.0, 0.0)):
    """The same solids scaled, then turned, then moved."""
    rotation = np.eye(3) if rotation is None else rotation
    rows = rows.astype(np.float64)
    rows[:, CENTRE] = scale * rows[:, CENTRE] @ rotation.T + shift
    rows[:, ROTATION] = (rows[:, ROTATION].reshape(-1, 3, 3) @ rotation.T).reshape(-1, 9)
    rows[:, LENGTHS] *= scale
    rows[:, ROUNDING] *= scale
    return rows


def _bounds(rows: np.ndarray) -> np.ndarray:
    """Lowest and highest corner of the bounding box, `[2, 3]`."""
    extreme = support_points(rows, np.concatenate([np.eye(3), -np.eye(3)]))
    return np.stack([extreme[3:].diagonal(), extreme[:3].diagonal()])


def _reach(rows: np.ndarray, start, direction) -> float:
    """How far one must go from a point inside or near the solids along a unit direction to be outside for good."""
    steps = np.linspace(0, 1.8, 181)
    points = (np.asarray(start) + steps[:, None] * np.asarray(direction)).astype(np.float32)
    distance, nearest = np.empty(len(points), np.float32), np.empty(len(points), np.int64)
    union_distance(rows.astype(np.float32), points, distance, nearest)
    inside = np.flatnonzero(distance < 0)
    return float(steps[inside[-1]]) if len(inside) else 0.0
