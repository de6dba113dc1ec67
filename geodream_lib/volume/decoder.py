"""f_g of eqs. 2 and 7: position and cost-volume feature to signed distance, with its gradient in the same pass."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from geodream_lib.volume.frozen_decoder import FrozenDecoder
from geodream_lib.volume.sample import sample_volume, sample_volume_with_jacobian
from geodream_lib.volume.softplus import softplus_and_slope

BETA = 100.0  # sharpness of the softplus between the layers
OCTAVES = 6


def positional_encoding(points: Float[Tensor, "n 3"], octaves: int = OCTAVES) -> Float[Tensor, "n e"]:
    """E(x) of eq. 2: [x, sin x, cos x, sin 2x, cos 2x, ...] up to frequency 2^(octaves - 1), without a factor of pi."""
    blocks = [points]
    for octave in range(octaves):
        blocks += [torch.sin(2**octave * points), torch.cos(2**octave * points)]
    return torch.cat(blocks, dim=-1)


def encoding_with_slopes(
    points: Float[Tensor, "n 3"], octaves: int = OCTAVES
) -> tuple[Float[Tensor, "n e"], Float[Tensor, "n e"]]:
    """`positional_encoding`, and the derivative of each of its entries by the one coordinate that it depends on."""
    blocks, slopes = [points], [torch.ones_like(points)]
    for octave in range(octaves):
        frequency = 2**octave
        sine, cosine = torch.sin(frequency * points), torch.cos(frequency * points)
        blocks += [sine, cosine]
        slopes += [frequency * cosine, -frequency * sine]
    return torch.cat(blocks, dim=-1), torch.cat(slopes, dim=-1)


def softplus(a: Float[Tensor, "n h"]) -> Float[Tensor, "n h"]:
    """Between the layers, with sharpness `BETA`."""
    return F.softplus(a, BETA) if a.requires_grad else softplus_and_slope(a, BETA)[0]


class WeightNormLinear(nn.Module):
    """Linear layer whose rows have direction `weight_v` and length `weight_g` (Salimans and Kingma, 2016)."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.weight_v = nn.Parameter(torch.zeros(channels_out, channels_in))
        self.weight_g = nn.Parameter(torch.zeros(channels_out, 1))
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def initialize(self, weight: Float[Tensor, "co ci"], bias: float) -> None:
        self.weight_v.data.copy_(weight)
        self.weight_g.data.copy_(weight.norm(dim=1, keepdim=True))
        self.bias.data.fill_(bias)

    @property
    def weight(self) -> Float[Tensor, "co ci"]:
        return self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True))

    def forward(self, x: Float[Tensor, "n ci"]) -> Float[Tensor, "n co"]:
        return F.linear(x, self.weight, self.bias)


class GeometryDecoder(nn.Module):
    """f_g: three linear layers; the volume's feature joins before the second and the third.

    Starts as a sphere of radius 0.5 (geometric initialisation, Atzmon and Lipman, 2020) that ignores the volume.
    """

    def __init__(self, hidden: int = 128, latent: int = 16):
        super().__init__()
        encoded = 3 * (1 + 2 * OCTAVES)
        self.hidden = hidden
        self.lin0 = WeightNormLinear(encoded, hidden)
        self.lin1 = WeightNormLinear(hidden + latent, hidden)
        self.lin2 = WeightNormLinear(hidden + latent, hidden)
        deviation = math.sqrt(2 / hidden)
        first = torch.zeros(hidden, encoded)
        first[:, :3].normal_(0, deviation)
        second = torch.zeros(hidden, hidden + latent)
        second[:, :hidden].normal_(0, deviation)
        last = torch.zeros(hidden, hidden + latent)
        last[:, :hidden].normal_(math.sqrt(math.pi / hidden), 1e-4)
        self.lin0.initialize(first, 0.0)
        self.lin1.initialize(second, 0.0)
        self.lin2.initialize(last, -0.5)

    def forward(
        self, points: Float[Tensor, "n 3"], latent: Float[Tensor, "n c"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n f"]]:
        """s(x) and the remaining `hidden - 1` outputs, for points in [-1, 1]^3 and the volume's feature there."""
        x = self.lin2(self._before_last(points, latent))
        return x[:, 0], x[:, 1:]

    def sdf(self, points: Float[Tensor, "n 3"], latent: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        """s(x) alone."""
        return self._before_last(points, latent) @ self.lin2.weight[0] + self.lin2.bias[0]

    def _before_last(self, points: Float[Tensor, "n 3"], latent: Float[Tensor, "n c"]) -> Float[Tensor, "n k"]:
        """What the last layer sees."""
        x = torch.cat([softplus(self.lin0(positional_encoding(points))), latent], dim=-1)
        return torch.cat([softplus(self.lin1(x)), latent], dim=-1)

    def sdf_and_gradient(
        self, points: Float[Tensor, "n 3"], latent: Float[Tensor, "n c"], latent_jacobian: Float[Tensor, "n c 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """s(x) and ds/dx, through the encoding and through the volume's feature.

        The chain rule is written out, so both results are differentiable with respect to the weights, `latent` and
        `latent_jacobian` in a single backward pass. `latent_jacobian[n, c, i]` is d latent[n, c] / d x_i. With frozen
        weights the backward pass is written out, too (see `FrozenDecoder`).

        Warning: points receive no gradient through ds/dx when they need none; they are data here.
        """
        h = self.hidden
        w0, w1, w2 = self.lin0.weight, self.lin1.weight, self.lin2.weight[0]
        encoded, slopes = encoding_with_slopes(points)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            biases = self.lin0.bias, self.lin1.bias, self.lin2.bias[0]
            return FrozenDecoder.apply(encoded, slopes, latent, latent_jacobian, (w0, w1, w2), biases, BETA)
        a0 = F.linear(encoded, w0, self.lin0.bias)
        a1 = F.linear(torch.cat([F.softplus(a0, BETA), latent], dim=-1), w1, self.lin1.bias)
        sdf = torch.cat([F.softplus(a1, BETA), latent], dim=-1) @ w2 + self.lin2.bias[0]

        # Softplus has the slope sigmoid(beta a). Backwards from the single output: one product per layer.
        to_a1 = w2[:h] * torch.sigmoid(BETA * a1)
        to_x1 = to_a1 @ w1
        to_a0 = to_x1[:, :h] * torch.sigmoid(BETA * a0)
        to_latent = w2[h:] + to_x1[:, h:]
        direct = ((to_a0 @ w0) * slopes).unflatten(-1, (-1, 3)).sum(dim=1)
        return sdf, direct + torch.einsum("nc,nci->ni", to_latent, latent_jacobian)


def query_sdf(
    volume: Float[Tensor, "c x y z"], decoder: GeometryDecoder, points: Float[Tensor, "n 3"]
) -> Float[Tensor, " n"]:
    """s(x) of eqs. 2 and 7 for points of the cube [-1, 1]^3, in units of the cube."""
    return decoder.sdf(points, sample_volume(volume, points))


def query_sdf_and_gradient(
    volume: Float[Tensor, "c x y z"], decoder: GeometryDecoder, points: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """s(x) and ds/dx, differentiable with respect to the volume and the decoder in a single backward pass."""
    return decoder.sdf_and_gradient(points, *sample_volume_with_jacobian(volume, points))
