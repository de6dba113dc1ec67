"""Lab objects with a face. Each function fills a `Shape` from a random generator, two colours and attachments."""

import math

import numpy as np

from geodream_lib.lab.shape import (
    ALONG_X,
    COLORS,
    CREAM,
    GLASS,
    GOLD,
    INK,
    STEEL,
    WHITE,
    Colour,
    Shape,
    contrast,
    shade,
    turn,
)


def _muzzle(colour: Colour) -> Colour:
    return contrast([WHITE, CREAM, shade(colour, 0.55)], colour)


def corgi(s: Shape, rng: np.random.Generator, coat: Colour, collar: Colour, extras: tuple[str, ...]):
    length, r, pale = rng.uniform(0.28, 0.36), rng.uniform(0.22, 0.26), _muzzle(coat)
    s.capsule((-length, 0, -0.2), (length * 0.8, 0, -0.17), r, coat)
    s.ellipsoid((length * 0.95, 0, -0.2), (r * 0.85, r * 0.8, r * 1.0), pale)
    for x in (-length * 1.0, length * 0.85):
        for y in (-1, 1):
            s.capsule((x, y * r * 0.62, -0.25), (x + 0.02, y * r * 0.7, -0.5), 0.095, coat)
            s.ellipsoid((x + 0.05, y * r * 0.7, -0.54), (0.13, 0.1, 0.075), pale)
    s.ellipsoid((-length - r * 0.75, 0, 0.0), (0.13, 0.12, 0.14), pale)
    hx, hz, hr = length + 0.18, rng.uniform(0.24, 0.3), rng.uniform(0.28, 0.32)
    s.ellipsoid((hx, 0, hz), (hr * 0.95, hr * 1.05, hr * 0.95), coat)
    s.ellipsoid((hx + hr * 0.7, 0, hz - 0.09), (0.22, 0.15, 0.12), pale)
    s.capsule((hx + hr * 0.78, 0, hz), (hx + hr * 0.42, 0, hz + hr * 0.78), 0.06, pale)
    s.ellipsoid((hx + hr * 0.7 + 0.2, 0, hz - 0.03), (0.06, 0.08, 0.06), INK)
    s.eyes((hx, 0, hz), (hr * 0.95, hr * 1.05, hr * 0.95), 0.085, yaw=33, pitch=20)
    for y in (-1, 1):
        s.cone((hx - 0.05, y * hr * 0.75, hz + hr * 0.95), 0.2, 0.15, 0.03, coat, turn("x", -y * 18), 0.02)
        s.cone((hx + 0.04, y * hr * 0.77, hz + hr * 0.93), 0.14, 0.09, 0.02, shade(pale, 0.85), turn("x", -y * 18))
    s.torus((hx - 0.12, 0, hz - hr * 0.85), hr * 0.72, 0.065, collar, turn("y", 25))
    if "hat" in extras:
        s.hat((hx - 0.02, 0, hz + hr * 0.9), 0.16, collar)


