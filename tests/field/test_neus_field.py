"""The refined representation: eqs. (7) and (8), what is trained, and its file."""

import math
from pathlib import Path

import pytest
import torch

from geodream_lib.cameras import orbit
from geodream_lib.errors import InputError
from geodream_lib.field import HashEncoding, NeuSField, TextureDecoder, occupancy_grid, render
from geodream_lib.plan.trace import trace
from geodream_lib.presets import Field
from geodream_lib.scenes import FieldScene
from geodream_lib.storage import load_tensors, save_tensors
from geodream_lib.volume.decoder import GeometryDecoder


def some_field(to_world: torch.Tensor | None = None) -> NeuSField:
    torch.manual_seed(0)
    decoder = GeometryDecoder(hidden=16, latent=4)
    # The geometric initialisation ignores the volume; a trained decoder does not.
    decoder.lin1.weight_v.data[:, 16:].normal_(0, 0.1)
    encoding = HashEncoding(levels=3, log2_table=9)
    volume = 0.1 * torch.randn(4, 12, 12, 12)
    return NeuSField(volume, decoder, 50.0, encoding, to_world=to_world)


def some_points(n: int, reach: float = 0.95) -> torch.Tensor:
    return (2 * torch.rand(n, 3, generator=torch.Generator().manual_seed(1)) - 1) * reach


def test_gradient_of_the_sdf_is_its_derivative_also_in_a_scaled_world() -> None:
    to_world = torch.eye(4)
    to_world[:3, :3] = 1.5 * torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    to_world[:3, 3] = torch.tensor([0.3, 0.1, -2.0])
    field = some_field(to_world).double()
    points = some_points(200).double() @ field.to_world[:3, :3].T + field.to_world[:3, 3]
    sdf, gradient = field.sdf_and_gradient(points)
    torch.testing.assert_close(sdf, field.sdf(points))
    step = 1e-6
    for axis in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[axis]
        numeric = (field.sdf(points + shift) - field.sdf(points - shift)) / (2 * step)
        # A point within a step of a voxel's face has two derivatives.
        assert ((numeric - gradient[:, axis]).abs() < 1e-5).float().mean() > 0.99
    torch.testing.assert_close(field.normal(points).norm(dim=-1), torch.ones(200, dtype=torch.float64))


