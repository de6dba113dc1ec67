"""The paper's judges from files as they are published: whole, checked, and refused by name where they do not fit."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.lab.networks import make_tokenizer
from geodream_lib.metrics.clip_texts import read_clip
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.point_encoder import PointEncoderConfig, Uni3D
from geodream_lib.metrics.point_text import PointText, load_uni3d
from geodream_lib.weights.convert_uni3d import convert_uni3d

WIDTH, SHARED, LENGTH = 64, 24, 12


def tower(prefix: str, layers: int = 2) -> dict[str, Tensor]:
    """Parameters of the layers that both halves of CLIP have, by the names of OpenCLIP."""
    shapes = {"attn.in_proj_weight": (3 * WIDTH, WIDTH), "attn.in_proj_bias": (3 * WIDTH,)}
    for name, (rows, columns) in {
        "attn.out_proj": (WIDTH, WIDTH),
        "mlp.c_fc": (4 * WIDTH, WIDTH),
        "mlp.c_proj": (WIDTH, 4 * WIDTH),
    }.items():
        shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    for norm in ("ln_1", "ln_2"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    return {
        f"{prefix}transformer.resblocks.{i}.{name}": torch.randn(shape)
        for i in range(layers)
        for name, shape in shapes.items()
    }


def text_tower(prefix: str, tokens: int) -> dict[str, Tensor]:
    own = {
        "token_embedding.weight": torch.randn(tokens, WIDTH),
        "positional_embedding": torch.randn(LENGTH, WIDTH),
        "ln_final.weight": torch.randn(WIDTH),
        "ln_final.bias": torch.randn(WIDTH),
        "text_projection": torch.randn(WIDTH, SHARED),
    }
    return {f"{prefix}{name}": tensor for name, tensor in own.items()} | tower(prefix)


def image_tower(prefix: str = "visual.") -> dict[str, Tensor]:
    own = {
        "class_embedding": torch.randn(WIDTH),
        "positional_embedding": torch.randn(10, WIDTH),
        "conv1.weight": torch.randn(WIDTH, 3, 8, 8),
        "proj": torch.randn(WIDTH, SHARED),
    }
    for norm in ("ln_pre", "ln_post"):
        own |= {f"{norm}.weight": torch.randn(WIDTH), f"{norm}.bias": torch.randn(WIDTH)}
    return {f"{prefix}{name}": tensor for name, tensor in own.items()} | tower(prefix)


@pytest.fixture
def repository(tmp_path) -> Callable[[str, str], Path]:
    """A folder as published: weights in OpenCLIP's layout, a vocabulary beside them."""

    def make(name: str, prefix: str) -> Path:
        torch.manual_seed(0)
        folder = tmp_path / name
        words = make_tokenizer(["a", "red", "log"], folder)
        tensors = image_tower() | text_tower(prefix, len(words)) | {"logit_scale": torch.tensor(4.6)}
        save_file(tensors, folder / "open_clip_model.safetensors")
        return folder

    return make


def test_clip_is_fetched_from_a_folder_and_judges_images(repository, command, weights):
    code, out, err = command("fetch", "clip-vit-b32", "--from", repository("clip", ""))
    assert code == 0, err
    assert "clip-vit-b32: whole and readable" in out
    network = ImageText.load(weights / "clip-vit-b32")
    assert network.preparation.size == 24 and network.clip.config.text_config.hidden_act == "quick_gelu"
    assert network.embed_images(torch.rand(1, 30, 30, 3)).shape == network.embed_texts(["a log"]).shape == (1, SHARED)
    assert network.clip.logit_scale.item() == pytest.approx(4.6)
    assert command("verify", "clip-vit-b32")[0] == 0


def test_of_eva_s_clip_the_text_tower_is_kept(repository, command, weights):
    code, _, err = command("convert", "eva02-clip-text", repository("eva", "text.") / "open_clip_model.safetensors")
    assert code == 0, err
    model, _ = read_clip(weights / "eva02-clip-text")
    assert model.config.projection_dim == SHARED and not any("vision" in name for name in model.state_dict())
    assert model.config.hidden_act == "gelu"


