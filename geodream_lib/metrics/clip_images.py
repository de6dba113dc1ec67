"""What CLIP's image tower is given: pictures resized, cropped and normalised as its folder says."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel

from geodream_lib.errors import InputError
from geodream_lib.storage import read_json, write_json

PREPROCESSOR = "preprocessor_config.json"
BICUBIC = 3  # PIL's number for it, as configurations write it
# OpenAI's, of the pixels it trained on; every CLIP since uses them.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preparation:
    """The shorter side is resized to `size`, the middle `crop` (height, width) is kept, colours are normalised."""

    size: int
    crop: tuple[int, int]
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION

    def __call__(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 H W"]:
        """Pictures in 0..1 to what the tower takes; the resize is PIL's bicubic with its wide, antialiasing kernel."""
        pixels = images.permute(0, 3, 1, 2)
        height, width = pixels.shape[-2:]
        if min(height, width) != self.size:
            short = min(height, width)
            shape = (int(self.size * height / short), int(self.size * width / short))
            pixels = functional.interpolate(pixels, shape, mode="bicubic", antialias=True, align_corners=False)
            # Its overshoot is cut off, as that of 8-bit images is.
            pixels = pixels.clamp(0, 1)
        top, left = ((side - kept) // 2 for side, kept in zip(pixels.shape[-2:], self.crop, strict=True))
        if min(top, left) < 0:
            raise InputError(f"CLIP crops {self.crop} out of images resized to {tuple(pixels.shape[-2:])}; too small")
        pixels = pixels[..., top : top + self.crop[0], left : left + self.crop[1]]
        mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.deviation))
        return (pixels - mean) / deviation


def read_preparation(folder: Path) -> Preparation:
    """The preparation that `preprocessor_config.json` describes, in any of transformers' spellings.

    Raises:
        InputError: there is no such file, or it describes another kind of preparation.
    """
    config = read_json(folder / PREPROCESSOR)
    try:
        size = config["size"]
        if isinstance(size, dict):
            size = size["shortest_edge"] if "shortest_edge" in size else min(size["height"], size["width"])
        crop = config["crop_size"]
        crop = (crop["height"], crop["width"]) if isinstance(crop, dict) else (crop, crop)
        mean, deviation = tuple(config["image_mean"]), tuple(config["image_std"])
        steps = [config.get(f"do_{step}", True) for step in ("resize", "center_crop", "normalize")]
        if config.get("resample", BICUBIC) != BICUBIC or not all(steps) or len(mean) != 3 or len(deviation) != 3:
            raise ValueError("another resize, or a step is left out")
        return Preparation(int(size), (int(crop[0]), int(crop[1])), mean, deviation)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / PREPROCESSOR} is not CLIP's ({error}); expected a bicubic resize of the shorter side, a "
            "centre crop and a normalisation, fetch the network anew"
        ) from error


def write_preparation(folder: Path, preparation: Preparation) -> None:
    """Write `preprocessor_config.json` as transformers' CLIPImageProcessor reads it."""
    height, width = preparation.crop
    config = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": preparation.size},
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preparation.mean),
        "image_std": list(preparation.deviation),
        "do_convert_rgb": True,
    }
    write_json(folder / PREPROCESSOR, config)


def image_features(clip: CLIPModel, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
    """The class token of the image tower, projected to the space shared with texts; its length is not normalised."""
    return clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output)