def kitten(s: Shape, rng: np.random.Generator, coat: Colour, collar: Colour, extras: tuple[str, ...]):
    r, pale, dark = rng.uniform(0.28, 0.33), _muzzle(coat), shade(coat, 0.6)
    s.ellipsoid((0, 0, -0.3), (r, r * 0.95, 0.4), coat)
    s.ellipsoid((r * 0.45, 0, -0.25), (r * 0.65, r * 0.6, 0.3), pale)
    for y in (-1, 1):
        s.ellipsoid((0.02, y * r * 0.8, -0.53), (0.24, 0.15, 0.16), coat)
        s.capsule((r * 0.85, y * 0.13, -0.25), (r * 1.0, y * 0.14, -0.58), 0.09, coat)
        s.ellipsoid((r * 1.0 + 0.06, y * 0.14, -0.62), (0.13, 0.11, 0.075), pale)
    tail = rng.choice([-1, 1])
    s.capsule((-r * 0.8, 0, -0.55), (-r * 1.3, tail * 0.25, -0.5), 0.08, coat)
    s.capsule((-r * 1.3, tail * 0.25, -0.5), (-r * 1.4, tail * 0.34, -0.1), 0.08, coat)
    s.ellipsoid((-r * 1.4, tail * 0.34, -0.02), 0.1, pale)
    hz, hr = 0.27, rng.uniform(0.33, 0.37)
    head = (hr * 0.92, hr * 1.1, hr * 0.92)
    s.ellipsoid((0.06, 0, hz), head, coat)
    s.eyes((0.06, 0, hz), head, 0.1, yaw=28, pitch=12)
    for y in (-1, 1):
        s.ellipsoid((0.06 + hr * 0.86, y * 0.065, hz - 0.12), (0.1, 0.1, 0.085), pale)
        s.prism((0.03, y * hr * 0.68, hz + hr * 0.55), 0.06, 0.17, 0.36, coat, turn("x", -y * 16))
        s.prism((0.07, y * hr * 0.68, hz + hr * 0.6), 0.035, 0.1, 0.24, COLORS["pink"], turn("x", -y * 16))
    s.ellipsoid((0.06 + hr * 0.86 + 0.09, 0, hz - 0.06), (0.05, 0.065, 0.05), contrast([COLORS["pink"], INK], pale))
    for y in (-0.11, 0.0, 0.11):
        s.capsule((0.2, y, hz + hr * 0.84), (-0.12, y * 1.3, hz + hr * 0.8), 0.04, dark)
    for z in (-0.42, -0.25, -0.08):
        s.capsule((-r * 0.72, -0.13, z), (-r * 0.72, 0.13, z), 0.06, dark)
    s.torus((0.06, 0, -0.04), r * 0.82, 0.065, collar, turn("y", 12))
    s.ellipsoid((0.06 + r * 0.95, 0, -0.12), 0.085, contrast([GOLD, STEEL], collar, pale))
    if "hat" in extras:
        s.hat((0.02, 0, hz + hr * 0.88), 0.17, collar)


def squirrel(s: Shape, rng: np.random.Generator, fur: Colour, guitar: Colour, extras: tuple[str, ...]):
    r, pale = rng.uniform(0.26, 0.3), _muzzle(fur)
    s.ellipsoid((0, 0, -0.28), (r, r * 1.05, 0.38), fur)
    s.ellipsoid((r * 0.35, 0, -0.28), (r * 0.75, r * 0.75, 0.3), pale)
    for y in (-1, 1):
        s.ellipsoid((0.14, y * 0.2, -0.6), (0.24, 0.12, 0.1), shade(fur, 0.75))
    lift = rng.uniform(0.0, 0.1)
    for x, z, size in ((-0.3, -0.52, 0.14), (-0.45, -0.42, 0.18), (-0.55, -0.2, 0.2), (-0.62, 0.02 + lift, 0.2)):
        s.ellipsoid((x, 0, z), (size, size * 1.05, size * 1.05), shade(fur, 1.3))
    s.ellipsoid((-0.7, 0, 0.15 + lift), (0.16, 0.17, 0.13), pale)
    hz, hr = 0.27, rng.uniform(0.25, 0.29)
    s.ellipsoid((0.06, 0, hz), (hr, hr, hr * 0.95), fur)
    s.ellipsoid((0.06 + hr * 0.75, 0, hz - 0.09), (0.14, 0.16, 0.1), pale)
    s.ellipsoid((0.06 + hr * 0.75 + 0.13, 0, hz - 0.04), (0.05, 0.06, 0.045), INK)
    s.eyes((0.06, 0, hz), hr, 0.085, yaw=35, pitch=20)
    for y in (-1, 1):
        s.cone((0.0, y * hr * 0.6, hz + hr * 1.0), 0.14, 0.1, 0.02, fur, turn("x", -y * 14), 0.02)
    tilt = turn("x", rng.uniform(18, 32))
    x = r + 0.1
    trim, neck = contrast([CREAM, COLORS["brown"], INK], guitar, pale), contrast([COLORS["brown"], INK, CREAM], guitar)

    def place(y, z):  # from the guitar's own plane to the squirrel
        return np.array([x, 0.0, -0.28]) + tilt @ np.array([0.0, y, z])

    s.cone(place(-0.16, 0), 0.06, 0.23, 0.23, guitar, ALONG_X, 0.03)
    s.cone(place(0.1, 0), 0.06, 0.18, 0.18, guitar, ALONG_X, 0.03)
    s.cone(place(-0.03, 0) + [0.06, 0, 0], 0.02, 0.085, 0.085, INK, ALONG_X, 0.005)
    s.box(place(0.42, 0), (0.05, 0.26, 0.05), neck, tilt)
    s.box(place(0.7, 0), (0.05, 0.09, 0.085), trim, tilt)
    s.box(place(-0.25, 0) + [0.06, 0, 0], (0.03, 0.03, 0.09), trim, tilt, 0.01)
    s.capsule((0.05, -r, -0.08), (x + 0.1, -0.2, -0.22), 0.075, fur)
    s.capsule((0.05, r, -0.08), place(0.38, 0) + [0.05, 0, 0], 0.075, fur)
    if "hat" in extras:
        s.hat((0.03, 0, hz + hr * 0.88), 0.15, guitar)


