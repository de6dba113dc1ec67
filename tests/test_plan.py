"""A plan counts what a run takes without running it: its counts are those of the real computation."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import geodream_lib.field.hash_encoding as hash_encoding
from geodream_lib.cameras_sampling import sample_training_cameras
from geodream_lib.cli import main
from geodream_lib.components import part_home
from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.field import HashEncoding, NeuSField, TextureDecoder, occupancy_grid
from geodream_lib.guidance import Denoiser, add_camera_lora
from geodream_lib.mesh.tetrahedra import tetrahedral_grid
from geodream_lib.plan import Step, check_fits, check_plan, device_memory, format_plan, make_plan
from geodream_lib.plan.fit import GB, needed_bytes
from geodream_lib.plan.networks import count_parameters, make_networks
from geodream_lib.plan.rendering import (
    field_cost,
    grid_cost,
    grid_size,
    neus_cost,
    normals_cost,
    samples_per_pixel,
    texture_cost,
)
from geodream_lib.plan.stages import distilled_steps
from geodream_lib.plan.trace import meta, trace
from geodream_lib.plan.views import view_steps
from geodream_lib.presets import load_preset
from geodream_lib.scenes import SURFACES, FieldScene, GeometryScene, TextureScene
from geodream_lib.storage import load_tensors
from geodream_lib.volume import sample
from geodream_lib.weights import published
from geodream_lib.weights.ldm import SCHEDULER


@pytest.fixture(scope="module")
def lab() -> list[Step]:
    return make_plan(load_preset("lab"))


@pytest.fixture(scope="module")
def paper() -> list[Step]:
    return make_plan(load_preset("paper"))


def small_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4),
        cross_attention_dim=32,
        norm_num_groups=8,
    )


def test_arithmetic_of_layers_is_what_their_shapes_say():
    convolution, linear = (nn.Conv2d(3, 5, 3, padding=1), nn.Linear(7, 11))
    image, rows = torch.rand(2, 3, 8, 8), torch.rand(13, 7)
    assert trace(lambda: convolution(image)).flops == 2 * (2 * 8 * 8) * 5 * (3 * 3 * 3)
    assert trace(lambda: linear(rows)).flops == 2 * 13 * 7 * 11


def test_memory_is_what_backward_needs_and_what_is_there_for_a_moment():
    n, width = 100, 64
    weight = torch.zeros(width, width, requires_grad=True)
    x = torch.zeros(n, width)
    matrix = 4 * n * width
    # A sigmoid keeps its result; the matrix product below it keeps x, which was there before.
    cost = trace(lambda: torch.sigmoid(x @ weight))
    assert cost.kept == matrix
    assert cost.peak == 2 * matrix
    with torch.no_grad():
        assert trace(lambda: torch.sigmoid(x @ weight).sum()).kept == 4


def test_a_training_step_without_numbers_counts_as_the_real_one():
    """The peak and the arithmetic of VSD's second network, on the meta device and in memory."""

    def step(device: str) -> object:
        torch.manual_seed(0)
        unet = small_unet().to(device).requires_grad_(False)
        lora = add_camera_lora(Denoiser(unet, DDIMScheduler(**SCHEDULER)).to(device), torch.Generator()).unet
        latents, text, camera = (torch.zeros(2, *size, device=device) for size in ((4, 16, 16), (7, 32), (16,)))
        t = torch.zeros(2, dtype=torch.long, device=device)
        return lambda: lora(latents, t, encoder_hidden_states=text, class_labels=camera).sample.sum().backward()

    without, real = trace(step("meta")), trace(step("cpu"))
    assert without.peak == pytest.approx(real.peak, rel=0.05)
    with FlopCounterMode(display=False) as counter:
        step("cpu")()
    # The fused attention of the CPU is not in PyTorch's list; in this network it is a small part.
    assert counter.get_total_flops() < without.flops < 1.3 * counter.get_total_flops()


def test_twice_the_batch_is_twice_the_work_and_memory():
    unet = small_unet().to("meta")

    def cost(n: int) -> object:
        with torch.no_grad():
            return trace(lambda: unet(meta(n, 4, 16, 16), 5, encoder_hidden_states=meta(n, 7, 32)).sample)

    assert cost(4).flops == pytest.approx(2 * cost(2).flops, rel=0.01)
    assert cost(4).peak == pytest.approx(2 * cost(2).peak, rel=0.01)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("text_to_image", ("unet", "vae", "text_encoder")),
        ("zero123", ("unet", "vae", "image_encoder", "clip_camera_projection")),
    ],
)
def test_local_networks_have_the_parameters_of_their_files(name: str, parts: tuple[str, ...]):
    networks = make_networks(f"lab/{name}", parts, torch.float32)
    for part in parts:
        files = list((part_home(data_folder() / "lab" / name, part) / part).glob("*.safetensors"))
        stored = sum(tensor.numel() for file in files for tensor in load_tensors(file)[0].values())
        assert count_parameters(networks[part]) == stored, part


