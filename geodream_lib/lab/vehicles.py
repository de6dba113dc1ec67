"""Lab objects to travel in, driving toward +x. Each function fills a `Shape` as those in `mammals`."""

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


def car(s: Shape, rng: np.random.Generator, body: Colour, roof: Colour, extras: tuple[str, ...]):
    half, w = rng.uniform(0.6, 0.68), rng.uniform(0.33, 0.37)
    s.box((0, 0, 0), (half, w, 0.16), body, None, 0.1)
    s.box((-0.08, 0, 0.24), (0.36, w * 0.88, 0.17), body, None, 0.08)
    s.box((-0.08, 0, 0.41), (0.34, w * 0.88, 0.06), roof, None, 0.05)
    glass = contrast([GLASS, (0.12, 0.17, 0.28)], body, roof)
    s.box((0.25, 0, 0.25), (0.05, w * 0.74, 0.11), glass, turn("y", -15), 0.03)
    for y in (-1, 1):
        for x in (-0.24, 0.08):
            s.box((x, y * w * 0.87, 0.25), (0.13, 0.03, 0.1), glass, None, 0.02)
        s.ellipsoid((half - 0.01, y * w * 0.62, 0.03), (0.06, 0.095, 0.095), contrast([GOLD, WHITE], body))
        s.box((0.01 - half, y * w * 0.7, 0.03), (0.04, 0.07, 0.05), contrast([COLORS["red"], GOLD], body), None, 0.02)
        for x in (-half * 0.58, half * 0.58):
            s.cone((x, y * w * 0.94, -0.14), 0.08, 0.185, 0.185, INK, ALONG_Y, 0.03)
            s.cone((x, y * (w * 0.94 + 0.07), -0.14), 0.025, 0.1, 0.1, STEEL, ALONG_Y)
    s.box((half - 0.01, 0, 0.01), (0.04, w * 0.3, 0.06), INK, None, 0.02)
    for x in (-half, half):
        s.box((x, 0, -0.12), (0.06, w * 0.95, 0.045), STEEL, None, 0.03)
    s.seat = (-0.1, 0, 0.64 if "suitcase" in extras else 0.47)
    if "suitcase" in extras:
        s.box((-0.1, 0, 0.54), (0.22, w * 0.6, 0.09), contrast([COLORS["brown"], CREAM], roof), None, 0.04)
        s.box((-0.1, 0, 0.54), (0.05, w * 0.62, 0.1), contrast([GOLD, INK], roof), None, 0.02)


def rocket(s: Shape, rng: np.random.Generator, hull: Colour, fins: Colour, extras: tuple[str, ...]):
    r, h = rng.uniform(0.26, 0.3), rng.uniform(0.4, 0.46)
    s.cone((0, 0, 0), h, r * 0.9, r, hull)
    s.ellipsoid((0, 0, h), (r, r, 0.16), hull)
    s.cone((0, 0, h + 0.22), 0.2, r * 0.84, 0.03, fins, None, 0.02)
    metal = contrast([STEEL, COLORS["grey"], INK], hull)
    s.torus((r * 0.96, 0, 0.17), 0.13, 0.045, metal, turn("y", 90))
    s.ellipsoid((r * 0.96, 0, 0.17), (0.05, 0.11, 0.11), contrast([GLASS, INK, WHITE], hull, metal))
    door = contrast([WHITE, INK, GOLD], hull)
    s.box((r * 0.92, 0, -0.2), (0.06, 0.11, 0.15), door, None, 0.04)
    s.ellipsoid((r * 0.92 + 0.065, 0.06, -0.2), 0.03, contrast([INK, WHITE], door))
    for k in range(4):
        turned = turn("z", 45 + 90 * k)
        at = turned @ np.array([r + 0.1, 0.0, -h + 0.04])
        s.box(at, (0.15, 0.05, 0.17), fins, turned @ turn("y", 35), 0.03)
    s.cone((0, 0, -h - 0.07), 0.08, r * 0.7, r * 0.5, metal)
    if "flames" in extras:
        s.cone((0, 0, -h - 0.24), 0.15, 0.03, r * 0.55, COLORS["orange"], None, 0.02)
        s.cone((0, 0, -h - 0.2), 0.1, 0.03, r * 0.62, COLORS["yellow"], None, 0.02)