def giraffe(s: Shape, rng: np.random.Generator, coat: Colour, spots: Colour, extras: tuple[str, ...]):
    length, r, pale = rng.uniform(0.2, 0.26), rng.uniform(0.2, 0.23), _muzzle(coat)
    s.capsule((-length, 0, -0.25), (length, 0, -0.2), r, coat)
    for x in (-length, length):
        for y in (-1, 1):
            s.capsule((x, y * 0.13, -0.3), (x, y * 0.14, -0.74), 0.095, coat)
            s.cone((x, y * 0.14, -0.81), 0.075, 0.115, 0.11, shade(spots, 0.8))
    top = np.array([length + rng.uniform(0.2, 0.28), 0, rng.uniform(0.5, 0.6)])
    base = np.array([length * 0.9, 0, -0.15])
    s.cone((base + top) / 2, np.linalg.norm(top - base) / 2, 0.19, 0.135, coat, _along(top - base), 0.02)
    head = top + [0.06, 0, 0.04]
    s.ellipsoid(head, (0.25, 0.22, 0.21), coat)
    s.capsule(head, head + [0.25, 0, -0.1], 0.15, pale)
    for y in (-1, 1):
        s.ellipsoid(head + [0.38, y * 0.07, -0.06], 0.04, INK)
        s.ellipsoid(head + [-0.06, y * 0.29, 0.07], (0.055, 0.15, 0.08), coat)
        s.capsule(head + [-0.04, y * 0.09, 0.1], head + [-0.06, y * 0.11, 0.32], 0.05, coat)
        s.ellipsoid(head + [-0.06, y * 0.11, 0.35], 0.08, shade(spots, 0.8))
    s.eyes(head, (0.23, 0.22, 0.2), 0.1, yaw=46, pitch=26)
    for k, x in enumerate((-length * 1.1, -length * 0.25, length * 0.65)):
        for y in (-1, 1):
            s.ellipsoid((x, y * r * 0.93, -0.2 - 0.07 * (k % 2)), (0.11, 0.05, 0.1), spots)
        s.ellipsoid((x, 0, -0.23 + r * 0.93), (0.1, 0.11, 0.05), spots)
    for f in (0.35, 0.6, 0.85):
        p, width = base + f * (top - base), 0.19 - 0.055 * f
        for y in (-1, 1):
            s.ellipsoid((p[0], y * width * 0.9, p[2]), (0.075, 0.045, 0.08), spots)
        s.ellipsoid((p[0] - width * 0.95, 0, p[2] + 0.05), (0.045, 0.07, 0.08), spots)
    s.ellipsoid((-length - r * 0.95, 0, -0.22), (0.05, 0.11, 0.1), spots)
    s.capsule((-length - r, 0, -0.2), (-length - r - 0.12, 0, -0.42), 0.04, coat)
    s.ellipsoid((-length - r - 0.13, 0, -0.46), (0.06, 0.06, 0.09), shade(spots, 0.8))
    if "scarf" in extras:
        p = base + 0.72 * (top - base)
        s.scarf(p, 0.14, 0.06, shade(spots, 0.9), (p[0] + 0.22, 0.12, p[2] - 0.3))


