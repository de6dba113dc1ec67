"""From signed distances to rendering weights: NeuS (Wang et al. 2021), section 3.1.

The renderings that train the cost volume (eq. 4) and those that are refined (eq. 9) share these formulas.
"""

from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.cuda_libraries import library

# Keeps the transmittance of a wholly opaque section above zero, and so its gradient finite.
LEAK = 1e-7


def section_alpha(
    sdf: Float[Tensor, "*k"],
    cosine: Float[Tensor, "*k"],
    length: Float[Tensor, ""] | Float[Tensor, "*k"],
    inverse_deviation: Float[Tensor, ""],
    cos_anneal_ratio: float = 1.0,
) -> Float[Tensor, "*k"]:
    """Opacity of sections of a ray (NeuS eq. 13), with the public implementations' 1e-5 against division by zero.

    The SDF at both ends of a section is extrapolated from its midpoint with the slope along the ray. That slope is
    never positive, so a surface counts only where the ray enters it.

    Args:
        sdf: at the midpoint of each section.
        cosine: derivative of the SDF along the ray there, direction . gradient.
        length: of the section, in the units of `sdf`.
        inverse_deviation: sharpness s, in 1 / those units.
        cos_anneal_ratio: 1 takes the slope -relu(-cosine) of NeuS; 0 the softer -relu(0.5 - 0.5 cosine) with which
            NeuS begins training and which the released GeoDream code keeps throughout; linear in between. 0 widens
            silhouettes, because rays that graze the surface, or leave it, are absorbed too.
    """
    soft, exact = torch.relu(0.5 - 0.5 * cosine), torch.relu(-cosine)
    slope = -(soft * (1 - cos_anneal_ratio) + exact * cos_anneal_ratio).clamp(-10, 10)
    entering = torch.sigmoid((sdf - slope * length / 2) * inverse_deviation)
    leaving = torch.sigmoid((sdf + slope * length / 2) * inverse_deviation)
    return ((entering - leaving + 1e-5) / (entering + 1e-5)).clamp(0, 1)


def rendering_weights(alpha: Float[Tensor, "r s"]) -> Float[Tensor, "r s"]:
    """alpha_i times the transmittance up to section i: the product of (1 - alpha_j) over all j < i."""
    passed = torch.cumprod(1 - alpha + LEAK, dim=-1)
    return alpha * torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=-1)


def packed_weights(alpha: Float[Tensor, " k"], ray: Int[Tensor, " k"], rays: int) -> Float[Tensor, " k"]:
    """`rendering_weights` of sections that are stored ray after ray; the sections left out are transparent.

    On CUDA through nerfacc where it is active, which scans the sections as they lie.
    """
    if nerfacc := library("nerfacc", alpha, ray):
        return packed_weights_nerfacc(nerfacc, alpha, ray, rays)
    rows, place = lay_out(alpha, ray, rays, fill=0.0)
    return rendering_weights(rows).view(-1).gather(0, place)


def packed_weights_nerfacc(
    nerfacc: ModuleType, alpha: Float[Tensor, " k"], ray: Int[Tensor, " k"], rays: int
) -> Float[Tensor, " k"]:
    """`packed_weights` by nerfacc 0.5.3, whose scans are compiled for float32 and int64.

    Its transmittance is the product of 1 - alpha, to which the leak is added by taking it from alpha; its backward pass
    divides by that factor, as the one of `torch.cumprod` does.
    """
    passed = nerfacc.render_transmittance_from_alpha(alpha.float() - LEAK, ray_indices=ray.long(), n_rays=rays)
    return (alpha * passed).to(alpha.dtype)


def lay_out(
    values: Float[Tensor, " k"], ray: Int[Tensor, " k"], rays: int, fill: float
) -> tuple[Float[Tensor, "r s"], Int[Tensor, " k"]]:
    """Values stored ray after ray (`ray` ascending) as one row per ray, filled up at the end, and each value's place.

    `rows.view(-1).gather(0, place)` gives the values back.
    """
    counts = torch.bincount(ray, minlength=rays)
    slot = torch.arange(ray.shape[0], device=ray.device) - (counts.cumsum(0) - counts)[ray]
    slots = max(1, int(counts.max()))
    place = ray * slots + slot
    rows = values.new_full((rays * slots,), fill).scatter(0, place, values)
    return rows.view(rays, slots), place
