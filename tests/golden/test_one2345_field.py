"""NeuS opacities and weights against the renderer of One-2-3-45 and the opacity of GeoDream."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geodream_lib.neus import rendering_weights, section_alpha


def read(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize("ratio", [0, 1])
def test_weights_of_one2345(ratio: int, golden: Path) -> None:
    expected = read(golden / "one2345" / "render.npz")
    gradient = expected["gradients_first16rays"]
    rays = len(gradient)
    mask = expected["pts_mask"][:rays].float()
    cosine = (expected["rays_v"][:rays, None] * gradient).sum(-1)
    inverse_deviation = 1 / expected[f"alpha_inter_ratio_{ratio}/variance"]
    alpha = section_alpha(expected["sdf"][:rays], cosine, expected["dists"][:rays], inverse_deviation, float(ratio))
    weights = rendering_weights(alpha * mask)
    torch.testing.assert_close(weights, expected[f"alpha_inter_ratio_{ratio}/weights"][:rays], atol=1e-5, rtol=0)


def test_alpha_of_geodream(golden: Path) -> None:
    inputs, expected = read(golden / "one2345" / "inputs.npz"), read(golden / "one2345" / "outputs.npz")
    cosine = (inputs["dirs"] * expected["geodream/gradient"]).sum(-1)
    inverse_deviation = expected["geodream/inv_variance"].squeeze()
    alpha = section_alpha(expected["geodream/sdf"][:, 0], cosine, inputs["dists"][:, 0], inverse_deviation, 0.0)
    torch.testing.assert_close(alpha, expected["geodream/alpha"][:, 0], atol=1e-5, rtol=0)