def _along(direction: np.ndarray) -> np.ndarray:
    """A rotation whose z axis is `direction`."""
    z = direction / np.linalg.norm(direction)
    x = np.cross((0.0, 1.0, 0.0), z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)


def dinosaur(s: Shape, rng: np.random.Generator, skin: Colour, spikes: Colour, extras: tuple[str, ...]):
    r, pale = rng.uniform(0.28, 0.32), contrast([CREAM, WHITE, shade(skin, 0.6)], skin)
    s.ellipsoid((0, 0, -0.2), (r * 1.05, r, 0.36), skin)
    s.ellipsoid((r * 0.4, 0, -0.22), (r * 0.75, r * 0.7, 0.28), pale)
    for y in (-1, 1):
        s.ellipsoid((-0.02, y * r * 0.75, -0.42), (0.19, 0.15, 0.22), skin)
        s.capsule((0.0, y * r * 0.8, -0.45), (0.04, y * r * 0.8, -0.62), 0.11, skin)
        s.ellipsoid((0.12, y * r * 0.8, -0.68), (0.2, 0.13, 0.085), skin)
        s.capsule((r * 0.75, y * r * 0.65, -0.02), (r * 1.25, y * r * 0.6, -0.12), 0.07, skin)
    tail = [(-0.2, -0.38, 0.22), (-0.42, -0.5, 0.17), (-0.62, -0.54, 0.125), (-0.8, -0.5, 0.085)]
    for (x0, z0, r0), (x1, z1, r1) in zip(tail, tail[1:], strict=False):
        middle, step = np.array([(x0 + x1) / 2, 0, (z0 + z1) / 2]), np.array([x1 - x0, 0, z1 - z0])
        s.cone(middle, np.linalg.norm(step) / 2 + 0.04, r0, r1, skin, _along(step), 0.05)
    hz, hr = 0.34, rng.uniform(0.25, 0.28)
    s.capsule((0.05, 0, 0.0), (0.1, 0, hz), 0.2, skin)
    head = (hr, hr * 0.95, hr * 0.9)
    s.ellipsoid((0.12, 0, hz), head, skin)
    s.box((0.36, 0, hz - 0.04), (0.2, 0.19, 0.1), skin, None, 0.09)
    s.box((0.34, 0, hz - 0.15), (0.2, 0.165, 0.05), WHITE, None, 0.03)
    s.box((0.32, 0, hz - 0.2), (0.2, 0.17, 0.05), shade(skin, 0.8), None, 0.045)
    for y in (-1, 1):
        s.ellipsoid((0.54, y * 0.09, hz + 0.03), 0.04, INK)
        s.ellipsoid((0.2, y * hr * 0.72, hz + hr * 0.62), 0.11, skin)
    s.eyes((0.2, 0, hz + hr * 0.62), (0.1, hr * 0.95, 0.06), 0.095, yaw=48, pitch=10)
    for x, z, size, lean in (
        (-0.02, hz + 0.2, 0.15, -25),
        (-0.16, 0.26, 0.18, -55),
        (-0.26, 0.02, 0.2, -75),
        (-0.34, -0.24, 0.19, -60),
        (-0.54, -0.38, 0.15, -25),
        (-0.72, -0.42, 0.11, -10),
    ):
        s.prism((x, 0, z - 0.05), 0.055, size * 0.75, size * 1.5, spikes, turn("y", lean) @ turn("z", 90))
    if "hat" in extras:
        s.hat((0.13, 0, hz + hr * 0.9), 0.15, spikes)