def boat(s: Shape, rng: np.random.Generator, hull: Colour, sail: Colour, extras: tuple[str, ...]):
    stern, w, bow = rng.uniform(0.46, 0.54), rng.uniform(0.26, 0.3), rng.uniform(0.42, 0.5)
    middle, half, start = (0.14 - stern) / 2, (0.14 + stern) / 2, 0.13
    rail, wood = contrast([WHITE, CREAM], hull), contrast([CREAM, COLORS["brown"]], hull, sail)
    s.box((middle, 0, -0.47), (half, w, 0.13), hull, None, 0.03)
    s.prism((start, 0, -0.47), 0.13, w, bow, hull, ALONG_X)
    s.ellipsoid((middle + 0.06, 0, -0.58), (half + 0.14, w * 0.86, 0.18), shade(hull, 0.65))
    s.box((middle, 0, -0.34), (half + 0.03, w + 0.03, 0.04), rail, None, 0.03)
    s.prism((start, 0, -0.34), 0.04, w + 0.03, bow + 0.06, rail, ALONG_X)
    s.box((middle, 0, -0.31), (half - 0.03, w - 0.04, 0.03), wood, None, 0.01)
    s.prism((start, 0, -0.31), 0.03, w - 0.04, bow - 0.1, wood, ALONG_X)
    s.box((-stern - 0.05, 0, -0.52), (0.06, 0.035, 0.16), wood, None, 0.02)
    cabin = contrast([WHITE, CREAM, COLORS["red"]], hull, rail, wood)
    glass = contrast([GLASS, (0.12, 0.17, 0.28)], cabin)
    s.box((0.12, 0, -0.19), (0.17, w * 0.72, 0.13), cabin, None, 0.03)
    s.box((0.12, 0, -0.05), (0.2, w * 0.8, 0.035), rail, None, 0.03)
    for y in (-1, 1):
        s.box((0.285, y * w * 0.34, -0.17), (0.03, w * 0.24, 0.06), glass, None, 0.02)
        s.box((0.12, y * w * 0.71, -0.17), (0.1, 0.03, 0.06), glass, None, 0.02)
        for x in (-0.34, -0.08, 0.18):
            s.ellipsoid(
                (x, y * w * (1 if x < 0.1 else 0.9), -0.47), (0.05, 0.045, 0.05), contrast([GLASS, WHITE, INK], hull)
            )
    x, top = -0.14, rng.uniform(0.72, 0.8)
    s.capsule((x, 0, -0.3), (x, 0, top), 0.04, wood)
    leg, apex, swing = (
        top + 0.08,
        math.radians(rng.uniform(23, 26)),
        turn("z", rng.choice([-1, 1]) * rng.uniform(46, 56)),
    )
    cloth = swing @ turn("y", math.degrees(apex)) @ turn("z", 90)
    height = leg * math.cos(apex)
    foot = np.array([x, 0, top - 0.04]) + swing @ np.array(
        [-height * math.sin(apex) - 0.05, 0, -height * math.cos(apex)]
    )
    s.prism(foot, 0.045, leg * math.sin(apex), height, sail, cloth)
    reach = cloth @ np.array([0, leg * math.sin(apex), 0])
    s.capsule(foot - reach, foot + reach, 0.04, wood)
    if "flag" in extras:
        s.box((x - 0.13, 0, top), (0.13, 0.03, 0.08), sail, None, 0.02)
    s.seat = (0.12, 0, -0.015)


def airplane(s: Shape, rng: np.random.Generator, hull: Colour, wings: Colour, extras: tuple[str, ...]):
    r, nose, tail = rng.uniform(0.17, 0.2), rng.uniform(0.46, 0.52), rng.uniform(0.66, 0.74)
    metal = contrast([STEEL, INK, GOLD], hull, wings)
    s.capsule((-0.1, 0, 0), (nose - r, 0, 0), r, hull)
    s.cone((-0.1 - tail / 2 + 0.1, 0, 0.02), tail / 2, 0.08, r, hull, turn("y", 88), 0.02)
    s.cone((nose - 0.04, 0, 0), 0.08, r * 0.98, r * 0.75, hull, ALONG_X, 0.03)
    s.ellipsoid((nose + 0.09, 0, 0), (0.11, 0.08, 0.08), metal)
    phase, blade = rng.uniform(0, 120), contrast([INK, WHITE], hull)
    for k in range(3):
        spun = turn("x", phase + 120 * k)
        s.ellipsoid(spun @ np.array([0, 0, 0.18]) + [nose + 0.08, 0, 0], (0.04, 0.065, 0.18), blade, spun)
    span, chord = rng.uniform(0.72, 0.82), rng.uniform(0.15, 0.18)
    low = rng.uniform(-0.1, -0.05)
    s.box((0.1, 0, low), (chord, span, 0.045), wings, None, 0.04)
    end = -0.1 - tail + 0.13
    s.box((end, 0, 0.05), (0.1, 0.3, 0.04), wings, None, 0.035)
    s.box((end - 0.03, 0, 0.18), (0.11, 0.04, 0.2), wings, turn("y", -25), 0.035)
    glass = contrast([GLASS, (0.12, 0.17, 0.28)], hull, wings)
    s.ellipsoid((0.17, 0, r * 0.72), (0.19, r * 0.72, 0.17), glass)
    s.box((0.15, 0, r * 0.7), (0.035, r * 0.74, 0.175), hull, None, 0.03)
    for y in (-1, 1):
        for x in (-0.12, -0.3):
            s.ellipsoid((x, y * r * (0.95 if x > -0.2 else 0.8), 0.06), (0.06, 0.05, 0.06), glass)
        s.capsule((0.2, y * 0.12, -0.1), (0.22, y * 0.22, -0.3), 0.04, metal)
        s.cone((0.22, y * 0.24, -0.32), 0.05, 0.11, 0.11, INK, ALONG_Y, 0.03)
        s.ellipsoid((0.1 + chord * 0.8, y * span * 0.55, low), (0.05, 0.06, 0.035), contrast([GOLD, WHITE], wings))
    s.seat = (-0.2, 0, r * 0.95 + 0.009)
