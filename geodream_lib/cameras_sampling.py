"""The pre-defined distribution of camera poses o (section 2.2), and the frames of the systems it is taken from.

threestudio's world is ours: z up, the object's front toward +x, azimuth counter-clockwise from +x. GeoDream's is the
frame of its reference view: x right, y *down*, z away from that camera; azimuth 0 stands behind the object, 180 in
front of it, and a negative elevation is above. MVDream builds its cameras with y up and turns them before its network
sees them: then z is up and the object's front toward +x as in ours, only that azimuth counts from -y, so that 90 is the
front. In all, a camera is its OpenGL camera-to-world matrix.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.cameras import Cameras, orbit

# Our axes in GeoDream's: +x (front) is its -z, +y its +x, +z (up) its -y.
GEODREAM_TO_WORLD = ((0.0, 0.0, -1.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, -1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
# MVDream's y (up) is our +z, its z our -y.
MVDREAM_TO_WORLD = ((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, -1.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def sample_training_cameras(
    n: int,
    *,
    distance: tuple[float, float],
    fov_y: tuple[float, float],
    elevation: tuple[float, float],
    size: int,
    generator: torch.Generator,
) -> tuple[Cameras, Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Random cameras that look at the origin, as threestudio and GeoDream draw them for a batch.

    A fair coin takes the batch's elevations uniform in degrees, or else uniform on the sphere between two parallels.
    Azimuths cover the circle: one in each of `n` equal sectors. Distance and field of view are uniform. (The released
    code maps degrees to the sine linearly in the second case, which narrows the range; here it is the range given.)

    Args:
        distance: lowest and highest distance to the origin.
        fov_y: lowest and highest vertical field of view, degrees.
        elevation: lowest and highest elevation, degrees above the xy-plane. (GeoDream's ranges have the opposite sign.)
        size: image height and width in pixels.
        generator: a CPU generator.

    Returns:
        The cameras, and the azimuth in [-180, 180), elevation (degrees) and distance of each.
    """

    def uniform(low: float, high: float) -> Float[Tensor, " n"]:
        return low + (high - low) * torch.rand(n, generator=generator)

    if torch.rand((), generator=generator) < 0.5:
        elevations = uniform(*elevation)
    else:
        low, high = (math.sin(math.radians(bound)) for bound in elevation)
        elevations = torch.rad2deg(torch.asin(uniform(low, high)))
    azimuths = (torch.arange(n) + torch.rand(n, generator=generator)) * (360 / n) - 180
    distances = uniform(*distance)
    return orbit(azimuths, elevations, distances, uniform(*fov_y), size), azimuths, elevations, distances


def from_threestudio(c2w: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """Camera-to-world matrices of threestudio in our world: the same. Azimuth and elevation are the same, too."""
    return c2w


def from_geodream(c2w: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """Camera-to-world matrices of GeoDream in our world: azimuth becomes 180 - azimuth, elevation changes its sign."""
    return c2w.new_tensor(GEODREAM_TO_WORLD) @ c2w


def from_mvdream(c2w: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """Camera-to-world matrices of MVDream, y up, in our world: azimuth becomes azimuth - 90, elevation stays."""
    return c2w.new_tensor(MVDREAM_TO_WORLD) @ c2w


def mvdream_condition(c2w: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 16"]:
    """What MVDream's network is told of a camera of ours: the rows of its matrix, the position moved to distance 1."""
    condition = c2w.clone()
    condition[:, :3, 3] /= c2w[:, :3, 3].norm(dim=-1, keepdim=True) + 1e-8
    return condition.flatten(1)


def model_view_projection(cameras: Cameras, near: float, far: float) -> Float[Tensor, "n 4 4"]:
    """World to clip coordinates with y pointing down in the image, as threestudio hands them to nvdiffrast.

    threestudio takes near 0.01, far 100; GeoDream 0.1 and 1000, in its own world. The principal point is the centre.
    """
    focal = cameras.intrinsics
    projection = torch.zeros_like(cameras.c2w)
    projection[:, 0, 0] = 2 * focal[:, 0, 0] / cameras.width
    projection[:, 1, 1] = -2 * focal[:, 1, 1] / cameras.height
    projection[:, 2, 2] = -(far + near) / (far - near)
    projection[:, 2, 3] = -2 * far * near / (far - near)
    projection[:, 3, 2] = -1.0
    return projection @ cameras.w2c