def owl(s: Shape, rng: np.random.Generator, plumage: Colour, belly: Colour, extras: tuple[str, ...]):
    r, dark = rng.uniform(0.36, 0.42), shade(plumage, 0.65)
    s.ellipsoid((0, 0, -0.22), (r * 0.9, r, 0.44), plumage)
    s.ellipsoid((r * 0.32, 0, -0.26), (r * 0.7, r * 0.75, 0.36), belly)
    for z in (-0.4, -0.22):
        for y in (-0.12, 0.12):
            s.ellipsoid((r * (0.98 if z > -0.3 else 0.9), y, z), (0.05, 0.06, 0.05), dark)
    hz = rng.uniform(0.26, 0.3)
    head = (r * 0.8, r * 0.95, 0.3)
    s.ellipsoid((0.02, 0, hz), head, plumage)
    for y in (-1, 1):
        s.ellipsoid((-0.05, y * r * 0.95, -0.2), (0.24, 0.1, 0.36), dark, turn("x", y * 10))
        s.cone((0.1, y * r * 0.7, hz + 0.25), 0.15, 0.12, 0.01, dark, turn("x", -y * 25), 0.01)
        s.ellipsoid((r * 0.55, y * 0.18, hz + 0.04), (0.15, 0.19, 0.19), contrast([WHITE, CREAM], plumage))
        s.ellipsoid((r * 0.55 + 0.1, y * 0.17, hz + 0.04), (0.1, 0.125, 0.125), contrast([GOLD, WHITE], plumage))
        s.ellipsoid((r * 0.55 + 0.17, y * 0.165, hz + 0.04), (0.06, 0.085, 0.085), INK)
        s.ellipsoid((r * 0.55, y * 0.16, -0.66), (0.15, 0.11, 0.07), COLORS["orange"])
    s.cone((r * 0.8 + 0.13, 0, hz - 0.08), 0.11, 0.09, 0.01, COLORS["orange"], turn("y", 130), 0.01)
    s.ellipsoid((-r * 0.75, 0, -0.55), (0.2, 0.16, 0.1), dark, turn("y", -35))
    if "scarf" in extras:
        s.scarf((0, 0, hz - 0.22), r * 0.83, 0.08, belly, (r * 0.95, 0.26, -0.32))
    if "hat" in extras:
        s.hat((0.02, 0, hz + 0.28), 0.18, belly)


def snowman(s: Shape, rng: np.random.Generator, snow: Colour, cloth: Colour, extras: tuple[str, ...]):
    r0, r1, r2 = rng.uniform(0.36, 0.42), rng.uniform(0.27, 0.31), rng.uniform(0.22, 0.25)
    z1 = r0 * 0.75 + r1 * 0.7
    z2 = z1 + r1 * 0.7 + r2 * 0.75
    s.ellipsoid((0, 0, 0), (r0, r0, r0 * 0.92), snow)
    s.ellipsoid((0, 0, z1), r1, snow)
    s.ellipsoid((0, 0, z2), r2, snow)
    ink = contrast([INK, WHITE], snow)
    for pitch in (-22, 18):
        p = math.radians(pitch)
        s.ellipsoid((r1 * math.cos(p), 0, z1 + r1 * math.sin(p)), 0.065, ink)
    s.ellipsoid((r0 * 0.96, 0, 0.1), 0.065, ink)
    s.eyes((0, 0, z2), r2, 0.07, yaw=27, pitch=20)
    s.cone((r2 + 0.11, 0, z2 - 0.03), 0.15, 0.075, 0.01, contrast([COLORS["orange"], COLORS["yellow"]], snow), ALONG_X)
    wood = contrast([COLORS["brown"], INK], snow)
    for y in (-1, 1):
        hand = np.array([rng.uniform(0.0, 0.15), y * (r1 + 0.36), z1 + rng.uniform(0.05, 0.25)])
        elbow = np.array([0.0, y * r1 * 0.8, z1 + 0.02])
        s.capsule(elbow, hand, 0.05, wood)
        s.capsule(hand - [0, y * 0.06, 0.02], hand + [0.02, y * 0.01, 0.12], 0.04, wood)
    if "scarf" in extras:
        s.scarf((0, 0, z2 - r2 * 0.75), r1 * 0.72, 0.075, cloth, (r1 * 1.05, 0.16, z1 - 0.1))
    s.hat((0, 0, z2 + r2 * 0.85), 0.19, cloth)


