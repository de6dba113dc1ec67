"""`python -m geodream_lib.lab.measure [NAME ...]`: measure lab networks, write `measured.json` beside their weights."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import torch

from geodream_lib import show
from geodream_lib.data import data_folder
from geodream_lib.lab.meaning import Scene, meaning
from geodream_lib.lab.measure.judges import measure_image_text, measure_point_text, measure_viewpoint
from geodream_lib.lab.measure.pictures import has_front, measure_autoencoder, measure_text_to_image
from geodream_lib.lab.measure.views import measure_mvdream, measure_zero123, measure_zero123plus
from geodream_lib.lab.measure.volume import measure_cost_volume
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.viewpoint import Viewpoint
from geodream_lib.presets import load_preset
from geodream_lib.storage import write_json
from geodream_lib.yardstick import known_prompts

logger = logging.getLogger(__name__)

SAMPLES = 2  # pictures of each prompt
OBJECTS = 16  # held-out ones that views are predicted of
VOLUMES = 16  # held-out ones that are built
MVDREAM_PROMPTS = 12  # of each sort


def measurements(lab: Path) -> dict[str, Callable[[], dict]]:
    """What there is to measure, by the folder whose card quotes it, in the order of need: judges first."""
    preset, prompts = load_preset("lab"), known_prompts()
    views = preset.views
    single = [prompt for prompt in prompts if has_front(prompt)][:MVDREAM_PROMPTS]
    scenes = [prompt for prompt in prompts if isinstance(meaning(prompt), Scene)][:MVDREAM_PROMPTS]

    def judges() -> tuple[ImageText, Viewpoint]:
        return ImageText.load(lab / "image_text"), Viewpoint.load(lab / "viewpoint")

    def drawn(name: str) -> dict:
        return measure_text_to_image(lab / name, prompts, *judges(), views, SAMPLES)

    return {
        "image_text": lambda: measure_image_text(lab / "image_text"),
        "point_text": lambda: measure_point_text(lab / "point_text"),
        "viewpoint": lambda: measure_viewpoint(lab / "viewpoint"),
        "text_to_image/vae": lambda: measure_autoencoder(lab / "text_to_image"),
        "text_to_image": lambda: drawn("text_to_image"),
        "text_to_image_base": lambda: drawn("text_to_image_base"),
        "zero123": lambda: measure_zero123(lab / "zero123", views, OBJECTS),
        "zero123plus": lambda: measure_zero123plus(lab / "zero123plus", views, OBJECTS),
        "mvdream": lambda: measure_mvdream(lab / "mvdream", single, scenes, prompts, *judges(), views),
        "cost_volume": lambda: measure_cost_volume(
            lab / "cost_volume/model.safetensors", lab / "zero123", preset, VOLUMES
        ),
    }


@torch.no_grad()
def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m geodream_lib.lab.measure", description=__doc__)
    parser.add_argument("--lab", type=Path, default=data_folder() / "lab", help="folder of the networks")
    parser.add_argument("names", nargs="*", help="which (default: all that are there)")
    arguments = parser.parse_args()
    show.quiet_libraries()
    table = measurements(arguments.lab)
    if unknown := set(arguments.names) - set(table):
        parser.error(f"no network {', '.join(sorted(unknown))}; choose from {', '.join(table)}")
    for name in arguments.names or [name for name in table if (arguments.lab / name).is_dir()]:
        scores = table[name]()
        write_json(arguments.lab / name / "measured.json", scores)
        logger.info("%s %s", name, scores)


if __name__ == "__main__":
    main()
