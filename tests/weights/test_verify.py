"""What our own code writes passes the check of ready networks, part by part."""

import shutil

import pytest
import torch
from diffusers.models.embeddings import TimestepEmbedding
from safetensors.torch import save_file

from geodream_lib.errors import InputError
from geodream_lib.guidance.load import load_diffusion
from geodream_lib.storage import load_tensors
from geodream_lib.views import MVDream
from geodream_lib.weights import NETWORKS
from geodream_lib.weights.verify import check_network, expected_shapes

pytestmark = pytest.mark.needs_golden("vsd")


def test_mvdream(golden, tmp_path):
    diffusion = load_diffusion(golden / "vsd" / "sd_base")
    width = diffusion.denoiser.unet.time_embedding.linear_2.out_features
    MVDream(diffusion, TimestepEmbedding(16, width)).save(tmp_path / "mvdream")
    check_network(NETWORKS["mvdream-sd21"], tmp_path / "mvdream")
    file = tmp_path / "mvdream" / "camera_embedding" / "diffusion_pytorch_model.safetensors"
    save_file({"linear_1.weight": torch.zeros(width, 16)}, file)
    with pytest.raises(InputError, match="camera_embedding/.* missing linear_1.bias and 2 more"):
        check_network(NETWORKS["mvdream-sd21"], tmp_path / "mvdream")


def test_names_of_older_files_count_as_todays(golden, tmp_path):
    """The VAE's attention was renamed, text encoders stored the places of their tokens: the loader knows both."""
    folder = shutil.copytree(golden / "vsd" / "sd_base", tmp_path / "sd")
    renamed = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    vae, text = folder / "vae" / "diffusion_pytorch_model.safetensors", folder / "text_encoder" / "model.safetensors"
    old = {}
    for name, tensor in load_tensors(vae)[0].items():
        for today, before in renamed.items():
            name = name.replace(today, before)
        old[name] = tensor
    assert any(".query." in name for name in old)
    save_file(old, vae)
    places = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(load_tensors(text)[0] | places, text)
    check_network(NETWORKS["sd21-base"], folder)
    load_diffusion(folder)


def test_shapes_follow_from_the_configurations_alone(golden):
    folder = golden / "vsd" / "sd_base"
    for part, file in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        stored = load_tensors(folder / part / f"{file}.safetensors")[0]
        expected = expected_shapes(folder, part)
        assert {name.removeprefix("text_model."): tuple(t.shape) for name, t in stored.items()} == expected