def astronaut(s: Shape, rng: np.random.Generator, suit: Colour, pack: Colour, extras: tuple[str, ...]):
    r, trim = rng.uniform(0.24, 0.27), contrast([COLORS["grey"], WHITE, INK], suit, pack)
    s.ellipsoid((0, 0, -0.16), (r * 0.9, r * 1.1, 0.3), suit)
    s.box((-r - 0.06, 0, -0.08), (0.12, 0.22, 0.25), pack, None, 0.06)
    s.torus((0, 0, 0.1), r * 0.72, 0.07, trim)
    hr = rng.uniform(0.31, 0.34)
    s.ellipsoid((0.02, 0, 0.36), (hr, hr * 1.05, hr), suit)
    glass = contrast([(0.08, 0.12, 0.25), GLASS, GOLD], suit)
    s.ellipsoid((0.02 + hr * 0.52, 0, 0.37), (hr * 0.62, hr * 0.8, hr * 0.65), glass)
    s.ellipsoid((0.02 + hr * 1.04, -0.11, 0.46), (0.05, 0.075, 0.05), contrast([WHITE, GLASS, INK], glass))
    for y in (-1, 1):
        s.ellipsoid((0.02, y * hr * 1.05, 0.36), (0.11, 0.06, 0.11), trim)
        s.capsule((0, y * 0.13, -0.36), (0.01, y * 0.16, -0.58), 0.125, suit)
        s.ellipsoid((0.07, y * 0.17, -0.68), (0.2, 0.14, 0.11), pack)
    s.box((r * 0.82, 0, -0.15), (0.06, 0.15, 0.1), trim, None, 0.03)
    for y, colour in ((-0.07, COLORS["red"]), (0.07, COLORS["blue"])):
        s.ellipsoid((r * 0.82 + 0.06, y, -0.14), 0.05, colour)
    lift = rng.uniform(0.0, 0.32)
    for y, hand_z in ((-1, -0.3), (1, -0.2 + lift)):
        hand = (0.14, y * (r + 0.24), hand_z)
        s.capsule((0, y * r * 0.95, 0.0), hand, 0.105, suit)
        s.ellipsoid(hand, 0.12, pack)
    if "flag" in extras:
        y, z = r + 0.26, -0.2 + lift
        s.capsule((0.2, y, z - 0.3), (0.2, y, 0.8), 0.035, trim)
        s.box((0.2, y - 0.2, 0.66), (0.03, 0.2, 0.14), pack, None, 0.02)


