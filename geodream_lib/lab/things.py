"""Lab objects that stand still. Each function fills a `Shape` as those in `mammals`."""

import math

import numpy as np

from geodream_lib.lab.shape import (
    ALONG_X,
    ALONG_Y,
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


def mushroom(s: Shape, rng: np.random.Generator, cap: Colour, log: Colour, extras: tuple[str, ...]):
    r, half = rng.uniform(0.19, 0.22), rng.uniform(0.5, 0.58)
    s.cone((0, 0, -0.5), half, r, r, log, ALONG_Y, 0.03)
    wood = contrast([CREAM, shade(log, 0.55)], log)
    for y in (-1, 1):
        s.cone((0, y * half, -0.5), 0.02, r * 0.8, r * 0.8, wood, ALONG_Y)
        s.cone((0, y * (half + 0.012), -0.5), 0.02, r * 0.4, r * 0.4, shade(wood, 0.6), ALONG_Y)
    s.capsule((0, half * 0.62, -0.45), (0.05, half * 0.8, -0.5 + r + 0.14), 0.085, log)
    height, width = rng.uniform(0.56, 0.64), rng.uniform(0.42, 0.5)
    stem = contrast([CREAM, WHITE], cap, log)
    z = -0.5 + r * 0.9
    s.cone((0, 0, z + height / 2), height / 2, 0.25, 0.21, stem, None, 0.03)
    s.eyes((0, 0, z + 0.24), (0.22, 0.22, 0.1), 0.09, yaw=28, pitch=5)
    s.ellipsoid((0.235, 0, z + 0.1), (0.04, 0.07, 0.04), contrast([COLORS["red"], INK], stem))
    zc, hc = z + height, rng.uniform(0.27, 0.33)
    s.ellipsoid((0, 0, zc + 0.06), (width, width, hc), cap)
    s.cone((0, 0, zc - 0.01), 0.06, width * 0.6, width * 0.95, stem, None, 0.04)
    dots = contrast([WHITE, CREAM, shade(cap, 0.5)], cap)
    phase = rng.uniform(0, math.pi)
    for k in range(7):
        pitch = 1.45 if k == 6 else (0.35 if k % 2 else 0.85)
        a = phase + k * math.pi / 3
        p = (math.cos(pitch) * math.cos(a), math.cos(pitch) * math.sin(a), math.sin(pitch))
        s.ellipsoid((width * 0.97 * p[0], width * 0.97 * p[1], zc + 0.06 + hc * 0.97 * p[2]), 0.1, dots)
    s.seat = (width * 0.97 * p[0], 0.97 * width * p[1], zc + 0.06 + hc * 0.97 * p[2] + 0.1)
    if "ladybug" in extras:
        s.ellipsoid((0.06, -half * 0.66, -0.5 + r + 0.03), (0.13, 0.11, 0.1), contrast([COLORS["red"], GOLD], log, cap))
        s.ellipsoid((0.17, -half * 0.66, -0.5 + r + 0.03), 0.075, INK)


def icecream(s: Shape, rng: np.random.Generator, scoop: Colour, cone: Colour, extras: tuple[str, ...]):
    r, half = rng.uniform(0.33, 0.38), rng.uniform(0.38, 0.46)
    s.cone((0, 0, -half), half, 0.05, r * 0.9, cone, None, 0.03)
    band = contrast([shade(cone, 0.7), shade(cone, 1.5)], cone)
    for f in (0.35, 0.62, 0.88):
        s.torus((0, 0, -2 * half * (1 - f)), 0.05 + (r * 0.9 - 0.05) * f - 0.005, 0.035, band)
    s.torus((0, 0, 0.03), r * 0.82, 0.1, scoop)
    s.ellipsoid((0, 0, 0.14), r, scoop)
    z, top = 0.14 + r, r
    if rng.random() < 0.5:
        top *= rng.uniform(0.76, 0.84)
        s.torus((0, 0, z - top * 0.1), top * 0.8, 0.08, shade(scoop, 0.9))
        s.ellipsoid((0, 0, z + top * 0.35), top, scoop)
        z += top * 1.3
    if "cherry" in extras:
        s.ellipsoid((0, 0, z + 0.07), 0.12, contrast([COLORS["red"], COLORS["green"]], scoop))


def cake(s: Shape, rng: np.random.Generator, sponge: Colour, icing: Colour, extras: tuple[str, ...]):
    r, h = rng.uniform(0.5, 0.58), rng.uniform(0.17, 0.21)
    s.cone((0, 0, -0.04), 0.04, r + 0.14, r + 0.14, contrast([STEEL, GLASS, GOLD], sponge, icing))
    s.cone((0, 0, h), h, r, r, sponge, None, 0.04)
    drips = 12
    z = 2 * h
    s.cone((0, 0, z), 0.06, r + 0.03, r + 0.02, icing, None, 0.04)
    top = z + 0.06
    for k in range(drips):
        a = 2 * math.pi * k / drips
        x, y = (r + 0.01) * math.cos(a), (r + 0.01) * math.sin(a)
        s.capsule((x, y, z), (x, y, z - (0.14 if k % 3 else 0.22)), 0.06, icing)
    if rng.random() < 0.6:
        s.cone((0, 0, z + 0.17), 0.15, r * 0.58, r * 0.58, sponge, None, 0.04)
        s.cone((0, 0, z + 0.32), 0.05, r * 0.62, r * 0.6, icing, None, 0.04)
        z, r, top = z + 0.35, r * 0.58, z + 0.37
    if "candles" in extras:
        for k in range(4):
            a = math.pi * k / 2
            x, y = r * 0.6 * math.cos(a), r * 0.6 * math.sin(a)
            s.capsule((x, y, z), (x, y, z + 0.22), 0.05, contrast([WHITE, COLORS["blue"], COLORS["red"]], icing, GOLD))
            s.ellipsoid((x, y, z + 0.33), (0.055, 0.055, 0.085), COLORS["orange"])
    if "cherry" in extras:
        s.ellipsoid((0, 0, z + 0.12), 0.13, contrast([COLORS["red"], COLORS["green"]], icing))
    if not extras:
        s.seat = (0, 0, top)


def vase(s: Shape, rng: np.random.Generator, glaze: Colour, band: Colour, extras: tuple[str, ...]):
    r, h = rng.uniform(0.28, 0.42), rng.uniform(0.34, 0.48)
    s.ellipsoid((0, 0, 0), (r, r, h), glaze)
    s.cone((0, 0, -h + 0.02), 0.08, r * 0.7, r * 0.55, glaze)
    s.cone((0, 0, h), 0.16, r * 0.5, r * 0.5, glaze)
    s.cone((0, 0, h + 0.19), 0.07, r * 0.5, r * 0.8, glaze)
    s.torus((0, 0, h + 0.25), r * 0.72, 0.06, band)
    s.torus((0, 0, 0), r * 0.97, 0.055, band)
    for z in (-0.5, 0.5):
        s.torus((0, 0, z * h), r * 0.85, 0.05, band)
    s.cone((0, 0, h + 0.25), 0.02, r * 0.68, r * 0.68, INK)
    if "flowers" in extras:
        petal, heart = contrast([COLORS["pink"], COLORS["yellow"], WHITE], glaze, band), GOLD
        s.cone((0, 0, h + 0.38), 0.14, 0.1, 0.24, COLORS["green"])
        for k in range(4):
            a = math.pi * (k / 2 + 0.25)
            s.ellipsoid((0.24 * math.cos(a), 0.24 * math.sin(a), h + 0.6), 0.17, petal)
            s.ellipsoid((0.33 * math.cos(a), 0.33 * math.sin(a), h + 0.67), 0.08, heart)
        s.ellipsoid((0, 0, h + 0.74), 0.18, petal)
        s.ellipsoid((0, 0, h + 0.88), 0.08, heart)


def tree(s: Shape, rng: np.random.Generator, leaves: Colour, pot: Colour, extras: tuple[str, ...]):
    r = rng.uniform(0.46, 0.54)
    s.cone((0, 0, -0.78), 0.16, 0.22, 0.29, pot)
    s.torus((0, 0, -0.63), 0.29, 0.05, pot)
    s.cone((0, 0, -0.55), 0.14, 0.1, 0.1, contrast([COLORS["brown"], CREAM], leaves, pot))
    tiers = ((-0.22, 0.26, r), (0.14, 0.24, r * 0.8), (0.48, 0.23, r * 0.58))
    ball = contrast([COLORS["red"], GOLD, COLORS["blue"], WHITE], leaves)
    for k, (z, h, radius) in enumerate(tiers):
        s.cone((0, 0, z), h, radius, 0.08, shade(leaves, 1.0 - 0.08 * (2 - k)), None, 0.04)
        if "balls" in extras:
            for q in range(4):
                a = math.pi * (q / 2 + 0.25 * k)
                s.ellipsoid((radius * 0.9 * math.cos(a), radius * 0.9 * math.sin(a), z - h * 0.75), 0.085, ball)
    if "star" in extras:
        s.ellipsoid((0, 0, 0.8), 0.1, GOLD)
        for q in range(2):
            s.ellipsoid((0, 0, 0.8), (0.2, 0.05, 0.05), GOLD, turn("z", 90 * q))
        s.ellipsoid((0, 0, 0.8), (0.05, 0.05, 0.2), GOLD)


def house(s: Shape, rng: np.random.Generator, walls: Colour, roof: Colour, extras: tuple[str, ...]):
    d, w, h = rng.uniform(0.36, 0.44), rng.uniform(0.42, 0.5), rng.uniform(0.25, 0.3)
    rise = rng.uniform(0.32, 0.42)
    s.box((0, 0, -0.05), (d + 0.12, w + 0.12, 0.05), contrast([COLORS["green"], CREAM], walls), None, 0.03)
    s.box((0, 0, h), (d, w, h), walls, None, 0.02)
    s.prism((0, 0, 2 * h - 0.02), d - 0.02, w, rise, walls)
    angle = math.degrees(math.atan2(rise, w))
    half = math.hypot(w, rise) / 2 + 0.08
    for y in (-1, 1):
        middle = (0, y * (w / 2 + 0.05), 2 * h + rise / 2 + 0.01)
        s.box(middle, (d + 0.08, half, 0.055), roof, turn("x", -y * angle), 0.02)
    door = contrast([COLORS["brown"], WHITE, COLORS["blue"]], walls)
    s.box((d, 0, h * 0.66), (0.04, 0.13, h * 0.66), door, None, 0.02)
    s.ellipsoid((d + 0.05, 0.07, h * 0.6), 0.035, contrast([GOLD, INK], door))
    frame, glass = contrast([WHITE, INK], walls), contrast([GLASS, (0.2, 0.3, 0.5)], walls)
    for y in (-1, 1):
        s.box((d, y * w * 0.63, h * 1.1), (0.03, 0.125, 0.125), frame, None, 0.01)
        s.box((d + 0.015, y * w * 0.63, h * 1.1), (0.03, 0.085, 0.085), glass, None, 0.01)
        for x in (-0.17, 0.17):
            s.box((x, y * w, h * 1.1), (0.12, 0.03, 0.125), frame, None, 0.01)
            s.box((x, y * (w + 0.015), h * 1.1), (0.08, 0.03, 0.085), glass, None, 0.01)
    s.cone((d - 0.01, 0, 2 * h + rise * 0.35), 0.03, 0.1, 0.1, glass, ALONG_X)
    if "chimney" in extras:
        z = 2 * h + rise * 0.6
        s.box((-d * 0.4, w * 0.5, z), (0.1, 0.1, 0.26), contrast([(0.6, 0.25, 0.2), COLORS["grey"]], roof), None, 0.02)
    if "flag" in extras:
        z = 2 * h + rise
        s.capsule((0, 0, z), (0, 0, z + 0.4), 0.035, COLORS["grey"])
        s.box((0, 0.16, z + 0.3), (0.03, 0.15, 0.1), roof, None, 0.02)
    else:
        s.seat = (0, 0, 2 * h + rise + 0.07)


def axe(s: Shape, rng: np.random.Generator, head: Colour, handle: Colour, extras: tuple[str, ...]):
    length, z = rng.uniform(0.62, 0.7), 0.42
    s.capsule((0, 0, -length), (0, 0, 0.62), 0.085, handle)
    s.cone((0, 0, -length), 0.08, 0.13, 0.12, shade(handle, 0.7), None, 0.04)
    grip = contrast([shade(handle, 0.6), CREAM], handle)
    for k in range(3):
        s.torus((0, 0, -length + 0.2 + 0.1 * k), 0.075, 0.035, grip)
    s.box((0, 0, z), (0.13, 0.16, 0.15), head, None, 0.04)
    reach, wide = rng.uniform(0.4, 0.46), rng.uniform(0.3, 0.36)
    s.prism((0, reach, z), 0.1, wide, reach + wide * 0.8, head, turn("x", 90))
    edge = contrast([STEEL, WHITE, COLORS["grey"]], head)
    s.ellipsoid((0, reach, z), (0.1, 0.11, wide * 1.02), edge)
    s.box((0, -0.2, z), (0.1, 0.1, 0.11), edge, None, 0.03)
    gem = contrast([COLORS["yellow"], COLORS["red"], COLORS["blue"]], head)
    s.ellipsoid((0.13, 0, z), (0.07, 0.11, 0.11), gem)
    s.ellipsoid((0.1, reach * 0.62, z), (0.06, 0.1, 0.1), gem)


def teapot(s: Shape, rng: np.random.Generator, pot: Colour, lid: Colour, extras: tuple[str, ...]):
    r, h = rng.uniform(0.4, 0.45), rng.uniform(0.34, 0.4)
    s.ellipsoid((0, 0, 0), (r, r, h), pot)
    s.cone((0, 0, -h * 0.9), 0.07, r * 0.62, r * 0.6, lid)
    s.capsule((0, r * 0.7, -0.1), (0, r + 0.12, 0.06), 0.12, pot)
    s.capsule((0, r + 0.12, 0.06), (0, r + 0.24, 0.26), 0.085, pot)
    s.torus((0, r + 0.25, 0.29), 0.07, 0.04, lid, turn("x", -30))
    s.torus((0, -r - 0.04, 0.02), 0.2, 0.065, lid, turn("y", 90))
    s.ellipsoid((0, 0, h * 0.8), (r * 0.7, r * 0.7, 0.13), lid)
    s.ellipsoid((0, 0, h * 0.8 + 0.18), 0.1, contrast([pot, WHITE], lid))
    s.seat = (0, 0, h * 0.8 + 0.28)
    petal = contrast([WHITE, COLORS["pink"], GOLD], pot)
    for k in range(6):
        a = math.pi * k / 3
        s.ellipsoid((r * 0.94, 0.13 * math.cos(a), -0.02 + 0.13 * math.sin(a)), (0.06, 0.075, 0.075), petal)
    s.ellipsoid((r * 0.97, 0, -0.02), (0.07, 0.075, 0.075), contrast([GOLD, COLORS["red"]], petal, pot))


def guitar(s: Shape, rng: np.random.Generator, body: Colour, neck: Colour, extras: tuple[str, ...]):
    low, high, rim = rng.uniform(0.31, 0.35), rng.uniform(0.23, 0.26), shade(body, 0.9)
    z0, z1, z2 = -0.5, -0.5 + low + high * 0.45, rng.uniform(0.55, 0.62)
    s.cone((0, 0, z0), 0.1, low, low, rim, ALONG_X, 0.03)
    s.cone((0, 0, z1), 0.1, high, high, rim, ALONG_X, 0.03)
    s.cone((0.09, 0, z0), 0.03, low * 0.95, low * 0.95, body, ALONG_X, 0.01)
    s.cone((0.09, 0, z1), 0.03, high * 0.94, high * 0.94, body, ALONG_X, 0.01)
    s.box((0, 0, (z0 + z1) / 2), (0.1, high * 0.85, 0.12), rim, None, 0.03)
    s.box((0.09, 0, (z0 + z1) / 2), (0.03, high * 0.82, 0.12), body, None, 0.01)
    hole = z1 - high * 0.35
    s.cone((0.12, 0, hole), 0.015, 0.14, 0.14, contrast([CREAM, COLORS["brown"]], body, INK), ALONG_X, 0.005)
    s.cone((0.13, 0, hole), 0.015, 0.105, 0.105, INK, ALONG_X, 0.005)
    s.box((0.13, 0, z0 - low * 0.3), (0.04, 0.15, 0.04), neck, None, 0.02)
    start = z1 + high * 0.35
    s.box((0.11, 0, (start + z2) / 2), (0.06, 0.065, (z2 - start) / 2 + 0.03), neck, None, 0.02)
    fret = contrast([GOLD, STEEL, INK], neck)
    for k in range(4):
        s.box((0.125, 0, start + 0.06 + (z2 - start - 0.06) * k / 3), (0.06, 0.07, 0.02), fret, None, 0.01)
    s.box((0.09, 0, z2 + 0.14), (0.045, 0.1, 0.13), shade(neck, 0.75), turn("y", -8), 0.03)
    for z in (0.05, 0.14, 0.23):
        for y in (-1, 1):
            s.ellipsoid((0.09 - z * 0.1, y * 0.13, z2 + z), (0.045, 0.06, 0.04), fret)
