"""Objects of one stuff: the solids take its colours, the picture its grain. Only the 2D data shows them."""

import numpy as np
from jaxtyping import Float

from geodream_lib.lab.primitives import COLOUR

# sRGB of what was dark and of what was light on the object
_RAMPS = {
    "wooden": ((0.30, 0.17, 0.08), (0.82, 0.60, 0.36)),
    "golden": ((0.50, 0.32, 0.04), (0.98, 0.78, 0.22)),
    "stone": ((0.28, 0.28, 0.29), (0.72, 0.71, 0.68)),
}
MATERIALS: tuple[str, ...] = tuple(_RAMPS)
_LUMA = np.array([0.30, 0.59, 0.11], np.float32)


def made_of(rows: Float[np.ndarray, "n 21"], material: str) -> Float[np.ndarray, "n 21"]:
    """The same solids in the colours of a material of `MATERIALS`: light parts stay lighter than dark ones."""
    rows, (dark, light) = rows.copy(), np.array(_RAMPS[material], np.float32)
    # most solids are the light kind; only what was really dark (eyes, wheels) turns dark
    level = np.clip(0.15 + 1.2 * rows[:, COLOUR] @ _LUMA, 0, 1)[:, None]
    rows[:, COLOUR] = dark + level * (light - dark)
    return rows


def grain(
    material: str, points: Float[np.ndarray, "*shape 3"], normal: Float[np.ndarray, "*shape 3"]
) -> Float[np.ndarray, "*shape"]:
    """Factor on the light of surface points: rings of wood, specks of stone, the shine of gold."""
    x, y, z = np.moveaxis(points, -1, 0)
    if material == "wooden":
        rings = np.sin(38 * np.hypot(x + 0.35, y + 0.12 * np.sin(3 * z)) + 2 * np.sin(2.5 * z))
        return 0.96 + 0.10 * rings
    if material == "stone":
        specks = np.sin(31 * x + 7 * z) * np.sin(29 * y - 11 * x) * np.sin(33 * z + 5 * y)
        patches = np.sin(9 * x + 4 * y) * np.sin(8 * z - 5 * y)
        return 0.98 + 0.14 * specks + 0.06 * patches
    shine = np.clip(normal @ np.array([0.62, 0.25, 0.74], np.float32), 0, 1)
    return 0.82 + 0.25 * shine + 0.55 * shine**12
