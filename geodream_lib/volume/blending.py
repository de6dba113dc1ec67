"""f_t of eq. 3: the colour of a point as a blend of the source views' pixels (IBRNet, Wang et al. 2021).

GeoDream drops this decoder after the priors are trained (section 2.1); here it serves to train f_2D, f_3D and f_g.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from geodream_lib.volume.projection import affine_points


@dataclass(frozen=True)
class SourceViews:
    """What the blending reads from the views the cost volume was built from.

    images: 0..1. features: fused maps of f_2D. affine: see `projection`. positions: camera centres in the cube.
    """

    images: Float[Tensor, "n 3 h w"]
    features: Float[Tensor, "n c h w"]
    affine: Float[Tensor, "n 4 4"]
    positions: Float[Tensor, "n 3"]


class BlendingTextureDecoder(nn.Module):
    """f_t: weights of the source views' colours from their features, the volume's feature and the viewing angles."""

    def __init__(self, features: int = 56, latent: int = 16):
        super().__init__()
        pixel = features + 3
        self.s = nn.Parameter(torch.tensor(0.2))
        self.ray_dir_fc = nn.Sequential(nn.Linear(4, 16), nn.ELU(), nn.Linear(16, pixel), nn.ELU())
        self.base_fc = nn.Sequential(nn.Linear(3 * pixel + latent, 64), nn.ELU(), nn.Linear(64, 32), nn.ELU())
        self.vis_fc = nn.Sequential(nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 33), nn.ELU())
        self.vis_fc2 = nn.Sequential(nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 1), nn.Sigmoid())
        self.rgb_fc = nn.Sequential(nn.Linear(32 + 1 + 4, 16), nn.ELU(), nn.Linear(16, 8), nn.ELU(), nn.Linear(8, 1))
        for layer in [*self.base_fc, *self.vis_fc, *self.vis_fc2, *self.rgb_fc]:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        latent: Float[Tensor, "m c"],
        pixels: Float[Tensor, "m n p"],
        angles: Float[Tensor, "m n 4"],
        visible: Bool[Tensor, "m n"],
    ) -> Float[Tensor, "m 3"]:
        """c(x) of eq. 3 for `m` points seen by `n` views.

        Args:
            latent: V(x).
            pixels: P(F_i, x): colour (first three channels) and features of every view.
            angles: delta d_i, see `view_angles`.
            visible: whether the view sees the point; with no view at all the colours are averaged.
        """
        mask = visible[..., None].to(pixels.dtype)
        colors, features = pixels[..., :3], pixels + self.ray_dir_fc(angles)
        closeness = torch.exp(self.s.abs() * (angles[..., 3:] - 1))
        weight = (closeness - closeness.amin(dim=1, keepdim=True)) * mask
        weight = weight / (weight.sum(dim=1, keepdim=True) + 1e-8)
        mean = (features * weight).sum(dim=1, keepdim=True)
        variance = (weight * (features - mean).square()).sum(dim=1, keepdim=True)
        shared = torch.cat([latent[:, None], mean, variance], dim=-1)

        # The first layer sees [shared, features]; the shared part is the same for every view, so it is done once.
        first, split = self.base_fc[0], shared.shape[-1]
        x = F.linear(features, first.weight[:, split:]) + F.linear(shared, first.weight[:, :split], first.bias)
        x = self.base_fc[1:](x)
        refined = self.vis_fc(x * weight)
        visibility = torch.sigmoid(refined[..., -1:]) * mask
        x = x + refined[..., :-1]
        visibility = self.vis_fc2(x * visibility) * mask
        score = self.rgb_fc(torch.cat([x, visibility, angles], dim=-1)).masked_fill(mask == 0, -1e9)
        return (colors * torch.softmax(score, dim=1)).sum(dim=1)


def view_angles(
    points: Float[Tensor, "m 3"], origins: Float[Tensor, "m 3"], positions: Float[Tensor, "n 3"]
) -> Float[Tensor, "m n 4"]:
    """delta d_i of eq. 3: unit difference and cosine between the directions to the ray's camera and to every view.

    `origins` is where each point's ray starts, the centre of the camera that is rendered.
    """
    to_query = (origins - points)[:, None]
    to_view = positions[None] - points[:, None]
    to_query = to_query / (to_query.norm(dim=-1, keepdim=True) + 1e-6)
    to_view = to_view / (to_view.norm(dim=-1, keepdim=True) + 1e-6)
    difference = to_query - to_view
    cosine = (to_query * to_view).sum(dim=-1, keepdim=True)
    return torch.cat([difference / difference.norm(dim=-1, keepdim=True).clamp(min=1e-6), cosine], dim=-1)


def project_for_blending(
    affine: Float[Tensor, "n 4 4"], points: Float[Tensor, "m 3"], height: int, width: int
) -> tuple[Float[Tensor, "n m 2"], Bool[Tensor, "n m"]]:
    """Image coordinates in [-1, 1] and visibility by the rules of f_t, which are not those of the cost volume.

    Depth is raised to 1e-3, so points behind a camera leave the image; whatever is outside is moved to 2; the
    outermost pixel centres do not count as visible.
    """
    local = affine_points(affine, points)
    size = points.new_tensor([width - 1, height - 1])
    pixels = 2 * (local[..., :2] / local[..., 2:].clamp(min=1e-3)) / size - 1
    pixels = torch.where(pixels.abs() > 1, torch.full_like(pixels, 2.0), pixels)
    return pixels, (pixels.abs() < 1).all(dim=-1)


def blend_color(
    decoder: BlendingTextureDecoder,
    views: SourceViews,
    points: Float[Tensor, "m 3"],
    origins: Float[Tensor, "m 3"],
    latent: Float[Tensor, "m c"],
    inside: Bool[Tensor, " m"],
) -> Float[Tensor, "m 3"]:
    """c(x) of eq. 3 at points of the cube; `inside` is False where the volume has no data around the point."""
    pixels, visible = project_for_blending(views.affine, points, *views.images.shape[-2:])
    maps = torch.cat([views.images, views.features], dim=1)
    sampled = F.grid_sample(maps, pixels[:, None], padding_mode="zeros", align_corners=True)[:, :, 0]
    angles = view_angles(points, origins, views.positions)
    return decoder(latent, sampled.permute(2, 0, 1), angles, visible.T & inside[:, None])
