"""Whether ready weights are whole: every file there, every parameter there with its shape, every number finite.

Shapes come from the configurations, with networks built without memory, and from the headers of the weights' files; of
a network of 5 GB one tensor at a time is in memory.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import ConfigMixin, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from geodream_lib.checkpoints import check_tensors, read_weights
from geodream_lib.errors import InputError
from geodream_lib.metrics.clip_texts import read_clip
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.point_text import load_uni3d
from geodream_lib.storage import read_json
from geodream_lib.unshuffle_vae import autoencoder_class
from geodream_lib.volume.networks import load_cost_volume_networks
from geodream_lib.weights.entries import Network
from geodream_lib.weights.folder import ONE2345_FILE, named_network, weights_folder
from geodream_lib.weights.record import check_record

Shapes = dict[str, tuple[int, ...]]
CONVERTED = {
    "zero123": ("unet", "vae", "image_encoder", "clip_camera_projection"),
    "stable-zero123": ("unet", "vae", "image_encoder", "clip_camera_projection"),
    "mvdream": ("unet", "vae", "text_encoder", "camera_embedding"),
}
# Those that are checked by loading them.
JUDGES = {
    "clip": ImageText.load,
    "clip-text": lambda folder: read_clip(folder, ("clip_text_model",)),
    "uni3d": load_uni3d,
}
# The attention of the VAE was renamed; the libraries read files of either naming.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def verify(name: str) -> list[str]:
    """Check the ready network `name` of the table: remarks that do not keep it from being used.

    Files of another size or sum than published are a remark only: people export networks in either precision, and
    networks of the same layout and other sizes load as well.

    Raises:
        InputError: it is not there, was changed since it was installed, or is incomplete or damaged.
    """
    network, folder = named_network(name), weights_folder() / name
    if not folder.is_dir():
        raise InputError(f"{name} is not there ({folder}); run: geodream weights fetch {name}")
    sources = check_record(folder)
    check_network(network, folder)
    if sources is None:
        return ["put there by hand: where it came from is not recorded"]
    return unpublished(network, sources)


def unpublished(network: Network, sources: Mapping[str, Mapping]) -> list[str]:
    """A remark for every file in `sources` (path: bytes and sha256) that is not the published one."""
    published = {file.installed: file for file in network.files}
    remarks = []
    for path, found in sources.items():
        file = published.get(path)
        if file and file.bytes not in (None, found.get("bytes")):
            remarks.append(f"{path} is not the published file: {found.get('bytes')} bytes, not {file.bytes}")
        elif file and file.sha256 not in (None, found.get("sha256")):
            remarks.append(f"{path} is not the published file: its sha256 differs")
    return remarks


def check_network(network: Network, folder: Path) -> None:
    """Every part that the network's kind needs is in `folder`, complete and finite.

    Raises:
        InputError: names the first part that is not.
    """
    if network.kind == "one2345":
        load_cost_volume_networks(folder / ONE2345_FILE)
        return
    if network.kind in JUDGES:
        read_weights(folder / "model.safetensors")  # that its numbers are finite
        JUDGES[network.kind](folder)
        return
    if network.kind == "diffusers":
        for file in network.files:
            path = folder / file.installed
            if not path.is_file() or not path.stat().st_size:
                raise InputError(f"{network.name} lacks {file.installed}; fetch it anew")
            if path.name.endswith(("config.json", "index.json")):
                refuse_code(read_json(path), file.installed, [part for part in folder.iterdir() if part.is_dir()])
        parts = {file.path.split("/")[0] for file in network.files if file.path.endswith(".safetensors")}
    else:
        parts = CONVERTED[network.kind]
    for part in sorted(parts):
        check_part(folder, part)


def refuse_code(config: Mapping, name: str, parts: list[Path]) -> None:
    """A configuration may not ask for code from its repository, for any part that would be loaded.

    Raises:
        InputError: it does.
    """
    asks = "auto_map" in config
    if name == "model_index.json":
        for part in parts:
            library = config.get(part.name, ["diffusers"])
            asks |= not isinstance(library, list) or library[:1] not in (["diffusers"], ["transformers"])
    if asks:
        raise InputError(
            f"{name} asks for code of its repository; such code is never run here, take the network from another one"
        )


def check_part(folder: Path, part: str) -> None:
    """One network of the folder: its names and shapes are those of its configuration, its numbers are finite.

    Raises:
        InputError: a file is missing or damaged, or a tensor is missing, unknown, of another shape or not finite.
    """
    files = sorted((folder / part).glob("*.safetensors"))
    if len(files) != 1:
        raise InputError(f"{part}/ has {len(files)} files of weights; expected one .safetensors, fetch it anew")
    expected = expected_shapes(folder, part)
    try:
        with safe_open(files[0], framework="pt") as file:
            found = {_current(name): tuple(file.get_slice(name).get_shape()) for name in file.keys() if _stored(name)}
            problems = [f"missing {name}" for name in expected if name not in found]
            problems += [f"unknown {name}" for name in found if name not in expected]
            problems += [
                f"{name} is {found[name]}, expected {expected[name]}"
                for name in expected
                if name in found and found[name] != expected[name]
            ]
            if problems:
                more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
                raise InputError(
                    f"{part}/{files[0].name} does not fit its configuration: {problems[0]}{more}; fetch it anew"
                )
            check_tensors(((name, file.get_tensor(name)) for name in file.keys()), f"{part}/{files[0].name}")
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot read weights from {part}/{files[0].name}: {error}; the file is truncated or not a safetensors "
            "file, fetch it anew"
        ) from error


def expected_shapes(folder: Path, part: str) -> Shapes:
    """Shape of every parameter of the part, by name, from the configurations in `folder`.

    Raises:
        InputError: a configuration is missing or describes no network.
    """
    unet = read_json(folder / "unet" / "config.json")
    try:
        if part == "camera_embedding":
            width = 4 * unet["block_out_channels"][0]
            first = {"linear_1.weight": (width, 16), "linear_1.bias": (width,)}
            return first | {"linear_2.weight": (width, width), "linear_2.bias": (width,)}
        if part == "clip_camera_projection":
            width = unet["cross_attention_dim"]
            clip = read_json(folder / "image_encoder" / "config.json")["projection_dim"]
            return {"proj.weight": (width, clip + 4), "proj.bias": (width,)}
        config = read_json(folder / part / "config.json")
        with torch.device("meta"):
            if part == "text_encoder":
                network = CLIPTextModel(CLIPTextConfig(**config))
            elif part in ("image_encoder", "vision_encoder"):
                network = CLIPVisionModelWithProjection(CLIPVisionConfig(**config))
            else:
                kind: type[ConfigMixin] = autoencoder_class(folder) if part == "vae" else UNet2DConditionModel
                network = kind.from_config(config)
    except InputError:
        raise
    except Exception as error:  # each library has its own errors for a configuration that makes no sense
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{part}/config.json describes no network: {reason}; fetch it anew") from error
    return {_current(name): tuple(value.shape) for name, value in network.state_dict().items() if _stored(name)}


def _stored(name: str) -> bool:
    """Whether it is a weight: older files store the numbers 0, 1, 2, ... of the tokens' places too."""
    return not name.endswith(".position_ids")


def _current(name: str) -> str:
    """The name in today's libraries; they write text encoders with and without the prefix."""
    name = name.removeprefix("text_model.")
    module, dot, kind = name.rpartition(".")
    above, _, last = module.rpartition(".")
    return f"{above}.{OLD_ATTENTION[last]}{dot}{kind}" if last in OLD_ATTENTION else name
