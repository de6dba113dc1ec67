"""Where to look at the object from: the viewpoint sampling strategy of the paper's appendix F, as data.

Multi-view diffusion predicts well near a front or a side view and badly when it starts from a back view. So views are
drawn around good references, and the back is added as a view of its own.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import torch

from geodream_lib.cameras import Cameras, orbit
from geodream_lib.errors import InputError

MVDREAM_REFERENCES = {"front": 0.0, "left": 90.0, "back": 180.0, "right": 270.0}


@dataclass(frozen=True)
class RelativePose:
    """A viewpoint relative to a reference view, on the reference's sphere.

    azimuth: degrees counter-clockwise seen from above. elevation: degrees, positive is up. rule: the sentence of the
    strategy that put it here. reference: azimuth of the reference view in the object's frame (0 is the front).
    """

    azimuth: float
    elevation: float
    rule: str
    reference: float = 0.0

    def to_json(self) -> dict[str, float | str]:
        """A plain dictionary; `RelativePose(**entry)` reads it back."""
        return asdict(self)


def sample_viewpoints(
    n: int,
    generator: torch.Generator,
    reference_elevation: float,
    max_azimuth: float = 180.0,
    max_elevation: float = 30.0,
    elevation_range: tuple[float, float] = (-10.0, 60.0),
) -> list[RelativePose]:
    """Source views around one front view, as text-to-image gives it (appendix F, i).

    The reference itself, `n - 2` random views with |relative azimuth| < 180 and |relative elevation| < 30 degrees, and
    the back view at (180, 0). The paper draws the random views independently; here each falls into its own slice of
    azimuth and its own slice of elevation (a Latin square), which keeps the paper's distribution of every single view
    but leaves no side of the object unseen by chance.

    Args:
        n: number of views in all, at least 2.
        generator: CPU generator of the stage.
        reference_elevation: absolute elevation of the reference, degrees.
        max_azimuth, max_elevation: open limits of the relative angles, degrees.
        elevation_range: absolute elevations that are allowed, degrees; cuts the relative range.

    Raises:
        InputError: `n` leaves no room for the reference and the back.
    """
    if n < 2:
        raise InputError(f"{n} source views asked for; expected at least 2 (the reference and the back)")
    return [
        RelativePose(0.0, 0.0, "reference"),
        *_stratified(n - 2, generator, reference_elevation, max_azimuth, max_elevation, elevation_range, 0.0),
        RelativePose(180.0, 0.0, "back view"),
    ]


def sample_mvdream_viewpoints(
    n: int,
    generator: torch.Generator,
    reference_elevation: float = 15.0,
    max_azimuth: float = 45.0,
    max_elevation: float = 30.0,
    elevation_range: tuple[float, float] = (-10.0, 60.0),
) -> list[RelativePose]:
    """Source views around MVDream's four views (appendix F, ii).

    MVDream's front, left, right and back themselves, and `n - 4` random views within 45 degrees of azimuth and 30 of
    elevation around front, left and right, shared out evenly and stratified as in `sample_viewpoints`. Nothing is
    predicted from the back view. The pose's `reference` says which view it is relative to.

    Raises:
        InputError: `n` leaves no room for MVDream's own four views.
    """
    if n < 4:
        raise InputError(f"{n} source views asked for; expected at least 4 (MVDream's own)")
    sides = ("front", "left", "right")
    poses = [RelativePose(0.0, 0.0, f"MVDream {side}", MVDREAM_REFERENCES[side]) for side in sides]
    for place, side in enumerate(sides):
        share = (n - 4) // 3 + (place < (n - 4) % 3)
        poses += _stratified(
            share, generator, reference_elevation, max_azimuth, max_elevation, elevation_range, MVDREAM_REFERENCES[side]
        )
    return [*poses, RelativePose(0.0, 0.0, "MVDream back", MVDREAM_REFERENCES["back"])]


def _stratified(
    n: int,
    generator: torch.Generator,
    reference_elevation: float,
    max_azimuth: float,
    max_elevation: float,
    elevation_range: tuple[float, float],
    reference: float,
) -> list[RelativePose]:
    """`n` poses, one in each of `n` equal slices of azimuth, their elevations in `n` shuffled slices."""
    lowest = max(-max_elevation, elevation_range[0] - reference_elevation)
    highest = min(max_elevation, elevation_range[1] - reference_elevation)
    lowest = min(lowest, highest)  # a reference outside the allowed range: its own edge is the closest there is
    jitter = torch.rand(2, n, generator=generator, dtype=torch.float64)
    slices = torch.stack([torch.arange(n), torch.randperm(n, generator=generator)])
    place = (slices + jitter) / max(n, 1)
    azimuth = max_azimuth * (2 * place[0] - 1)
    elevation = lowest + (highest - lowest) * place[1]
    return [
        RelativePose(round(a, 4), round(e, 4), "random", reference)
        for a, e in zip(azimuth.tolist(), elevation.tolist(), strict=True)
    ]


def released_viewpoints(path: Literal["text", "image"], reference_elevation: float = 0.0) -> list[RelativePose]:
    """The fixed source views of the released GeoDream code, which draws nothing at random.

    "text": the 14 images that feed the cost volume out of MVDream's four views and Zero123++ v1.1's six of each
    (elevations +30 and -20 in turn at azimuths 30, 90 ... 330). The release enters MVDream's views at elevation 0,
    although they were made at 15 degrees; `reference_elevation` is what they are entered at.
    "image": 30 of the 32 neighbours at 10 degrees of One-2-3-45's eight Zero123 views (`released_rounds`).
    """
    if path == "text":
        six = [(30.0, 30.0), (90.0, -20.0), (150.0, 30.0), (210.0, -20.0), (270.0, 30.0), (330.0, -20.0)]
        taken = {"front": [], "left": [1, 3, 4, 5, 6], "back": [6], "right": [1, 2, 3, 6]}
        poses = []
        for side, outputs in taken.items():
            reference = MVDREAM_REFERENCES[side]
            poses.append(RelativePose(0.0, 0.0, f"MVDream {side}", reference))
            for k in outputs:
                azimuth, elevation = six[k - 1]
                rule = f"Zero123++ output {k} of {side}"
                poses.append(RelativePose(azimuth, elevation - reference_elevation, rule, reference))
        return poses
    first, second = released_rounds()
    return [
        RelativePose(first[i].azimuth + step.azimuth, first[i].elevation + step.elevation, step.rule)
        for i, step in second
    ]


def released_rounds() -> tuple[list[RelativePose], list[tuple[int, RelativePose]]]:
    """How the release gets the source views of one image, as One-2-3-45 does: in two rounds of Zero123.

    First eight views of the input: itself, the other three sides, and the ring 30 degrees higher. Then, of every
    predicted view, four neighbours at 10 degrees, predicted from it: `(index of the first view, step from it)`. The two
    azimuth neighbours of the back view are left out. The first views themselves do not enter the volume.
    """
    first = [(0.0, 0.0), (90.0, 0.0), (180.0, 0.0), (270.0, 0.0)]
    first += [(30.0, 30.0), (120.0, 30.0), (210.0, 30.0), (300.0, 30.0)]
    neighbours = [(0.0, 10.0), (0.0, -10.0), (-10.0, 0.0), (10.0, 0.0)]
    second = [
        (i, RelativePose(da, de, f"neighbour {j} of view {i}"))
        for i, (azimuth, _) in enumerate(first)
        for j, (da, de) in enumerate(neighbours)
        if not (azimuth == 180.0 and da != 0.0)
    ]
    return [RelativePose(*angles, f"view {i}") for i, angles in enumerate(first)], second


def pose_cameras(
    poses: list[RelativePose], reference_elevation: float, radius: float, fov_y: float, size: int
) -> Cameras:
    """The cameras of relative poses in the library's world: azimuth `reference + azimuth`, on one sphere.

    Args:
        reference_elevation: absolute elevation of the reference view(s), degrees.
        radius, fov_y, size: as `cameras.orbit`; Zero123 and Zero123++ v1.1 see 49.13 degrees.
    """
    azimuth = [pose.reference + pose.azimuth for pose in poses]
    elevation = torch.tensor([reference_elevation + pose.elevation for pose in poses])
    return orbit(azimuth, elevation, radius, fov_y, size)