@pytest.mark.parametrize(
    ("name", "files"), [("sd21-base", published.SD21_BASE), ("zero123plus-v1.1", published.ZERO123PLUS)]
)
def test_public_networks_are_as_large_as_their_published_files(name: str, files: tuple):
    sizes = {Path(file.path).parts[0]: file for file in files if file.path.endswith(".safetensors") and file.bytes}
    networks = make_networks(name, tuple(sizes), torch.float16)
    for part, file in sizes.items():
        bytes_each = 2 if ".fp16." in file.path else 4
        assert count_parameters(networks[part]) * bytes_each == pytest.approx(file.bytes, rel=0.001), part


def test_a_rendered_field_takes_what_the_plan_says(monkeypatch: pytest.MonkeyPatch):
    """On a refined field, not on the volume that the plan's constants were measured on: what its samples cost, and
    roughly how many there are, which depends on the object."""
    for module in (hash_encoding, sample):
        monkeypatch.setattr(module, "_compiled_kernels", lambda: None)  # the plan counts what is plain
    preset, size = load_preset("lab"), 48
    field = NeuSField.load(data_folder() / "samples" / "a-red-mushroom-on-a-log" / "neus" / "field.safetensors")
    scene = FieldScene(field, preset.field)
    scene.occupancy = occupancy_grid(field, resolution=preset.field.occupancy_resolution)
    generator = torch.Generator().manual_seed(0)
    ranges = preset.refine.cameras
    nearest = {"distance": ranges.distance[:1] * 2, "fov_y": ranges.fov_y[:1] * 2, "elevation": ranges.elevation}
    cameras, *_ = sample_training_cameras(2, size=size, generator=generator, **nearest)

    def step() -> None:
        shot = scene(cameras, 1, generator)
        (shot.images.mean() + shot.terms["sparsity"]).backward()

    evaluated, query = [], NeuSField.sdf_and_gradient

    def counting(field: NeuSField, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        evaluated.append(len(points))
        return query(field, points)

    step()  # so that the gradients of what is trained are there: they are counted elsewhere
    monkeypatch.setattr(NeuSField, "sdf_and_gradient", counting)
    counted, samples = trace(step), sum(evaluated)
    cost = field_cost(preset)
    assert samples_per_pixel(preset) == pytest.approx(samples / (len(cameras) * size**2), rel=0.5)
    expected = neus_cost(cost, samples, preset.field.memory_gib)
    assert expected.kept == pytest.approx(counted.peak, rel=0.25)
    assert expected.flops == pytest.approx(counted.flops, rel=0.25)
    bounded = neus_cost(cost, samples, expected.kept / 4 / 2**30)
    assert bounded.kept < expected.kept / 2 and bounded.flops > 1.5 * expected.flops  # rendered again on the way back


@pytest.mark.parametrize("surface", SURFACES)
def test_a_grid_has_the_parameters_the_plan_says(surface: str):
    scene = GeometryScene(SURFACES[surface](6))
    assert grid_cost(surface, 6).parameters == sum(p.numel() for p in scene.parameters())
    assert grid_cost(surface, 6).held == sum(b.nbytes for name, b in scene.named_buffers() if "box" not in name)


@pytest.mark.parametrize("surface", SURFACES)
def test_a_mesh_takes_what_the_plan_says(monkeypatch: pytest.MonkeyPatch, surface: str):
    monkeypatch.setattr(hash_encoding, "_compiled_kernels", lambda: None)
    grid, size = SURFACES[surface].from_sdf(lambda points: points.norm(dim=-1) - 0.75, 64), 192
    generator = torch.Generator().manual_seed(0)
    cameras, *_ = sample_training_cameras(
        2, distance=(2.6, 2.6), fov_y=(40.0, 40.0), elevation=(0.0, 30.0), size=size, generator=generator
    )

    def shape() -> None:
        shot = GeometryScene(grid)(cameras, 0, generator)
        (shot.images.mean() + sum(shot.terms.values())).backward()

    assert normals_cost(2 * size**2, grid_cost(surface, 64)).kept == pytest.approx(trace(shape).peak, rel=0.25)

    preset = load_preset("lab", {"field.log2_table": 12})
    settings = preset.field
    vertices, faces = (x.detach() for x in grid.mesh())
    encoding = HashEncoding(settings.levels, 2, settings.log2_table, settings.base_resolution, settings.growth)
    scene = TextureScene(vertices, faces, encoding, TextureDecoder(encoding.dimension), torch.eye(4), 0.0)
    counted = trace(lambda: scene(cameras, 0, generator).images.mean().backward())
    expected = texture_cost(field_cost(preset), 2 * size**2)
    assert expected.kept == pytest.approx(counted.peak, rel=0.25)


@pytest.mark.parametrize("resolution", [2, 8, 12])
def test_size_of_the_tetrahedral_grid(resolution: int):
    vertices, tets = tetrahedral_grid(resolution)
    assert grid_size(resolution) == (len(vertices), len(tets))


@pytest.mark.slow
def test_smaller_presets_take_less(lab: list[Step], paper: list[Step]):
    by_size = [lab[-3:], distilled_steps(load_preset("colab")), paper[-3:]]
    for less, more in pairwise(by_size):
        for small, large in zip(less, more, strict=True):
            assert small.flops < large.flops and small.memory < large.memory, small.stage


@pytest.mark.parametrize(
    ("setting", "value", "stage"),
    [
        ("refine.batch_size", 3, "refine"),
        ("field.samples_per_ray", 1024, "refine"),
        ("field.log2_table", 19, "refine"),
        ("volume.refined_resolution", 64, "refine"),
        ("refine.guidance.lora_timesteps", 2, "refine"),
        ("refine.guidance.lora_rank", 32, "refine"),
        ("mesh.geometry.batch_size", 4, "geometry"),
        ("mesh.grid_resolution", 128, "geometry"),
        ("mesh.texture.batch_size", 3, "texture"),
    ],
)
def test_larger_settings_take_more(lab: list[Step], setting: str, value: int, stage: str):
    larger = distilled_steps(load_preset("lab", {setting: value}))
    before, after = (next(step for step in plan if step.stage == stage) for plan in (lab, larger))
    assert after.memory > before.memory


def test_more_steps_take_longer_but_no_more_memory(lab: list[Step]):
    longer = distilled_steps(load_preset("lab", {"refine.steps": 640}))
    before, after = lab[-3], longer[0]
    assert after.steps == 640 and after.memory == before.memory and after.step_flops == before.step_flops
    assert after.flops == pytest.approx(2 * before.flops, rel=0.01)


def test_half_precision_halves_what_the_networks_take(lab: list[Step]):
    half = view_steps(load_preset("lab", {"precision": "float16"}), image=False)
    for small, large in zip(half, lab, strict=False):
        assert large.memory == pytest.approx(2 * small.memory, rel=0.1), large.what


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("fidelity", ["paper", "released"])
def test_the_views_are_those_of_the_run(fidelity: str, image: bool):
    steps = [step.what for step in view_steps(load_preset("paper", fidelity=fidelity), image)]
    if image:
        assert steps == ["Zero123"]
    else:
        assert steps == ["MVDream", "Zero123" if fidelity == "paper" else "Zero123++"]


def test_the_lab_looks_around_the_same_four_sides_in_both_readings():
    for fidelity, count in (("paper", 8), ("released", 10)):
        mvdream, zero123 = view_steps(load_preset("lab", fidelity=fidelity), image=False)
        assert mvdream.what == "MVDream" and zero123.sizes.startswith(f"{count} views")


@pytest.mark.slow
def test_a_plan_is_readable_and_adds_up(lab: list[Step], paper: list[Step]):
    for name, plan in (("lab", lab), ("paper", paper)):
        text = format_plan(load_preset(name), plan)
        assert max(len(line) for line in text.splitlines()) <= 100
        total = next(line for line in text.splitlines() if line.startswith("all"))
        assert float(total.split()[1]) == pytest.approx(sum(step.flops for step in plan) / 1e12, abs=0.1)


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_what_does(paper: list[Step]):
    preset = load_preset("paper")
    largest = max(paper, key=lambda step: step.memory)
    check_plan(preset, paper, int(needed_bytes(preset, largest)) + 1)
    memory = int(0.8 * needed_bytes(preset, largest))
    with pytest.raises(
        InputError, match=rf"{largest.stage} .* needs about .* GB and the GPU has .* GB; use"
    ) as refused:
        check_plan(preset, paper, memory)
    assert "\n" not in str(refused.value)
    # Every remedy it names fits.
    smaller, changes = str(refused.value).rpartition("; use ")[2].split(" or ")
    assert smaller == "--preset colab"
    settings = dict(change.strip().split("=") for change in changes.split("--set ")[1:])
    for remedy in (load_preset("colab"), load_preset("paper", settings)):
        assert all(needed_bytes(remedy, step) <= memory for step in distilled_steps(remedy))


def test_where_nothing_helps_no_setting_is_named(lab: list[Step]):
    on_gpu = replace(load_preset("lab"), device="cuda")
    with pytest.raises(InputError, match="the GPU has .*; use a device with more memory or --preset lab$"):
        check_plan(on_gpu, lab, GB)
    with pytest.raises(InputError, match="this machine has .*; use a device with more memory$"):
        check_fits(load_preset("lab"), GB)


def test_the_command_refuses_a_device_that_is_too_small(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("geodream_lib.plan.device_memory", lambda preset: GB)
    assert main(["plan"]) == 2
    printed = capsys.readouterr()
    assert "VSD on NeuS" in printed.out
    assert printed.err.startswith("geodream: error: refine") and len(printed.err.splitlines()) == 1


def test_a_plan_can_be_read_without_the_device(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_memory(load_preset("paper")) is None
    assert main(["plan", "--set", "device=cuda", "--image"]) == 0
    assert "No CUDA device was found" in capsys.readouterr().out


def test_the_lab_is_planned_for_this_machine(capsys):
    assert main(["plan"]) == 0
    assert "It fits" in capsys.readouterr().out


def test_a_network_that_is_missing_is_named():
    with pytest.raises(InputError, match="nowhere"):
        make_plan(replace(load_preset("lab"), zero123="lab/nowhere"))
