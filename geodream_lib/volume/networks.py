"""The networks of stage 2 as one checkpoint, in the layout One-2-3-45 releases."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodream_lib.checkpoints import read_weights
from geodream_lib.errors import InputError
from geodream_lib.storage import load_into, save_tensors
from geodream_lib.volume.blending import BlendingTextureDecoder
from geodream_lib.volume.decoder import GeometryDecoder
from geodream_lib.volume.features import FeatureNet, compress_layer
from geodream_lib.volume.regularizer import CostRegularizer

# Names in the released checkpoint (a dict of state dicts) and here.
_OFFICIAL = {
    "pyramid_feature_network.": "feature_net.",
    "sdf_network_lod0.compress_layer.": "compress.",
    "sdf_network_lod0.sparse_costreg_net.": "regularizer.",
    "sdf_network_lod0.sdf_layer.": "decoder.",
    "rendering_network_lod0.": "blending.",
    "variance_network_lod0.": "",
}


class CostVolumeNetworks(nn.Module):
    """f_2D (`feature_net`, `compress`), f_3D (`regularizer`), f_g (`decoder`), f_t (`blending`) and the sharpness.

    Args:
        hidden: width of the geometry decoder, 128 in the released checkpoint.
        latent: channels of the cost volume.
    """

    def __init__(self, hidden: int = 128, latent: int = 16):
        super().__init__()
        self.feature_net = FeatureNet()
        self.compress = compress_layer()
        self.regularizer = CostRegularizer(32, latent)
        self.decoder = GeometryDecoder(hidden, latent)
        self.blending = BlendingTextureDecoder(56, latent)
        self.variance = nn.Parameter(torch.tensor(0.2))

    @property
    def inverse_deviation(self) -> Float[Tensor, ""]:
        """Sharpness of the SDF's logistic density in rendering: exp(10 variance), within [1e-6, 1e6]."""
        return torch.exp(10 * self.variance).clamp(1e-6, 1e6)


def save_cost_volume_networks(
    path: Path | str, networks: CostVolumeNetworks, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file with the released names, `<network>.<parameter>`."""
    official = {}
    for name, tensor in networks.state_dict().items():
        prefix, own = next((prefix, own) for prefix, own in _OFFICIAL.items() if name.startswith(own))
        official[prefix + name.removeprefix(own)] = tensor
    save_tensors(path, official, metadata)


def load_cost_volume_networks(path: Path | str) -> CostVolumeNetworks:
    """Read a released One-2-3-45 checkpoint (`.pth`) or a file of `save_cost_volume_networks` (`.safetensors`).

    The width of the decoder and the channels of the volume follow from the file's shapes. Entries of a checkpoint that
    stage 2 does not use (optimiser, step counts, finer levels of detail) are ignored. The networks come in eval mode,
    on the CPU; normalisation uses batch statistics all the same (see `norm`).

    Raises:
        InputError: the file is missing, truncated, not to be trusted (see `read_weights`) or holds something else.
    """
    tensors = read_weights(path)
    renamed = {}
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in _OFFICIAL if name.startswith(prefix)), None)
        if prefix is not None:
            renamed[_OFFICIAL[prefix] + name.removeprefix(prefix)] = tensor
    first, second = renamed.get("decoder.lin0.weight_v"), renamed.get("decoder.lin1.weight_v")
    if first is None or second is None or first.ndim != 2 or second.ndim != 2 or second.shape[1] <= first.shape[0]:
        raise InputError(
            f"{path} is not a One-2-3-45 reconstruction checkpoint: it has no sdf_network_lod0.sdf_layer weights; "
            "expected ckpt_215000.pth or a file written by save_cost_volume_networks"
        )
    networks = CostVolumeNetworks(hidden=first.shape[0], latent=second.shape[1] - first.shape[0])
    load_into(networks, renamed, str(path))
    return networks.eval()
