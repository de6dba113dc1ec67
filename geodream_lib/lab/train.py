"""`python -m geodream_lib.lab.train NAME`: render the data it needs, train one lab network, write it to data/lab/.

Run it again after an interruption and it goes on where it stopped. The order of `RECIPES` is the order of need: each
network begins with, or looks at pictures of, the ones before it. With `--warm-start` a network begins as the one in the
output folder instead of from scratch.
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from geodream_lib.data import data_folder
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.train_cost_volume import make_cost_volume
from geodream_lib.lab.train_decoder import make_decoder
from geodream_lib.lab.train_image_text import make_image_text
from geodream_lib.lab.train_mvdream import make_mvdream
from geodream_lib.lab.train_point_text import make_point_text
from geodream_lib.lab.train_text_to_image import make_text_to_image, make_text_to_image_base
from geodream_lib.lab.train_vae import make_autoencoder
from geodream_lib.lab.train_viewpoint import make_viewpoint
from geodream_lib.lab.train_zero123 import make_zero123
from geodream_lib.lab.train_zero123plus import make_zero123plus
from geodream_lib.lab.training import Budget


@dataclass(frozen=True)
class Recipe:
    """How a network is made, and the budget it was tuned for."""

    make: Callable[[Bench], None]
    minutes: float
    batch_size: int
    learning_rate: float


RECIPES = {
    "vae": Recipe(make_autoencoder, 150, 4, 6e-4),
    "vae_decoder": Recipe(make_decoder, 90, 4, 5e-4),
    "text_to_image": Recipe(make_text_to_image, 240, 32, 5e-4),
    "text_to_image_base": Recipe(make_text_to_image_base, 60, 32, 4e-4),
    "zero123": Recipe(make_zero123, 150, 32, 5e-4),
    "mvdream": Recipe(make_mvdream, 75, 4, 4e-4),
    "zero123plus": Recipe(make_zero123plus, 75, 8, 5e-4),
    "cost_volume": Recipe(make_cost_volume, 120, 1, 1e-3),
    "image_text": Recipe(make_image_text, 90, 128, 1e-3),
    "point_text": Recipe(make_point_text, 20, 32, 1e-3),
    "viewpoint": Recipe(make_viewpoint, 20, 64, 2e-3),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m geodream_lib.lab.train", description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--minutes", type=float, help="training time (default: what two CPU cores need)")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--warm-start", action="store_true", help="begin as the network in --out")
    parser.add_argument("--photographs", type=int, default=48, help="shards of 1024 photographs")
    parser.add_argument("--turntables", type=int, default=48, help="shards of 64 objects seen from 16 sides")
    parser.add_argument("--work", type=Path, default=Path("work/lab"), help="folder for renders and checkpoints")
    parser.add_argument("--out", type=Path, default=None, help="where the trained network goes (default: data/lab)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the weights a network begins with")
    return parser.parse_args()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    arguments = parse_arguments()
    recipe = RECIPES[arguments.name]
    torch.manual_seed(arguments.seed)
    torch.backends.cudnn.benchmark = True
    recipe.make(
        Bench(
            work=arguments.work,
            out=arguments.out or data_folder() / "lab",
            device=torch.device(arguments.device),
            budget=Budget(
                minutes=arguments.minutes or recipe.minutes,
                batch_size=arguments.batch_size or recipe.batch_size,
                learning_rate=arguments.learning_rate or recipe.learning_rate,
            ),
            warm_start=arguments.warm_start,
            photographs=arguments.photographs,
            turntables=arguments.turntables,
        )
    )


if __name__ == "__main__":
    main()
