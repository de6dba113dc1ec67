"""Names of the latent diffusion layout: written out from a configuration, complete and without a double."""

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel

from geodream_lib.errors import InputError
from geodream_lib.weights.ldm import (
    MVDREAM_SD15_UNET,
    MVDREAM_SD21_UNET,
    VAE,
    ZERO123_UNET,
    unet_config,
    unet_names,
    vae_config,
    vae_names,
    vae_weights,
)
from geodream_lib.weights.strict import network, rename, split

UNETS = {
    "zero123": ZERO123_UNET,
    "sd-v2.1": MVDREAM_SD21_UNET,
    "sd-v1.5": MVDREAM_SD15_UNET,
    "no attention outside the middle": ZERO123_UNET | {"attention_resolutions": []},
    "attention in between": ZERO123_UNET | {"attention_resolutions": [2], "channel_mult": [1, 1, 3]},
    "one level": ZERO123_UNET | {"channel_mult": [1], "attention_resolutions": [1]},
    "deep": ZERO123_UNET | {"transformer_depth": 3, "num_res_blocks": 1},
}
VAES = {
    "released": VAE,
    "one level": VAE | {"ch_mult": [1]},
    "equal widths": VAE | {"ch_mult": [1, 1, 1], "num_res_blocks": 1},
}


@pytest.mark.parametrize("name", UNETS)
def test_unet_s_names_fill_every_parameter_once(name):
    config = unet_config(UNETS[name])
    with init_empty_weights():
        own = UNet2DConditionModel(**config).state_dict()
    names = unet_names(config)
    assert sorted(names.values()) == sorted(own)


@pytest.mark.parametrize("name", VAES)
def test_vae_s_names_fill_every_parameter_once(name):
    config = vae_config(VAES[name])
    with init_empty_weights():
        own = AutoencoderKL(**config).state_dict()
    names = vae_names(config)
    assert sorted(names.values()) == sorted(own)


def test_heads_are_counted_or_have_a_width():
    """-1 is the official word for unset; a width wins over a number."""
    assert unet_config(ZERO123_UNET | {"num_head_channels": -1})["attention_head_dim"] == [8, 8, 8, 8]
    assert unet_config(ZERO123_UNET | {"num_head_channels": 64})["attention_head_dim"] == [5, 10, 20, 20]


def test_attention_is_where_the_downsampling_says():
    config = unet_config(ZERO123_UNET | {"attention_resolutions": [4]})
    assert [kind.startswith("CrossAttn") for kind in config["down_block_types"]] == [False, False, True, False]
    assert [kind.startswith("CrossAttn") for kind in config["up_block_types"]] == [False, True, False, False]


def test_convolutions_of_one_pixel_are_matrices():
    """The released VAE's attention: a 1x1 convolution and a linear layer with the same numbers agree."""
    config = vae_config(VAE | {"ch": 32, "ch_mult": [1, 1]})
    shapes = {name: tensor.shape for name, tensor in AutoencoderKL(**config).state_dict().items()}
    official = {
        name: torch.zeros(*shapes[own], *(1, 1) if ".attn_1." in name and len(shapes[own]) == 2 else ())
        for name, own in vae_names(config).items()
    }
    query = torch.nn.Conv2d(32, 32, 1)
    official["decoder.mid.attn_1.q.weight"] = query.weight.detach()
    weight = vae_weights(official, config, "test")["decoder.mid_block.attentions.0.to_q.weight"]
    pixel = torch.randn(1, 32, 1, 1)
    torch.testing.assert_close(pixel[..., 0, 0] @ weight.T + query.bias, query(pixel)[..., 0, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "read, config, levels", [(unet_config, ZERO123_UNET, "channel_mult"), (vae_config, VAE, "ch_mult")]
)
def test_a_configuration_that_lacks_a_number_is_named(read, config, levels):
    for key in ("in_channels", "num_res_blocks"):
        with pytest.raises(InputError, match=key):
            read({name: value for name, value in config.items() if name != key})
    with pytest.raises(InputError, match="cannot read"):
        read(config | {levels: 4})


def test_attention_outside_the_middle_of_the_vae_is_refused():
    with pytest.raises(InputError, match="attn_resolutions"):
        vae_config(VAE | {"attn_resolutions": [16]})


def test_renaming_uses_every_key_once():
    tensors = {name: torch.full((1,), float(i)) for i, name in enumerate("abc")}
    names = {"a": "x", "b": "y", "c": "z"}
    assert {name: tensor.item() for name, tensor in rename(tensors, names, "test").items()} == {"x": 0, "y": 1, "z": 2}
    with pytest.raises(InputError, match=r"2 missing \(b, c\)"):
        rename({"a": tensors["a"]}, names, "test")
    with pytest.raises(InputError, match=r"5 unknown \(u0, u1, u2, ...\)"):
        rename(tensors | {f"u{i}": tensors["a"] for i in range(5)}, names, "test")


def test_splitting_leaves_out_by_rule_only():
    tensors = {name: torch.zeros(1) for name in ("unet.a", "vae.a", "betas")}
    parts = split(tensors, ["unet.", "vae.", "clip."], ["betas"], "test")
    assert {prefix: list(part) for prefix, part in parts.items()} == {"unet.": ["a"], "vae.": ["a"], "clip.": []}
    with pytest.raises(InputError, match=r"1 unknown \(betas\)"):
        split(tensors, ["unet.", "vae."], ["bet"], "test")


def test_a_network_holds_the_tensors_it_was_given():
    weights = {"weight": torch.randn(2, 3), "bias": torch.randn(2)}
    linear = network(torch.nn.Linear, {"in_features": 3, "out_features": 2}, weights, "test")
    assert linear.weight.data_ptr() == weights["weight"].data_ptr()
    assert not linear.training
    with pytest.raises(InputError, match=r"weight is \(2, 3\), expected \(2, 4\)"):
        network(torch.nn.Linear, {"in_features": 4, "out_features": 2}, weights, "test")
    with pytest.raises(InputError, match="no Linear of this configuration"):
        network(torch.nn.Linear, {"width": 4}, weights, "test")
