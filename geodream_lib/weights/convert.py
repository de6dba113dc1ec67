"""From a released checkpoint to the layout our networks load: one call for each kind of checkpoint."""

from pathlib import Path

from geodream_lib.checkpoints import read_weights
from geodream_lib.errors import InputError
from geodream_lib.volume.networks import load_cost_volume_networks, save_cost_volume_networks
from geodream_lib.weights.convert_clip import convert_clip, convert_eva_text
from geodream_lib.weights.convert_mvdream import convert_mvdream
from geodream_lib.weights.convert_uni3d import convert_uni3d
from geodream_lib.weights.convert_zero123 import convert_zero123
from geodream_lib.weights.entries import Network
from geodream_lib.weights.folder import ONE2345_FILE, named_network, weights_folder
from geodream_lib.weights.install import install


def convert(
    name: str,
    file: Path | str,
    out: Path | None = None,
    config: dict | None = None,
    tokenizer: Path | None = None,
    image_encoder: Path | None = None,
) -> Path:
    """Convert a checkpoint to the network `name` of the table and make it ready: the folder it lies in.

    Args:
        file: `.ckpt`, `.pt`, `.pth` or `.safetensors` with the names of the release.
        out: that folder, `<weights folder>/<name>` by default.
        config: sizes in the release's own words, for a network that is not of the released size.
        tokenizer: of MVDream and CLIP, folder with vocab.json and merges.txt; by default that of the installed
            sd21-base or sd15, and the one that `file` is in.
        image_encoder: for a Zero123 without CLIP's image tower, its folder in transformers' layout.

    Raises:
        InputError: the file cannot be read or trusted, or it is not the weights of this network.
    """
    network, file = named_network(name), Path(file)
    if network.kind == "diffusers":
        raise InputError(
            f"{name} is released ready to use, as a folder; run: geodream weights fetch {name} --from FOLDER"
        )
    if network.kind == "mvdream":
        tokenizer = tokenizer or installed_tokenizer(network)
    elif network.kind in ("clip", "clip-text"):
        tokenizer = tokenizer or file.parent
    return install(
        network,
        lambda folder: convert_into(folder, network.kind, file, config, tokenizer, image_encoder),
        {network.files[0].installed: file},
        str(file.resolve()),
        out,
    )


def convert_into(
    folder: Path,
    kind: str,
    file: Path,
    config: dict | None = None,
    tokenizer: Path | None = None,
    image_encoder: Path | None = None,
) -> None:
    """Fill `folder` from the checkpoint `file` of the given kind; arguments and errors as in `convert`."""
    if kind == "one2345":
        save_cost_volume_networks(folder / ONE2345_FILE, load_cost_volume_networks(file))
    elif kind == "mvdream":
        convert_mvdream(read_weights(file), folder, tokenizer, config)
    elif kind == "clip":
        convert_clip(read_weights(file), folder, tokenizer, config)
    elif kind == "clip-text":
        convert_eva_text(read_weights(file), folder, tokenizer, config)
    elif kind == "uni3d":
        convert_uni3d(read_weights(file), folder, config)
    else:
        convert_zero123(read_weights(file), folder, kind == "stable-zero123", config, image_encoder)


def installed_tokenizer(network: Network) -> Path:
    """The tokenizer of the network that MVDream was made from.

    Raises:
        InputError: that one is not installed.
    """
    folder = weights_folder() / network.tokenizer / "tokenizer"
    if not (folder / "vocab.json").is_file():
        raise InputError(
            f"{network.name} uses the tokenizer of {network.tokenizer}, which is not there ({folder}); run: geodream "
            f"weights fetch {network.tokenizer} (or convert a checkpoint with --tokenizer FOLDER)"
        )
    return folder
