"""The released MVDream, `sd-v2.1-base-4view.pt` or `sd-v1.5-4view.pt`, to the folder that `views.MVDream` loads."""

from collections.abc import Mapping

from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor

from geodream_lib.views.mvdream_network import MultiViewUNet
from geodream_lib.weights.ldm import unet_config, unet_names
from geodream_lib.weights.strict import network, rename

CAMERA = "camera_embed."


def mvdream_unet(official: Mapping, tensors: Mapping[str, Tensor], source: str) -> MultiViewUNet:
    """The network of an official `unet_config` and its parameters (names without `model.diffusion_model.`).

    Raises:
        InputError: the configuration lacks a number, or the parameters are not those that it describes.
    """
    config = unet_config(official)
    camera = {name: tensor for name, tensor in tensors.items() if name.startswith(CAMERA)}
    plain = {name: tensor for name, tensor in tensors.items() if name not in camera}
    unet = network(UNet2DConditionModel, config, rename(plain, unet_names(config), source), source)
    names = {
        f"{CAMERA}{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in ((0, "linear_1"), (2, "linear_2"))
        for kind in ("weight", "bias")
    }
    shape = {"in_channels": 16, "time_embed_dim": unet.time_embedding.linear_2.out_features}
    return MultiViewUNet(unet, network(TimestepEmbedding, shape, rename(camera, names, source), source))
