"""NeuS opacity and weights: what the formulas promise."""

import torch

from geodream_lib.neus import lay_out, packed_weights, rendering_weights, section_alpha


def test_sections_of_a_straight_descent_multiply_to_the_logistic_distribution() -> None:
    """Along a line through a plane, the transmittance after all sections is sigmoid(s d_end) / sigmoid(s d_start)."""
    inverse_deviation, cosine, length = torch.tensor(20.0), -0.8, 0.02
    middle = 0.3 + cosine * (torch.arange(30) + 0.5) * length
    alpha = section_alpha(middle, torch.full_like(middle, cosine), torch.tensor(length), inverse_deviation)
    passed = (1 - alpha).prod()
    start, end = torch.tensor(0.3), torch.tensor(0.3 + cosine * 30 * length)
    expected = torch.sigmoid(inverse_deviation * end) / torch.sigmoid(inverse_deviation * start)
    torch.testing.assert_close(passed, expected, atol=1e-3, rtol=0)


def test_a_surface_seen_from_behind_is_transparent_unless_annealed() -> None:
    sdf, leaving = torch.tensor([0.05]), torch.tensor([0.3])
    arguments = (sdf, leaving, torch.tensor(0.05), torch.tensor(40.0))
    assert section_alpha(*arguments, cos_anneal_ratio=1.0) < 1e-4
    assert section_alpha(*arguments, cos_anneal_ratio=0.0) > 0.05


def test_weights_never_exceed_the_whole_and_the_first_opaque_section_hides_the_rest() -> None:
    alpha = torch.rand(50, 20, generator=torch.Generator().manual_seed(0))
    weights = rendering_weights(alpha)
    torch.testing.assert_close(weights.sum(1), 1 - (1 - alpha).prod(1), atol=1e-5, rtol=0)
    alpha[:, 4] = 1
    assert rendering_weights(alpha)[:, 5:].max() < 1e-6


def test_packed_weights_are_the_weights_of_full_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    alpha = torch.rand(7, 9, generator=generator)
    kept = torch.rand(7, 9, generator=generator) < 0.4
    kept[3] = False
    ray, _ = kept.nonzero(as_tuple=True)
    packed = packed_weights(alpha[kept], ray, rays=7)
    torch.testing.assert_close(packed, rendering_weights(alpha * kept)[kept], atol=1e-6, rtol=0)


def test_laid_out_values_are_found_again() -> None:
    ray, values = torch.tensor([1, 1, 1, 4, 4, 5]), torch.arange(6.0) + 1
    rows, place = lay_out(values, ray, rays=6, fill=-1.0)
    assert rows.tolist()[1] == [1, 2, 3] and rows.tolist()[4] == [4, 5, -1] and rows.tolist()[0] == [-1, -1, -1]
    assert torch.equal(rows.view(-1).gather(0, place), values)
