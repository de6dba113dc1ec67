"""`python -m geodream_lib.lab.train NAME`: render the data it needs, train one lab network, write it to data/lab/.

Run it again after an interruption and it goes on where it stopped. In order: vae, text_to_image, zero123, cost_volume
(each needs the ones before it). With `--warm-start` a network begins as the one in the output folder instead of from
scratch.
"""

import argparse
import logging
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

from geodream_lib.data import data_folder
from geodream_lib.guidance import load_diffusion
from geodream_lib.lab.captions import LEXICON, caption
from geodream_lib.lab.datasets import (
    TURNTABLES_PER_SHARD,
    load_shards,
    make_shards,
    render_photographs,
    render_turntables,
    turntable_object,
)
from geodream_lib.lab.imagined import redraw_references
from geodream_lib.lab.networks import (
    make_cost_volume_networks,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    make_vae,
)
from geodream_lib.lab.train_cost_volume import train_cost_volume
from geodream_lib.lab.train_text_to_image import train_text_to_image
from geodream_lib.lab.train_vae import train_vae
from geodream_lib.lab.train_zero123 import start_zero123, train_zero123
from geodream_lib.lab.training import Budget
from geodream_lib.precision import has_fast_bfloat16
from geodream_lib.storage import atomic_write
from geodream_lib.unshuffle_vae import UnshuffleAutoencoderKL
from geodream_lib.views.zero123.model import Zero123
from geodream_lib.volume.networks import load_cost_volume_networks, save_cost_volume_networks

