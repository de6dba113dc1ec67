"""Lab figures that stand upright and face us. Each function fills a `Shape` as those in `mammals`."""

import math

import numpy as np

from geodream_lib.lab.shape import (
    ALONG_X,
    COLORS,
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
