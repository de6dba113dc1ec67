"""Image-text evaluator: CLIP, by which renders and prompts are compared (CLIP R-score) and sets of images (FID_CLIP).

One class reads the real one and the lab's: OpenAI's ViT-B/32 in the layout of transformers, or `data/lab/image_text`.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer

from geodream_lib.errors import InputError
from geodream_lib.metrics.clip_images import Preparation, image_features, read_preparation, write_preparation
from geodream_lib.metrics.clip_texts import embed_texts, read_clip

BATCH = 64


class ImageText(nn.Module):
    """CLIP with its tokenizer and the preparation of its images; weights are frozen."""

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer, preparation: Preparation):
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer
        self.preparation = preparation

    @classmethod
    def load(cls, source: Path | str, device: torch.device | str = "cpu") -> "ImageText":
        """Read a folder with config.json, model.safetensors, preprocessor_config.json and CLIP's tokenizer.

        Raises:
            InputError: the folder is missing, incomplete or damaged, or does not hold CLIP.
        """
        folder = Path(source)
        clip, tokenizer = read_clip(folder, ("clip",))
        return cls(clip, tokenizer, read_preparation(folder)).to(device)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads, and that transformers' CLIPModel and CLIPProcessor read as well.

        Raises:
            InputError: the folder cannot be written.
        """
        try:
            self.clip.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error}; free some space or choose another folder") from error
        write_preparation(folder, self.preparation)

    @torch.no_grad()
    def features(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n d"]:
        """What FID_CLIP compares: the image tower's output, projected to the shared space, its length as it is.

        Kynkäänniemi et al. (2022) replace the Inception features of FID by those of CLIP's ViT-B/32; as in public
        implementations these are what CLIP's `encode_image` returns, 512 numbers before their normalisation.

        Args:
            images: 0..1, any size; square ones are seen whole, of others the middle.

        Raises:
            InputError: there is no image.
        """
        if not len(images):
            raise InputError("no image to embed; expected one at least")
        parts = [self.preparation(part.to(self.clip.device)) for part in images.split(BATCH)]
        return torch.cat([image_features(self.clip, part) for part in parts])

    def embed_images(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n d"]:
        """Unit rows, one for each image in 0..1; the scalar product with a row of `embed_texts` is their similarity."""
        return functional.normalize(self.features(images), dim=-1)

    def embed_texts(self, texts: list[str]) -> Float[Tensor, "n d"]:
        """Unit rows, one for each text; one longer than the network's context is cut off."""
        return embed_texts(self.clip, self.tokenizer, texts)