def test_distances_scale_with_the_world() -> None:
    small, large = some_field(), some_field(torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
    points = some_points(50)
    torch.testing.assert_close(large.sdf(2 * points), 2 * small.sdf(points), atol=1e-5, rtol=0)
    torch.testing.assert_close(large.inverse_deviation, small.inverse_deviation / 2)
    torch.testing.assert_close(large.color(2 * points), small.color(points), atol=1e-5, rtol=0)


def test_outside_the_cube_is_outside_the_object() -> None:
    field = some_field()
    points = torch.tensor([[1.5, 0.0, 0.0], [0.2, -1.001, 0.3], [3.0, -2.0, 5.0], [-4.0, 0.0, 0.0]])
    sdf, gradient = field.sdf_and_gradient(points)
    expected = torch.tensor([0.5, 0.001, math.sqrt(4 + 1 + 16), 3.0])
    torch.testing.assert_close(sdf, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(field.sdf(points), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient[0], torch.tensor([1.0, 0.0, 0.0]))


def test_a_picture_reaches_what_is_trained_and_nothing_else() -> None:
    field = some_field()
    cameras = orbit([0.0, 90.0], 15.0, 2.8, 40.0, 16)
    rendered = render(field, cameras, samples_per_ray=32, background=field.background, occupancy=occupancy_grid(field))
    rendered.rgb.square().sum().backward()
    groups = field.parameter_groups()
    assert list(groups) == ["volume", "encoding", "texture", "background"]
    for parameters in groups.values():
        assert all(parameter.grad.abs().max() > 0 for parameter in parameters)
    trained = {id(parameter) for parameters in groups.values() for parameter in parameters}
    rest = [parameter for parameter in field.parameters() if id(parameter) not in trained]
    assert rest and not any(parameter.requires_grad or parameter.grad is not None for parameter in rest)


def test_a_budget_bounds_the_memory_and_changes_no_gradient() -> None:
    """Every tensor that is alive is counted, also those that the chunks make again in the backward pass."""
    torch.manual_seed(0)
    field = NeuSField(0.05 * torch.randn(16, 12, 12, 12), GeometryDecoder(), 100.0, HashEncoding(4, log2_table=9))
    cameras, occupancy = orbit([0.0, 90.0], 15.0, 2.8, 40.0, 48), occupancy_grid(field, resolution=24)
    parameters = [parameter for group in field.parameter_groups().values() for parameter in group]
    mebibyte = 2**20
    on_top = 2 * 4 * sum(parameter.numel() for parameter in parameters) + 400 * 2 * 48**2  # gradients, rays

    def step(memory_gib: float) -> tuple[float, list[torch.Tensor]]:
        field.zero_grad()

        def render_and_back() -> None:
            arguments = {"background": field.background, "occupancy": occupancy, "memory_gib": memory_gib}
            render(field, cameras, samples_per_ray=96, **arguments).rgb.square().mean().backward()

        return trace(render_and_back).peak - on_top, [parameter.grad.clone() for parameter in parameters]

    (whole, expected), (bounded, gradients) = step(1.0), step(8 / 1024)
    assert bounded < 8 * mebibyte < whole / 3
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5 * other.abs().max().item(), rtol=0)


def test_the_slope_in_the_opacity_may_be_annealed_as_in_neus() -> None:
    settings = Field(samples_per_ray=48, occupancy_resolution=16, cos_anneal_steps=10)
    scene, cameras = FieldScene(some_field(), settings), orbit([0.0], 15.0, 2.8, 40.0, 16)

    def opacity(step: int) -> float:
        scene.measure_occupancy()
        return scene.shoot(cameras, step, torch.Generator().manual_seed(0)).terms["sparsity"].item()

    start, middle, end, later = (opacity(step) for step in (0, 5, 10, 20))
    assert start > middle > end == later  # the softer slope of the start widens the silhouette


def test_the_prior_is_copied() -> None:
    decoder, volume = GeometryDecoder(hidden=8, latent=2), torch.zeros(2, 4, 4, 4)
    field = NeuSField(volume, decoder, 50.0, HashEncoding(levels=2, log2_table=8))
    field.volume.data += 1
    assert volume.max() == 0 and all(parameter.requires_grad for parameter in decoder.parameters())


def test_an_untrained_texture_is_grey_and_depends_on_the_position() -> None:
    texture = TextureDecoder(encoding_dimension=4)
    colors = texture(torch.zeros(3, 4), torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert (colors[0] == 0.5).all() and (colors[1] != colors[2]).any()
    assert (colors - 0.5).abs().max() < 0.4


def test_save_and_load(tmp_path: Path) -> None:
    field = some_field(torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
    field.save(tmp_path / "field.safetensors")
    again = NeuSField.load(tmp_path / "field.safetensors")
    points = some_points(40)
    for name in ("sdf", "color", "normal"):
        assert torch.equal(getattr(again, name)(points), getattr(field, name)(points))
    assert torch.equal(again.inverse_deviation, field.inverse_deviation)
    assert again.volume.stride() == field.volume.stride()


def test_other_files_are_refused(tmp_path: Path) -> None:
    field = some_field()
    path = tmp_path / "field.safetensors"
    field.save(path)
    tensors, metadata = load_tensors(path)

    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(path.read_bytes()[:-100])
    save_tensors(tmp_path / "foreign.safetensors", {"weight": torch.zeros(2)})
    save_tensors(tmp_path / "incomplete.safetensors", {"volume": tensors["volume"]}, metadata)
    save_tensors(tmp_path / "nonsense.safetensors", tensors, {**metadata, "config": "{}"})
    messages = {
        "truncated": "truncated",
        "foreign": "not a NeuS field",
        "incomplete": "does not fit NeuSField: missing",
        "nonsense": "description",
        "absent": "missing",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            NeuSField.load(tmp_path / f"{name}.safetensors")


def test_a_world_that_is_no_similarity_is_refused() -> None:
    sheared = torch.eye(4)
    sheared[0, 1] = 0.5
    for bad in (
        sheared,
        torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0])),
        torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0])),
    ):
        with pytest.raises(InputError, match="similarity"):
            some_field(bad)
