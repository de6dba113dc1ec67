"""The representation that is refined (section 2.2): eqs. (7) and (8) as one module."""

import copy
import json
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodream_lib.errors import InputError
from geodream_lib.field.background import Background
from geodream_lib.field.cube import check_similarity, cube_points, cube_unit
from geodream_lib.field.hash_encoding import HashEncoding
from geodream_lib.field.texture import TextureDecoder
from geodream_lib.storage import load_into, load_tensors, save_tensors
from geodream_lib.volume.decoder import GeometryDecoder, query_sdf, query_sdf_and_gradient

FORMAT = "geodream neus field 1"


class NeuSField(nn.Module):
    """SDF from the cost volume and the frozen geometry decoder, colour from a hash encoding and a new texture decoder.

    Trained: the volume V (theta_1), the hash encoding (theta_2), the texture decoder (theta_3) and the background.
    Frozen: the decoder f_g and the sharpness. Points, distances and gradients are in world units; a point outside the
    volume's cube is outside the object.
    """

    def __init__(
        self,
        volume: Float[Tensor, "c x y z"],
        decoder: GeometryDecoder,
        inverse_deviation: float | Float[Tensor, ""],
        encoding: HashEncoding,
        *,
        texture_hidden: int = 64,
        color_from_position: bool = True,
        background_hidden: int = 16,
        to_world: Float[Tensor, "4 4"] | None = None,
    ):
        """
        Args:
            volume: V_p of eq. (6); copied, since it is refined here.
            decoder: f_g; copied and frozen.
            inverse_deviation: sharpness s of NeuS learnt with the decoder, in 1 / cube unit; frozen.
            encoding: h_Omega, untrained.
            texture_hidden: width of the texture decoder's hidden layer.
            color_from_position: the texture decoder sees the position beside its encoding (eq. 8).
            background_hidden: width of the background network.
            to_world: similarity from the volume's cube [-1, 1]^3 to the world, `CostVolume.to_world`; the identity by
                default.
        """
        super().__init__()
        to_world = torch.eye(4) if to_world is None else to_world
        check_similarity(to_world)
        # Stored channels-last: the eight corners of a sample are then eight contiguous rows.
        self.volume = nn.Parameter(_channels_last(volume))
        self.decoder = copy.deepcopy(decoder).requires_grad_(False)
        self.encoding = encoding
        self.texture = TextureDecoder(encoding.dimension, texture_hidden, color_from_position)
        self.background = Background(background_hidden)
        self.register_buffer("to_world", to_world.detach().clone().float())
        self.register_buffer("cube_inverse_deviation", torch.tensor(float(inverse_deviation)))

    @property
    def inverse_deviation(self) -> Float[Tensor, ""]:
        """Sharpness s of NeuS in 1 / world unit: s times a distance is the same in both units."""
        return self.cube_inverse_deviation / cube_unit(self.to_world)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The trained parameters by name, one learning rate each: volume, encoding, texture, background."""
        return {
            "volume": [self.volume],
            "encoding": list(self.encoding.parameters()),
            "texture": list(self.texture.parameters()),
            "background": list(self.background.parameters()),
        }

    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """s_p(x) of eq. (7), negative inside; outside the cube, the distance to the cube."""
        position = cube_points(self.to_world, points)
        beyond = (position.abs() - 1).clamp(min=0).norm(dim=-1)
        sdf = query_sdf(self.volume, self.decoder, position)
        return torch.where(beyond > 0, beyond, sdf) * cube_unit(self.to_world)

    def sdf_and_gradient(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """s_p(x) and its gradient, both differentiable in the volume with one backward pass.

        Warning: not differentiable with respect to the points.
        """
        position = cube_points(self.to_world, points)
        outward = position.sign() * (position.abs() - 1).clamp(min=0)
        beyond = outward.norm(dim=-1)
        sdf, gradient = query_sdf_and_gradient(self.volume, self.decoder, position)
        sdf = torch.where(beyond > 0, beyond, sdf)
        gradient = torch.where(beyond[:, None] > 0, torch.nn.functional.normalize(outward, dim=-1), gradient)
        # A similarity scales distances by its unit and only rotates their gradient.
        unit = cube_unit(self.to_world)
        return sdf * unit, gradient @ (self.to_world[:3, :3] / unit).T

    def normal(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Unit outward normals, the direction of the SDF's gradient."""
        return torch.nn.functional.normalize(self.sdf_and_gradient(points)[1], dim=-1)

    def color(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """c_p(x) = f'_t(h_Omega(x), x) of eq. (8), 0..1."""
        position = cube_points(self.to_world, points)
        return self.texture(self.encoding((position + 1) / 2), position)

    def save(self, path: Path | str) -> None:
        """Write the whole field as one safetensors file."""
        config = {
            "volume": list(self.volume.shape),
            "decoder_hidden": self.decoder.hidden,
            "encoding": self.encoding.config,
            "texture_hidden": self.texture.config["hidden"],
            "color_from_position": self.texture.config["sees_position"],
            "background_hidden": self.background.network[0].out_features,
        }
        save_tensors(path, self.state_dict(), {"format": FORMAT, "config": json.dumps(config)})

    @classmethod
    def load(cls, path: Path | str) -> "NeuSField":
        """Read a field written by `save`.

        Raises:
            InputError: the file is missing, truncated, not a field, or does not fit its own description.
        """
        tensors, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT:
            raise InputError(
                f"{path} is not a NeuS field: its format is {metadata.get('format', 'not stated')!r}, expected "
                f"{FORMAT!r}; give a file that NeuSField.save wrote (neus/*.safetensors of a run)"
            )
        try:
            config = json.loads(metadata["config"])
            shape = config["volume"]
            field = cls(
                torch.zeros(shape),
                GeometryDecoder(hidden=config["decoder_hidden"], latent=shape[0]),
                1.0,
                HashEncoding(**config["encoding"]),
                texture_hidden=config["texture_hidden"],
                color_from_position=config.get("color_from_position", True),  # absent in files of the first format
                background_hidden=config["background_hidden"],
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the description inside {path} cannot be used ({error}); expected the one NeuSField.save writes, "
                "delete the file to have it made again"
            ) from error
        load_into(field, tensors, str(path))
        return field


def _channels_last(volume: Float[Tensor, "c x y z"]) -> Float[Tensor, "c x y z"]:
    """A copy stored as [x, y, z, c]."""
    return volume.detach().permute(1, 2, 3, 0).clone(memory_format=torch.contiguous_format).permute(3, 0, 1, 2)
