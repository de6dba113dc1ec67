"""s(x) and ds/dx of a geometry decoder whose weights are frozen, as refinement asks for them: both passes written out.

`GeometryDecoder.sdf_and_gradient` says what is computed. Here the pass forward keeps two numbers per hidden unit, the
pass back has no products for weights, and points go through in parts that stay in the processor's cache.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.volume.softplus import softplus_and_slope

PART = 4096  # points at once


class FrozenDecoder(torch.autograd.Function):
    """s(x) and ds/dx from the encoded points, the volume's feature there and its derivative.

    With a_0, a_1 the layers' outputs, x_i = softplus(a_i) and s_i its slope:

        s(x) = w2 . [x_1, latent],    ds/da_1 = w2 s_1,    ds/d[x_0, latent] = ds/da_1 w1,    ds/da_0 = ds/dx_0 s_0

    Differentiable, once, in `latent` and `jacobian`. encoded, slopes: E(x), and the derivative of each of its entries
    with respect to the coordinate it depends on; weights and biases: of the three layers, of the last one's first row.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        encoded: Float[Tensor, "n e"],
        slopes: Float[Tensor, "n e"],
        latent: Float[Tensor, "n c"],
        jacobian: Float[Tensor, "n c 3"],
        weights: tuple[Float[Tensor, "h e"], Float[Tensor, "h h+c"], Float[Tensor, " h+c"]],
        biases: tuple[Float[Tensor, " h"], Float[Tensor, " h"], Float[Tensor, ""]],
        beta: float,
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        (w0, w1, w2), (b0, b1, b2) = weights, biases
        h = w0.shape[0]
        parts = []
        for e, slope, v, j in zip(*(x.split(PART) for x in (encoded, slopes, latent, jacobian)), strict=True):
            x0, s0 = softplus_and_slope(torch.addmm(b0, e, w0.T), beta)
            x1, s1 = softplus_and_slope(torch.addmm(b1, x0, w1[:, :h].T).addmm_(v, w1[:, h:].T), beta)
            sdf = x1 @ w2[:h] + v @ w2[h:] + b2
            to_input = (s1 * w2[:h]) @ w1
            to_latent = to_input[:, h:] + w2[h:]
            direct = ((to_input[:, :h] * s0) @ w0).mul_(slope).unflatten(-1, (-1, 3)).sum(1)
            parts.append((sdf, direct + torch.bmm(to_latent[:, None], j)[:, 0], s0, s1, to_latent))
        sdf, gradient, s0, s1, to_latent = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.save_for_backward(slopes, jacobian, s0, s1, to_latent, *weights)
        ctx.beta = beta
        return sdf, gradient

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, to_sdf: Float[Tensor, " n"], to_gradient: Float[Tensor, "n 3"]
    ) -> tuple[Tensor | None, ...]:
        *saved, w0, w1, w2 = ctx.saved_tensors
        h = w0.shape[0]
        parts = []
        for slope, j, s0, s1, to_latent, d, g in zip(
            *(x.split(PART) for x in (*saved, to_sdf, to_gradient)), strict=True
        ):
            along = (slope.unflatten(-1, (-1, 3)) * g[:, None]).flatten(1)
            to_to_a1 = torch.addmm(
                torch.bmm(j, g[..., None])[..., 0] @ w1[:, h:].T, (along @ w0.T).mul_(s0), w1[:, :h].T
            )
            # To a_1 by way of s_1, whose slope is beta s_1 (1 - s_1), and by way of x_1.
            to_a1 = to_to_a1.mul_(1 - s1).mul_(ctx.beta).add_(d[:, None]).mul_(s1).mul_(w2[:h])
            to_jacobian = to_latent[..., None] * g[:, None]
            parts.append((torch.addmm(d[:, None] * w2[h:], to_a1, w1[:, h:]), to_jacobian))
        latent_gradient, jacobian_gradient = (torch.cat(column) for column in zip(*parts, strict=True))
        return None, None, latent_gradient, jacobian_gradient, None, None, None
