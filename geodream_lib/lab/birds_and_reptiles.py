"""Lab animals with feathers or scales. Each function fills a `Shape` as those in `mammals`."""

import math

import numpy as np

from geodream_lib.lab.shape import (
    COLORS,
    CREAM,
    GOLD,
    INK,
    WHITE,
    Colour,
    Shape,
    along,
    contrast,
    shade,
    turn,
)


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


def penguin(s: Shape, rng: np.random.Generator, plumage: Colour, belly: Colour, extras: tuple[str, ...]):
    r, hr = rng.uniform(0.35, 0.4), rng.uniform(0.28, 0.31)
    bill = contrast([COLORS["orange"], GOLD, COLORS["red"]], plumage, belly)
    s.ellipsoid((0, 0, -0.18), (r * 0.92, r, 0.5), plumage)
    s.ellipsoid((r * 0.3, 0, -0.22), (r * 0.72, r * 0.78, 0.41), belly)
    hz = rng.uniform(0.38, 0.43)
    head = (hr * 0.95, hr, hr * 0.95)
    s.ellipsoid((0.02, 0, hz), head, plumage)
    for y in (-1, 1):
        s.ellipsoid((0.02 + hr * 0.5, y * 0.1, hz), (hr * 0.5, 0.13, 0.15), belly)
        lean = turn("x", y * rng.uniform(14, 26))
        s.ellipsoid((-0.02, y * (r + 0.07), -0.18), (0.15, 0.065, 0.33), shade(plumage, 0.75), lean)
        s.ellipsoid((r * 0.55, y * 0.17, -0.66), (0.22, 0.14, 0.075), bill)
        for toe in (-0.07, 0.07):
            s.ellipsoid((r * 0.55 + 0.17, y * 0.17 + toe, -0.67), (0.09, 0.06, 0.06), bill)
    s.eyes((0.02, 0, hz + 0.02), head, 0.075, yaw=26, pitch=14)
    s.cone((0.02 + hr + 0.1, 0, hz - 0.04), 0.13, 0.095, 0.02, bill, turn("y", 96), 0.02)
    s.ellipsoid((-r * 0.85, 0, -0.58), (0.17, 0.14, 0.07), shade(plumage, 0.75), turn("y", -25))
    if "scarf" in extras:
        s.scarf((0.01, 0, hz - hr * 0.85), r * 0.75, 0.075, shade(belly, 0.85), (r * 0.95, 0.24, -0.14))
    if "hat" in extras:
        s.hat((0, 0, hz + hr * 0.87), 0.17, belly)


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
        s.cone(middle, np.linalg.norm(step) / 2 + 0.04, r0, r1, skin, along(step), 0.05)
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
    else:
        s.seat = (0.12, 0, hz + hr * 0.9)


def turtle(s: Shape, rng: np.random.Generator, skin: Colour, shell: Colour, extras: tuple[str, ...]):
    length, width, height = rng.uniform(0.46, 0.52), rng.uniform(0.4, 0.45), rng.uniform(0.34, 0.42)
    marks = contrast([shade(shell, 0.6), shade(shell, 1.6)], shell)
    s.ellipsoid((0, 0, -0.12), (length * 1.12, width * 1.12, 0.1), marks)
    s.ellipsoid((0, 0, -0.1), (length, width, height), shell)
    s.ellipsoid((0, 0, -0.13), (length * 1.01, width * 1.01, height), contrast([CREAM, shade(shell, 0.6)], shell))
    for k in range(6):
        a, pitch = math.radians(60 * k), 0.5
        p = (math.cos(pitch) * math.cos(a), math.cos(pitch) * math.sin(a), math.sin(pitch))
        s.ellipsoid((length * p[0] * 0.94, width * p[1] * 0.94, height * p[2] * 0.94 - 0.1), (0.13, 0.13, 0.1), marks)
    s.ellipsoid((0, 0, height - 0.13), (0.19, 0.17, 0.05), marks)
    for x in (-1, 1):
        for y in (-1, 1):
            hip = np.array([x * length * 0.68, y * width * 0.62, -0.2])
            foot = np.array([x * length * 0.92, y * width * 0.98, -0.36])
            s.capsule(hip, foot, 0.12, skin)
            s.ellipsoid(foot + [0.04, 0, -0.04], (0.15, 0.125, 0.08), skin)
    hr = rng.uniform(0.2, 0.24)
    head = np.array([length + 0.26, 0, rng.uniform(0.08, 0.16)])
    s.capsule((length * 0.7, 0, -0.14), head - [0.06, 0, 0.06], 0.12, skin)
    s.ellipsoid(head, (hr * 1.1, hr, hr * 0.95), skin)
    s.ellipsoid(head + [hr * 0.6, 0, -0.07], (0.14, hr * 0.8, 0.1), shade(skin, 1.3))
    s.capsule(head + [hr * 0.6 + 0.12, -0.07, -0.09], head + [hr * 0.6 + 0.12, 0.07, -0.09], 0.03, INK)
    s.eyes(head, (hr * 1.1, hr, hr * 0.95), 0.08, yaw=42, pitch=26)
    s.cone((-length * 1.12 - 0.04, 0, -0.22), 0.12, 0.08, 0.02, skin, turn("y", -105), 0.02)
    if "hat" in extras:
        s.hat(head + [-0.03, 0, hr * 0.86], 0.13, shell)
    s.seat = (0, 0, height - 0.08)
