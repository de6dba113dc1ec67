"""From cameras in any world to views like those of the training: the cube's frame, which views, cut how.

The networks of stage 2 know one scale: an object of radius 0.9 about the centre of the cube [-1, 1]^3, which fills its
images. Photographs and public data sets have their own, so views are chosen, cut to the object and moved to the cube.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from geodream_lib.cameras import Cameras
from geodream_lib.errors import InputError

OBJECT_RADIUS = 0.9  # of the objects of the training, in the cube


def move_to_cube(cameras: Cameras, center: Float[Tensor, " 3"], radius: float) -> tuple[Cameras, Float[Tensor, "4 4"]]:
    """The cameras where the object has radius 0.9 about the origin, and the similarity from there to their world."""
    scale = radius / OBJECT_RADIUS
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] = (c2w[:, :3, 3] - center) / scale
    to_world = torch.diag(torch.tensor([scale, scale, scale, 1.0]))
    to_world[:3, 3] = center
    return replace(cameras, c2w=c2w), to_world


def sphere_fill(radius: float, distance: float, fov_y: float) -> float:
    """Share of an image's height that the outline of a centred sphere takes; `fov_y` in degrees."""
    return math.tan(math.asin(radius / distance)) / math.tan(math.radians(fov_y) / 2)


def crop_to_sphere(
    images: Float[Tensor, "n h w c"],
    cameras: Cameras,
    center: Float[Tensor, " 3"],
    radius: float,
    size: int,
    fill: float,
    background: float,
) -> tuple[Float[Tensor, "n {size} {size} c"], Cameras]:
    """Square images about the sphere, which takes the share `fill` of them, and the cameras that see them.

    The poses stay. A crop moves the principal point and its resizing scales the intrinsics, so that every world point
    is seen at the place where its pixel went. Crops begin and end between pixels; what was not in the image is
    `background`.

    Raises:
        InputError: a camera is inside the sphere or has it behind.
    """
    local = cameras.w2c[:, :3, :3] @ center + cameras.w2c[:, :3, 3]
    # The box around the sphere's outline, an ellipse: per image axis, the tangents from the camera in the plane of that
    # axis and the optical one.
    sideways, depth = local[:, :2] * local.new_tensor([1.0, -1.0]), -local[:, 2:]
    angle = torch.atan2(sideways, depth)
    half_angle = torch.asin((radius / torch.hypot(sideways, depth)).clamp(max=1.0))
    if (angle.abs() + half_angle >= math.radians(85)).any():
        raise InputError(
            "a camera is inside the object or looks away from it; expected cameras around the object that show it"
        )
    low, high = torch.tan(angle - half_angle), torch.tan(angle + half_angle)
    crops, intrinsics = [], cameras.intrinsics.clone()
    for index, image in enumerate(images):
        focal, principal = intrinsics[index, [0, 1], [0, 1]], intrinsics[index, :2, 2]
        side = (high[index] - low[index]).max() / fill * focal
        corner = (low[index] + high[index]) / 2 * focal + principal - side / 2
        width, height = side.round().clamp(min=1).long().tolist()
        left, top = corner.round().long().tolist()
        around = (-left, left + width - cameras.width, -top, top + height - cameras.height)
        # Negative padding crops.
        crop = F.pad(image.permute(2, 0, 1)[None], around, value=background)
        crop = F.interpolate(crop, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        crops.append(crop[0].permute(1, 2, 0))
        intrinsics[index, :2, 2] -= intrinsics.new_tensor([left, top])
        intrinsics[index, :2] *= intrinsics.new_tensor([[size / width], [size / height]])
    return torch.stack(crops), replace(cameras, intrinsics=intrinsics, height=size, width=size)


def spread_views(positions: Float[Tensor, "n 3"], center: Float[Tensor, " 3"], count: int) -> list[int]:
    """At most `count` of the cameras, spread over the directions from which they see `center`.

    Farthest-point sampling (Gonzalez 1985): the first camera, then always the one whose direction differs most from all
    chosen ones; the first of equals. Returned in rising order.
    """
    directions = F.normalize(positions - center, dim=-1)
    chosen = [0]
    nearest = directions @ directions[0]
    while len(chosen) < min(count, len(directions)):
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, directions @ directions[chosen[-1]])
    return sorted(chosen)
