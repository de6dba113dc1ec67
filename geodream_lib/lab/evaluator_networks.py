"""The evaluators of the lab: the layouts of CLIP and Uni3D made narrow, and the viewpoint network, which is ours."""

from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from geodream_lib.lab.networks import TEXT_TOKENS
from geodream_lib.metrics.clip_images import Preparation
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.point_encoder import PointEncoderConfig, Uni3D
from geodream_lib.metrics.viewpoint import Viewpoint

SHARED = 128  # numbers of an embedding, 512 in CLIP's ViT-B/32 and 1024 in Uni3D
IMAGE_TEXT_SIZE = 128
VIEWPOINT_SIZE = 64


def make_clip(tokenizer: CLIPTokenizer) -> ImageText:
    """CLIP on 64 patches: four layers of 160 for images, two of 128 for texts."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": TEXT_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    image = {
        "hidden_size": 160,
        "intermediate_size": 640,
        "num_hidden_layers": 4,
        "num_attention_heads": 5,
        "image_size": IMAGE_TEXT_SIZE,
        "patch_size": 16,
    }
    common = {"hidden_act": "gelu", "projection_dim": SHARED}
    config = CLIPConfig(text_config=text | common, vision_config=image | common, projection_dim=SHARED)
    return ImageText(CLIPModel(config), tokenizer, Preparation(IMAGE_TEXT_SIZE, (IMAGE_TEXT_SIZE, IMAGE_TEXT_SIZE)))


def make_uni3d(embed_dim: int = SHARED) -> Uni3D:
    """Uni3D-tiny made narrow: 64 patches of 32 points, that is clouds of 2048, and four layers of 128."""
    return Uni3D(
        PointEncoderConfig(
            width=128,
            depth=4,
            heads=4,
            mlp="gated",
            hidden=256,
            embed_dim=embed_dim,
            patch_widths=(32, 64, 128),
            patch_dim=128,
            groups=64,
            group_size=32,
            points=2048,
        )
    )


def make_viewpoint_network() -> Viewpoint:
    """Four levels of 32 to 128 channels on 64x64 pixels: the eyes of a toy are still seen at that size."""
    return Viewpoint((32, 64, 96, 128), VIEWPOINT_SIZE)
