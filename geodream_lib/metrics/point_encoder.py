"""Uni3D's point encoder (Zhou et al., 2024) in the public layout: patches of points as the tokens of an image ViT."""

from dataclasses import asdict, dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from geodream_lib.errors import InputError
from geodream_lib.metrics.eva import MLPS, Trunk
from geodream_lib.metrics.point_cloud import group


@dataclass(frozen=True)
class PointEncoderConfig:
    """Sizes of the encoder; the defaults are those that all released ones share.

    width, depth, heads, mlp, hidden: the trunk's, see `eva`. embed_dim: of the space shared with texts. patch_widths:
    layers of the small network that reads a patch; its last gives `patch_dim` numbers. points: of a cloud; in one of so
    many times more points a patch is so many times denser, and is thinned.
    """

    width: int
    depth: int
    heads: int
    mlp: str
    hidden: int
    embed_dim: int = 1024
    patch_widths: tuple[int, int, int] = (128, 256, 512)
    patch_dim: int = 512
    groups: int = 512
    group_size: int = 64
    points: int = 10_000

    def to_json(self) -> dict:
        return asdict(self) | {"patch_widths": list(self.patch_widths)}

    @classmethod
    def from_json(cls, value: object, source: str) -> "PointEncoderConfig":
        """The inverse of `to_json`.

        Raises:
            InputError: a size is missing or unknown, not a positive number, or the sizes do not fit together.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or not set(value) <= names or {"width", "depth", "heads"} - set(value):
            raise InputError(f"{source} does not describe a point encoder; expected {', '.join(sorted(names))}")
        try:
            config = cls(**value | {"patch_widths": tuple(value.get("patch_widths", cls.patch_widths))})
            sizes = [size for name, size in asdict(config).items() if name not in ("mlp", "patch_widths")]
            sizes += config.patch_widths
            if not all(type(size) is int and size > 0 for size in sizes) or len(config.patch_widths) != 3:
                raise ValueError("sizes are positive whole numbers")
            if config.width % config.heads or config.mlp not in MLPS:
                raise ValueError(f"heads divide the width, mlp is one of {', '.join(MLPS)}")
        except (TypeError, ValueError) as error:
            raise InputError(f"{source} describes no point encoder: {error}; fetch the network anew") from error
        return config


class PatchEncoder(nn.Module):
    """A small PointNet: the points of a patch one by one, their maximum beside each, and the maximum again."""

    def __init__(self, widths: tuple[int, int, int], out: int):
        super().__init__()
        first, second, third = widths
        self.first_conv = nn.Sequential(
            nn.Conv1d(6, first, 1), nn.BatchNorm1d(first), nn.ReLU(inplace=True), nn.Conv1d(first, second, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * second, third, 1), nn.BatchNorm1d(third), nn.ReLU(inplace=True), nn.Conv1d(third, out, 1)
        )

    def forward(self, patches: Float[Tensor, "n g s 6"]) -> Float[Tensor, "n g d"]:
        points = _each(self.first_conv, patches)
        whole = points.amax(dim=2, keepdim=True).expand_as(points)
        return _each(self.second_conv, torch.cat([whole, points], dim=-1)).amax(dim=2)


def _each(layers: nn.Sequential, points: Float[Tensor, "n g s c"]) -> Float[Tensor, "n g s d"]:
    """The layers on every point by itself: a convolution of width 1 is a product, and on a CPU faster as one."""
    rows = points.flatten(0, 2)
    for layer in layers:
        is_product = isinstance(layer, nn.Conv1d)
        rows = functional.linear(rows, layer.weight[..., 0], layer.bias) if is_product else layer(rows)
    return rows.unflatten(0, points.shape[:3])


class PointEncoder(nn.Module):
    """`point_encoder` of a released checkpoint: patches, their places and a class token through the trunk `visual`."""

    def __init__(self, config: PointEncoderConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.encoder = PatchEncoder(config.patch_widths, config.patch_dim)
        self.encoder2trans = nn.Linear(config.patch_dim, width)
        self.trans2embed = nn.Linear(width, config.embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_pos = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))
        self.visual = Trunk(width, config.depth, config.heads, config.mlp, config.hidden)

    def forward(self, xyz: Float[Tensor, "n p 3"], rgb: Float[Tensor, "n p 3"]) -> Float[Tensor, "n d"]:
        """Clouds in the frame of `to_uni3d`, colours in 0..1, to the shared space; lengths are not normalised."""
        spread = max(1, round(xyz.shape[1] / self.config.points))
        centres, patches = group(xyz, rgb, self.config.groups, self.config.group_size, spread)
        tokens = self.encoder2trans(self.encoder(patches)) + self.pos_embed(centres)
        first = (self.cls_token + self.cls_pos).expand(len(tokens), -1, -1)
        return self.trans2embed(self.visual(torch.cat([first, tokens], dim=1)))


class Uni3D(nn.Module):
    """All that a released checkpoint holds: the point encoder and the temperature it was trained with."""

    def __init__(self, config: PointEncoderConfig):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.point_encoder = PointEncoder(config)
