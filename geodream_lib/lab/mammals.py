"""Lab animals with fur. Each function fills a `Shape` from a random generator, two colours and attachments."""

import numpy as np

from geodream_lib.lab.shape import (
    ALONG_X,
    COLORS,
    CREAM,
    GOLD,
    INK,
    STEEL,
    WHITE,
    Colour,
    Shape,
    along,
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
    s.seat = (-0.14, 0, r - 0.188)


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


def squirrel(s: Shape, rng: np.random.Generator, fur: Colour, nut: Colour, extras: tuple[str, ...]):
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
    x, z, size = r + 0.12, rng.uniform(-0.26, -0.22), rng.uniform(0.16, 0.18)
    lean, cap = turn("y", -14), contrast([shade(nut, 0.55), shade(nut, 1.6)], nut)

    def place(up):  # from the acorn's axis to the squirrel
        return np.array([x, 0.0, z]) + lean @ np.array([0.0, 0.0, up])

    s.ellipsoid(place(-0.03), (size, size, size * 1.25), nut, lean)
    s.cone(place(-size * 1.25 - 0.03), 0.06, 0.02, 0.06, nut, lean)
    s.ellipsoid(place(0.11), (size * 1.1, size * 1.1, 0.085), cap, lean)
    s.capsule(place(0.16), place(0.24), 0.035, cap)
    for y in (-1, 1):
        s.capsule((0.05, y * r * 0.95, -0.06), (x - 0.05, y * size * 1.1, z - 0.04), 0.075, fur)
        s.ellipsoid((x + 0.02, y * size * 1.02, z - 0.04), (0.085, 0.07, 0.08), shade(fur, 0.75))
    if "hat" in extras:
        s.hat((0.03, 0, hz + hr * 0.88), 0.15, nut)


def giraffe(s: Shape, rng: np.random.Generator, coat: Colour, spots: Colour, extras: tuple[str, ...]):
    length, r, pale = rng.uniform(0.2, 0.26), rng.uniform(0.2, 0.23), _muzzle(coat)
    s.capsule((-length, 0, -0.25), (length, 0, -0.2), r, coat)
    for x in (-length, length):
        for y in (-1, 1):
            s.capsule((x, y * 0.13, -0.3), (x, y * 0.14, -0.74), 0.095, coat)
            s.cone((x, y * 0.14, -0.81), 0.075, 0.115, 0.11, shade(spots, 0.8))
    top = np.array([length + rng.uniform(0.2, 0.28), 0, rng.uniform(0.6, 0.72)])
    base = np.array([length * 0.9, 0, -0.15])
    s.cone((base + top) / 2, np.linalg.norm(top - base) / 2, 0.19, 0.135, coat, along(top - base), 0.02)
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
    s.seat = (-length * 0.25, 0, r * 0.93 - 0.18)
    if "scarf" in extras:
        p = base + 0.72 * (top - base)
        s.scarf(p, 0.14, 0.06, shade(spots, 0.9), (p[0] + 0.22, 0.12, p[2] - 0.3))


def horse(s: Shape, rng: np.random.Generator, coat: Colour, saddle: Colour, extras: tuple[str, ...]):
    length, r, pale = rng.uniform(0.27, 0.33), rng.uniform(0.2, 0.23), _muzzle(coat)
    hair, metal = contrast([INK, CREAM, shade(coat, 0.5)], coat, saddle), contrast([STEEL, GOLD], coat, saddle)
    s.capsule((-length, 0, 0), (length, 0, 0), r, coat)
    s.ellipsoid((-length, 0, 0.03), (r * 1.05, r * 1.08, r * 1.02), coat)
    for x in (-length * 1.08, length * 1.08):
        for y in (-1, 1):
            s.capsule((x, y * 0.12, -0.1), (x, y * 0.13, -0.55), 0.085, coat)
            s.cone((x + 0.01, y * 0.13, -0.62), 0.075, 0.115, 0.09, hair)
    base, top = np.array([length * 0.95, 0, 0.05]), np.array([length + 0.24, 0, rng.uniform(0.44, 0.5)])
    s.cone((base + top) / 2, np.linalg.norm(top - base) / 2, r * 0.85, 0.125, coat, along(top - base), 0.02)
    s.ellipsoid(top, (0.18, 0.15, 0.17), coat)
    nose = top + [0.3, 0, -0.16]
    s.capsule(top + [0.03, 0, -0.01], nose - [0.08, 0, -0.04], 0.125, coat)
    s.ellipsoid(nose, (0.14, 0.135, 0.12), pale)
    s.capsule(top + [0.1, 0, 0.09], top + [0.26, 0, -0.01], 0.055, pale)
    for y in (-1, 1):
        s.ellipsoid(nose + [0.11, y * 0.06, 0.02], 0.035, INK)
        s.cone(top + [-0.05, y * 0.1, 0.2], 0.12, 0.07, 0.015, coat, turn("x", -y * 12), 0.015)
    s.eyes(top + [0.04, 0, 0.03], (0.15, 0.14, 0.14), 0.075, yaw=55, pitch=20)
    for f in (0.2, 0.45, 0.7, 0.95):
        p = base + f * (top - base) + [-r * 0.85 + 0.06 * f, 0, 0.06]
        s.ellipsoid(p, (0.1, 0.08, 0.13), hair)
    s.ellipsoid(top + [0.03, 0, 0.16], (0.12, 0.07, 0.07), hair, turn("y", 20))
    rump = np.array([-length - r * 0.95, 0, 0.08])
    s.capsule(rump, rump + [-0.13, 0, -0.06], 0.07, hair)
    s.capsule(rump + [-0.13, 0, -0.06], rump + [-0.18, 0, -0.36], 0.085, hair)
    leather = shade(saddle, 0.7)
    s.cone((0, 0, 0), 0.06, r + 0.022, r + 0.022, leather, ALONG_X)
    s.box((0, 0, r - 0.01), (0.17, r * 0.7, 0.06), saddle, None, 0.055)
    s.capsule((0.14, -0.06, r + 0.06), (0.14, 0.06, r + 0.06), 0.045, saddle)
    s.capsule((-0.16, -0.1, r + 0.05), (-0.16, 0.1, r + 0.05), 0.05, saddle)
    for y in (-1, 1):
        s.box((0, y * (r - 0.015), 0.06), (0.17, 0.06, 0.13), saddle, turn("x", y * 12), 0.055)
        s.capsule((0.02, y * (r + 0.02), -0.05), (0.02, y * (r + 0.03), -0.16), 0.035, leather)
        s.ellipsoid((0.03, y * (r + 0.04), -0.2), (0.07, 0.05, 0.05), metal)
    s.seat = (-0.005, 0, r + 0.05)