def robot(s: Shape, rng: np.random.Generator, body: Colour, accent: Colour, extras: tuple[str, ...]):
    w, h = rng.uniform(0.26, 0.32), rng.uniform(0.24, 0.28)
    metal = contrast([COLORS["grey"], STEEL, INK], body, accent)
    s.box((0, 0, -0.1), (0.22, w, h), body, None, 0.06)
    s.cone((0, 0, -0.1 + h + 0.03), 0.07, 0.1, 0.1, metal)
    hw, hz = rng.uniform(0.27, 0.32), -0.1 + h + 0.29
    s.box((0, 0, hz), (0.23, hw, 0.21), body, None, 0.07)
    s.box((0.21, 0, hz + 0.03), (0.05, hw * 0.85, 0.13), INK, None, 0.04)
    for y in (-1, 1):
        s.ellipsoid((0.26, y * hw * 0.42, hz + 0.04), (0.05, 0.085, 0.085), contrast([accent, GLASS, WHITE], INK, body))
        s.cone((0, y * (hw + 0.04), hz), 0.05, 0.1, 0.1, metal, turn("x", 90))
        s.capsule((0, y * (w + 0.05), -0.1 + h * 0.6), (rng.uniform(0, 0.2), y * (w + 0.16), -0.28), 0.085, metal)
        s.ellipsoid((0.1, y * (w + 0.17), -0.34), 0.125, accent)
        s.capsule((0, y * w * 0.52, -0.1 - h), (0, y * w * 0.52, -0.55), 0.1, metal)
        s.box((0.06, y * w * 0.55, -0.66), (0.2, 0.14, 0.09), accent, None, 0.05)
    s.box((0.22, 0, -0.08), (0.03, w * 0.65, h * 0.55), contrast([WHITE, STEEL, INK], body), None, 0.02)
    for y, colour in ((-0.09, COLORS["red"]), (0.09, COLORS["green"])):
        s.ellipsoid((0.25, y, -0.06), (0.05, 0.065, 0.065), colour)
    s.box((-0.24, 0, -0.08), (0.08, w * 0.65, h * 0.7), metal, None, 0.04)
    if "antenna" in extras:
        s.capsule((0, 0, hz + 0.2), (0, 0, hz + 0.36), 0.045, metal)
        s.ellipsoid((0, 0, hz + 0.42), 0.1, accent)


def bust(s: Shape, rng: np.random.Generator, stone: Colour, pedestal: Colour, extras: tuple[str, ...]):
    dark = contrast([shade(stone, 0.5), shade(stone, 1.6)], stone)
    s.box((0, 0, -0.74), (0.27, 0.27, 0.07), pedestal)
    s.cone((0, 0, -0.62), 0.1, 0.17, 0.14, pedestal)
    s.box((0, 0, -0.5), (0.2, 0.22, 0.05), pedestal)
    w = rng.uniform(0.36, 0.42)
    s.ellipsoid((0, 0, -0.28), (0.24, w, 0.22), stone)
    s.capsule((0, 0, -0.2), (0.02, 0, 0.1), 0.14, stone)
    head, hz = (0.3, 0.27, 0.34), 0.32
    s.ellipsoid((0.04, 0, hz), head, stone)
    s.ellipsoid((0.17, 0, hz - 0.2), (0.15, 0.16, 0.13), stone)
    s.capsule((0.34, 0, hz + 0.06), (0.39, 0, hz - 0.05), 0.055, stone)
    s.eyes((0.04, 0, hz), head, 0.075, yaw=27, pitch=9)
    s.capsule((0.325, -0.08, hz - 0.17), (0.325, 0.08, hz - 0.17), 0.035, dark)
    for y in (-1, 1):
        s.capsule((0.32, y * 0.06, hz + 0.16), (0.27, y * 0.2, hz + 0.17), 0.035, dark)
        s.ellipsoid((0.04, y * 0.28, hz - 0.02), (0.07, 0.05, 0.1), stone)
    for k in range(9):
        a = 2 * math.pi * k / 9
        s.ellipsoid((-0.03 + 0.2 * math.cos(a), 0.2 * math.sin(a), hz + 0.25), 0.115, dark)
    s.ellipsoid((-0.02, 0, hz + 0.3), 0.18, dark)
    for y in (-1, 0, 1):
        s.ellipsoid((-0.2, y * 0.15, hz + 0.08), 0.135, dark)
        s.ellipsoid((-0.2, y * 0.13, hz - 0.1), 0.115, dark)
    if "beard" in extras:
        for y, z in ((-0.13, -0.22), (0.13, -0.22), (-0.06, -0.32), (0.06, -0.32), (0, -0.4)):
            s.ellipsoid((0.22, y, hz + z), 0.11, dark)
    if "crown" in extras:
        s.torus((0, 0, hz + 0.33), 0.24, 0.055, GOLD)
        for k in range(6):
            a = 2 * math.pi * k / 6
            s.cone((0.24 * math.cos(a), 0.24 * math.sin(a), hz + 0.42), 0.1, 0.07, 0.01, GOLD, None, 0.01)
