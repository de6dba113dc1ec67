"""The parameters of the released networks by name and shape: every one has its place in ours, at full size.

A manifest of the golden folder holds names and shapes and no numbers; the networks are built without memory.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from geodream_lib.errors import InputError
from geodream_lib.storage import save_tensors
from geodream_lib.views.zero123.model import CameraProjection
from geodream_lib.volume.networks import load_cost_volume_networks
from geodream_lib.weights import convert_zero123 as zero123
from geodream_lib.weights.convert_mvdream import UNET_PREFIX, mvdream_unet, released_unet_config
from geodream_lib.weights.ldm import VAE, vae_config, vae_weights
from geodream_lib.weights.strict import network, rename, split

Shapes = dict[str, tuple[int, ...]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given = metafunc.config.getoption("golden") or Path(__file__).parents[1] / "golden" / "data"
    files = sorted((given / "manifests").glob("*.json"))
    metafunc.parametrize("manifest", files, ids=[file.stem for file in files])


def read_shapes(manifest: Path) -> Shapes:
    content = json.loads(manifest.read_text())
    if "params" in content:
        return {name: tuple(shape) for name, shape in content["params"].items()}
    return {
        f"{part}.{name}": tuple(entry["shape"])
        for part, entries in content["parameters"].items()
        for name, entry in entries.items()
    }


def meta(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def count(*networks: nn.Module) -> int:
    return sum(tensor.numel() for built in networks for tensor in built.state_dict().values())


def read_zero123(shapes: Shapes, work: Path) -> int:
    prefixes = (zero123.UNET, zero123.AVERAGED_UNET, zero123.PROJECTION)
    parts = split(meta(shapes), prefixes, zero123.UNUSED, "test")
    unet = zero123.zero123_unet(zero123.ZERO123["unet"], parts, use_ema=True, source="test")
    names = {name: f"proj.{name}" for name in ("weight", "bias")}
    sizes = {"embedding": 768, "context": unet.config.cross_attention_dim}
    return count(unet, network(CameraProjection, sizes, rename(parts[zero123.PROJECTION], names, "test"), "test"))


def read_vae(shapes: Shapes, work: Path) -> int:
    tensors = split(meta(shapes), [zero123.VAE_PREFIX], (), "test")[zero123.VAE_PREFIX]
    return count(network(AutoencoderKL, vae_config(VAE), vae_weights(tensors, vae_config(VAE), "test"), "test"))


def read_mvdream(shapes: Shapes, work: Path) -> int:
    tensors = split(meta(shapes), [UNET_PREFIX], (), "test")[UNET_PREFIX]
    return count(mvdream_unet(released_unet_config(tensors), tensors, "test"))


def read_one2345(shapes: Shapes, work: Path) -> int:
    """Small enough to be read from a file."""
    save_tensors(work / "model.safetensors", {name: torch.zeros(shape) for name, shape in shapes.items()})
    return count(load_cost_volume_networks(work / "model.safetensors"))


def reader(shapes: Shapes) -> Callable[[Shapes, Path], int]:
    """Which of our converters these names are for."""
    if "cc_projection.weight" in shapes:
        return read_zero123
    if f"{UNET_PREFIX}camera_embed.0.weight" in shapes:
        return read_mvdream
    return read_vae if any(name.startswith(zero123.VAE_PREFIX) for name in shapes) else read_one2345


def test_every_parameter_has_its_place(manifest, tmp_path):
    """As many numbers as the manifest has; names and shapes are compared one by one on the way."""
    shapes = read_shapes(manifest)
    expected = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert reader(shapes)(shapes, tmp_path) == expected


def test_a_parameter_too_few_is_named(manifest, tmp_path):
    shapes = read_shapes(manifest)
    for name in (list(shapes)[0], list(shapes)[len(shapes) // 2], list(shapes)[-1]):
        few = {other: shape for other, shape in shapes.items() if other != name}
        with pytest.raises(InputError, match=rf"missing.*{name.rsplit('.', 1)[1]}"):
            reader(shapes)(few, tmp_path)


def test_a_parameter_too_many_is_named(manifest, tmp_path):
    shapes = read_shapes(manifest)
    name = list(shapes)[len(shapes) // 2]
    with pytest.raises(InputError, match="unknown.*surplus"):
        reader(shapes)(shapes | {f"{name}.surplus": (1,)}, tmp_path)


def test_a_parameter_of_another_shape_is_named(manifest, tmp_path):
    shapes = read_shapes(manifest)
    name = next(name for name in reversed(shapes) if name.endswith(".weight"))
    with pytest.raises(InputError, match=r"expected \("):
        reader(shapes)(shapes | {name: (*shapes[name][:-1], shapes[name][-1] + 1)}, tmp_path)
