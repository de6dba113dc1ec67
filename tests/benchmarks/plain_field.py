"""Stage 3's renderer as one would write it first: what bench_refine.py measures the library's against.

Same field, same sections, same equations, by what PyTorch brings along: the SDF's gradient by automatic differentiation
through `grid_sample`, so that a loss is differentiated twice; the hash encoding by gathers; every section inside the
cube is evaluated, its colour too. The cube is the world's, as in the lab.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.cameras import Cameras, rays
from geodream_lib.field import NeuSField
from geodream_lib.field.background import BackgroundColor
from geodream_lib.field.cube import cube_interval
from geodream_lib.field.hash_encoding import encode_reference
from geodream_lib.neus import rendering_weights, section_alpha


def plain_sdf_and_gradient(
    field: NeuSField, points: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """s_p(x) of eq. (7) and its gradient."""
    points = points.detach().requires_grad_()
    # grid_sample takes the coordinate of the last axis first.
    grid = points.flip(-1)[None, None, None]
    latent = torch.nn.functional.grid_sample(field.volume[None], grid, align_corners=True).view(-1, len(points)).T
    sdf = field.decoder(points, latent)[0]
    (gradient,) = torch.autograd.grad(sdf.sum(), points, create_graph=True)
    return sdf, gradient


def plain_color(field: NeuSField, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """c_p(x) of eq. (8)."""
    return field.texture(encode_reference((points + 1) / 2, field.encoding.table, field.encoding.levels), points)


def plain_render(
    field: NeuSField, cameras: Cameras, samples_per_ray: int, background: BackgroundColor, offset: Float[Tensor, " r"]
) -> Float[Tensor, "n h w 3"]:
    """Images of a field; `offset` places each ray's first section, 0..1 of a section, as in `sample_rays`."""
    origins, directions = (x.reshape(-1, 3) for x in rays(cameras))
    near, far = cube_interval(field.to_world, origins, directions)
    length = torch.tensor(2 * math.sqrt(3) / samples_per_ray)
    distance = near[:, None] + (torch.arange(samples_per_ray) + offset[:, None]) * length
    inside = (distance < far[:, None]) & (near < far)[:, None]
    ray = inside.nonzero()[:, 0]
    points = origins[ray] + directions[ray] * distance[inside][:, None]

    sdf, gradient = plain_sdf_and_gradient(field, points)
    cosine = (directions[ray] * gradient).sum(-1)
    alpha = distance.new_zeros(distance.shape)
    alpha[inside] = section_alpha(sdf, cosine, length, field.inverse_deviation)
    weight = rendering_weights(alpha)
    color = distance.new_zeros(*distance.shape, 3)
    color[inside] = plain_color(field, points)

    image = (len(cameras), cameras.height, cameras.width)
    seen, opacity = (weight[..., None] * color).sum(1).view(*image, 3), weight.sum(1).view(*image, 1)
    return seen + (1 - opacity) * background(directions.view(*image, 3))