MINUTES = {"vae": 90.0, "text_to_image": 150.0, "zero123": 120.0, "cost_volume": 90.0}
BATCH = {"vae": 16, "text_to_image": 64, "zero123": 64, "cost_volume": 1}
LEARNING_RATE = {"vae": 8e-4, "text_to_image": 8e-4, "zero123": 8e-4, "cost_volume": 1e-3}
HELD_OUT_SHARDS = 1
REDRAWN_VIEWS = 2  # of the four front-ish ones of a turntable


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m geodream_lib.lab.train", description=__doc__)
    parser.add_argument("name", choices=["data", *MINUTES])
    parser.add_argument("--minutes", type=float, help="training time (default: what two CPU cores need)")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--warm-start", action="store_true", help="begin as the network in --out")
    parser.add_argument("--photographs", type=int, default=40, help="shards of 1024 photographs")
    parser.add_argument("--turntables", type=int, default=40, help="shards of 64 objects seen from 16 sides")
    parser.add_argument(
        "--predicted", type=int, default=1024, help="objects whose views Zero123 predicts (cost_volume)"
    )
    parser.add_argument("--work", type=Path, default=Path("work/lab"), help="folder for renders and checkpoints")
    parser.add_argument("--out", type=Path, default=None, help="where the trained network goes (default: data/lab)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    arguments = parse_arguments()
    name, data, out = arguments.name, arguments.work / "data", arguments.out or data_folder() / "lab"
    photographs = make_shards(render_photographs, data, arguments.photographs)
    turntables = make_shards(render_turntables, data, arguments.turntables)
    held_out = make_shards(render_turntables, data, HELD_OUT_SHARDS, split="held_out")
    if name == "data":
        return
    torch.manual_seed(arguments.seed)
    torch.backends.cudnn.benchmark = True
    device = torch.device(arguments.device)
    budget = Budget(
        minutes=arguments.minutes or MINUTES[name],
        batch_size=arguments.batch_size or BATCH[name],
        learning_rate=arguments.learning_rate or LEARNING_RATE[name],
    )
    common = {"budget": budget, "folder": arguments.work / name, "device": device}

    if name == "vae":
        vae = load_vae(out / "text_to_image") if arguments.warm_start else make_vae()
        images = torch.cat([torch.from_numpy(load_shards(photographs, ("images",))["images"]), _views(turntables)[0]])
        test, alpha = _views(held_out)
        vae = train_vae(vae, images, test[:256], alpha[:256], **common)
        vae.half().save_pretrained(out / "text_to_image" / "vae")
    elif name == "text_to_image":
        vae = load_vae(out / "text_to_image").to(device)
        if arguments.warm_start:
            shipped = StableDiffusionPipeline.from_pretrained(out / "text_to_image", torch_dtype=torch.float32)
            tokenizer, model = shipped.tokenizer, {"unet": shipped.unet, "text_encoder": shipped.text_encoder}
        else:
            tokenizer = make_tokenizer(LEXICON, arguments.work / "tokenizer")
            model = {"unet": make_unet(), "text_encoder": make_text_encoder(tokenizer)}
        shards = load_shards(photographs, ("images", "captions"))
        images, captions = torch.from_numpy(shards["images"]), shards["captions"].tolist()
        model = train_text_to_image(nn.ModuleDict(model), images, captions, vae, tokenizer, **common).half()
        StableDiffusionPipeline(
            vae=vae.half(),
            text_encoder=model["text_encoder"],
            tokenizer=tokenizer,
            unet=model["unet"],
            scheduler=make_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(out / "text_to_image")
    elif name == "zero123":
        if arguments.warm_start:
            zero123 = Zero123.load(out / "zero123")
        else:
            unet = UNet2DConditionModel.from_pretrained(out / "text_to_image/unet", torch_dtype=torch.float32)
            zero123 = start_zero123(unet, load_vae(out / "text_to_image"))
        shards = {
            k: torch.from_numpy(v) for k, v in load_shards(turntables, ("images", "azimuth", "elevation")).items()
        }
        redrawn = draw_references(out / "text_to_image", shards["images"], arguments.work / "redrawn.npy", device)
        zero123 = train_zero123(zero123, **shards, redrawn=redrawn, **common)
        zero123.half().save(out / "zero123")
    else:
        weights = out / "cost_volume" / "model.safetensors"
        networks = load_cost_volume_networks(weights) if arguments.warm_start else make_cost_volume_networks()
        zero123 = Zero123.load(out / "zero123", device) if (out / "zero123").exists() else None
        networks = train_cost_volume(
            networks, turntables, held_out, zero123, predicted_objects=arguments.predicted, **common
        )
        save_cost_volume_networks(weights, networks.half())
    shutil.copy(common["folder"] / "log.jsonl", arguments.work / f"{name}.jsonl")


def load_vae(folder: Path) -> UnshuffleAutoencoderKL:
    """The trained autoencoder of a diffusers folder, frozen, in single precision."""
    vae = UnshuffleAutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32)
    return vae.eval().requires_grad_(False)


def draw_references(folder: Path, images: torch.Tensor, cache: Path, device: torch.device) -> torch.Tensor:
    """The first two reference views of every turntable redrawn by text-to-image; made once and kept in `cache`."""
    count = len(images)
    if not cache.exists() or len(drawn := np.load(cache)) != count:
        objects = [turntable_object(*divmod(i, TURNTABLES_PER_SHARD), "train")[0] for i in range(count)]
        rng = np.random.default_rng(0)
        captions = [caption(obj, rng, background="on a white background") for obj in objects]
        diffusion = load_diffusion(folder, device, autocast=torch.bfloat16 if has_fast_bfloat16(device) else None)
        drawn = redraw_references(diffusion, images[:, :REDRAWN_VIEWS], captions, seed=0).numpy()
        with atomic_write(cache) as temporary, temporary.open("wb") as file:
            np.save(file, drawn)
    return torch.from_numpy(drawn)


def _views(paths: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
    """All turntable views `[n, h, w, 3]` and their alpha `[n, h, w]`."""
    shards = load_shards(paths, ("images", "alpha"))
    return torch.from_numpy(shards["images"]).flatten(0, 1), torch.from_numpy(shards["alpha"]).flatten(0, 1)


if __name__ == "__main__":
    main()
