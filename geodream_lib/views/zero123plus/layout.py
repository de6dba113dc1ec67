"""Where Zero123++ looks from: its six fixed views, as tiles of one picture and as poses."""

from jaxtyping import Float, Shaped
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.views.sampling import RelativePose

ROWS, COLUMNS = 3, 2
AZIMUTHS = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)  # degrees, relative to the input
ELEVATIONS = {"1.1": (30.0, -20.0), "1.2": (20.0, -10.0)}  # degrees, absolute, in turn
# Vertical field of view of the outputs, degrees. 1.1 keeps the input's distance and Zero123's angle; 1.2 shows the
# object in a normalised size whatever the input's camera was.
FIELD_OF_VIEW = {"1.1": 49.13, "1.2": 30.0}


def zero123plus_viewpoints(version: str, reference_elevation: float) -> list[RelativePose]:
    """The poses of the six outputs of v1.1 or v1.2, in the order of the tiles.

    Azimuths count from the input view. Elevations of the outputs are *absolute*, whatever the input's is, but a
    `RelativePose` counts from the reference: so the reference's elevation (degrees) is needed, and is taken off.

    Raises:
        InputError: `version` is neither "1.1" nor "1.2".
    """
    if version not in ELEVATIONS:
        raise InputError(f"no Zero123++ {version!r}; expected one of {', '.join(map(repr, ELEVATIONS))}")
    pair = ELEVATIONS[version]
    return [
        RelativePose(azimuth, pair[k % 2] - reference_elevation, f"Zero123++ v{version} output {k + 1}")
        for k, azimuth in enumerate(AZIMUTHS)
    ]


def split_tiles(picture: Float[Tensor, "c h w"]) -> Float[Tensor, "6 tile tile c"]:
    """The six square views of a picture of three rows and two columns, row by row."""
    channels, height, width = picture.shape
    tiles = picture.reshape(channels, ROWS, height // ROWS, COLUMNS, width // COLUMNS)
    return tiles.permute(1, 3, 2, 4, 0).flatten(0, 1)


def join_tiles(tiles: Shaped[Tensor, "n 6 tile tile c"]) -> Shaped[Tensor, "n h w c"]:
    """The six views of every object as one picture of three rows and two columns, the inverse of `split_tiles`."""
    rows = tiles.unflatten(1, (ROWS, COLUMNS)).transpose(2, 3)  # [n, row, y, column, x, c]
    return rows.flatten(3, 4).flatten(1, 2)