def test_a_file_of_another_network_is_refused(repository, command, weights, tmp_path):
    code, _, err = command("convert", "eva02-clip-text", repository("clip", "") / "open_clip_model.safetensors")
    assert code == 2 and "keys of no known network" in err and len(err.splitlines()) == 1
    file = tmp_path / "half.safetensors"
    save_file({"visual.proj": torch.zeros(2, 2)}, file)
    code, _, err = command("convert", "clip-vit-b32", file, "--tokenizer", repository("clip", ""))
    assert code == 2 and "no logit_scale" in err
    code, _, err = command("convert", "clip-vit-b32", repository("clip", "") / "open_clip_model.safetensors")
    assert code == 0
    assert not (weights / "eva02-clip-text").exists()


def released(mlp: str = "gated", width: int = 128) -> dict[str, Tensor]:
    """A point encoder by its public names, with what its trunk has from its time with pictures."""
    torch.manual_seed(0)
    sizes = PointEncoderConfig(width, 2, 2, mlp, 80, embed_dim=SHARED, patch_widths=(8, 12, 16), patch_dim=20)
    tensors = {name: tensor.half() for name, tensor in Uni3D(sizes).state_dict().items()}
    trunk = {"cls_token": (1, 1, width), "pos_embed": (1, 5, width), "head.weight": (7, width), "head.bias": (7,)}
    trunk |= {"patch_embed.proj.weight": (width, 3, 4, 4), "patch_embed.proj.bias": (width,)}
    return tensors | {f"point_encoder.visual.{name}": torch.zeros(shape).half() for name, shape in trunk.items()}


@pytest.mark.parametrize("mlp", ["plain", "gated", "gated_norm"])
def test_sizes_follow_from_the_shapes(mlp, tmp_path):
    convert_uni3d(released(mlp), tmp_path / "uni3d")
    found = load_uni3d(tmp_path / "uni3d").point_encoder.config
    assert (found.width, found.depth, found.heads, found.mlp, found.hidden) == (128, 2, 2, mlp, 80)
    assert (found.patch_widths, found.patch_dim, found.embed_dim) == ((8, 12, 16), 20, SHARED)
    assert (found.groups, found.group_size, found.points) == (512, 64, 10_000)


def test_a_checkpoint_of_its_trainer_becomes_a_judge_of_shapes(command, weights, repository, tmp_path):
    """`module` beside what else such a file holds: sets, shapes, counts."""
    module = OrderedDict((f"module.{name}", tensor) for name, tensor in released().items())
    content = {"module": OrderedDict((name.removeprefix("module."), t) for name, t in module.items())}
    content |= {"optimizer": None, "sparse_tensor_module_names": {"a"}, "param_shapes": [{"a": torch.Size([2])}]}
    content |= {"global_steps": 5, "ds_config": {"train_batch_size": 8}}
    torch.save(content, tmp_path / "model.pt")
    code, out, err = command("convert", "uni3d-ti", tmp_path / "model.pt")
    assert code == 0 and "uni3d-ti: whole and readable" in out, err
    with pytest.raises(InputError, match="run: geodream weights fetch eva02-clip-text"):
        PointText.load(weights / "uni3d-ti")
    command("convert", "eva02-clip-text", repository("eva", "text.") / "open_clip_model.safetensors")
    network = PointText.load(weights / "uni3d-ti")
    points = network.embed_points(torch.randn(1, 600, 3), torch.rand(1, 600, 3))
    assert points.shape == network.embed_texts(["a log"]).shape == (1, SHARED)


def test_a_key_too_many_or_too_few_or_of_another_shape_is_named(tmp_path):
    tensors, name = released(), "point_encoder.visual.blocks.1.attn.q_bias"
    for change, expected in (
        ({name: None}, f"missing {name}"),
        ({"point_encoder.visual.blocks.1.attn.k_bias": torch.zeros(128)}, "unknown .*k_bias"),
        ({name: torch.zeros(3)}, r"q_bias is \(3,\), expected \(128,\)"),
        ({"point_encoder.trans2embed.weight": None}, "no point_encoder.trans2embed.weight; expected the model.pt"),
    ):
        changed = {key: value for key, value in (tensors | change).items() if value is not None}
        with pytest.raises(InputError, match=expected):
            convert_uni3d(changed, tmp_path / "uni3d")
    assert not (tmp_path / "uni3d").exists()
