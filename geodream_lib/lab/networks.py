"""The networks of the lab: the real architectures made narrow, in the file layouts of their real counterparts.

Widths are chosen for two CPU cores: at 16x16 latents a forward pass is dominated by per-operation overhead, so the UNet
spends its parameters where the picture is (16x16 and 8x8), not in a deep middle.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.embeddings import TimestepEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from geodream_lib.components import INDEX
from geodream_lib.storage import MARKER
from geodream_lib.unshuffle_vae import UnshuffleAutoencoderKL
from geodream_lib.views.mvdream.model import MVDream
from geodream_lib.views.zero123plus.attention import ReferenceAttention, TextAttention
from geodream_lib.views.zero123plus.model import Zero123Plus
from geodream_lib.volume.networks import CostVolumeNetworks

IMAGE_SIZE = 128
LATENT_SIZE = 16
CONTEXT = 128  # width of the cross-attention tokens (1024 in Stable Diffusion 2.1, 768 in Zero123)
TEXT_TOKENS = 32  # 77 in Stable Diffusion
# What networks that see and speak as text-to-image does take from its folder, which lies beside theirs.
SHARED = dict.fromkeys(("vae", "text_encoder", "tokenizer"), "../text_to_image")


def make_vae() -> UnshuffleAutoencoderKL:
    """Factor-8 KL autoencoder, 128x128x3 to 16x16x8: Stable Diffusion's coarse levels behind a space-to-depth stem."""
    return UnshuffleAutoencoderKL(block_out_channels=(12, 48, 64, 128), latent_channels=8, sample_size=IMAGE_SIZE)


def make_unet(latent_channels: int, in_channels: int | None = None) -> UNet2DConditionModel:
    """Stable Diffusion 2's UNet with 64/128/128 channels, for latents of `latent_channels` (the autoencoder's).

    Twice as many `in_channels` make it Zero123's, which sees the reference beside the noise.
    """
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=in_channels or latent_channels,
        out_channels=latent_channels,
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4, 4),  # number of heads per level, the name is diffusers'; 32 channels a head
        cross_attention_dim=CONTEXT,
        norm_num_groups=32,
        use_linear_projection=True,
    )


def speed_up_training(unet: UNet2DConditionModel, device: torch.device) -> None:
    """On a CPU, attention written out: the backward pass of PyTorch's fused one made a training step 1.35 times longer
    (64, 128 and 192 channels, batch 20, bfloat16, one thread)."""
    if device.type == "cpu":
        processors = unet.attn_processors
        unet.set_attn_processor({name: _written_out(processor) for name, processor in processors.items()})


def _written_out(processor: object) -> object:
    """The processor without fused attention; one of Zero123++ goes on looking at the reference."""
    if isinstance(processor, ReferenceAttention | TextAttention):
        processor.attend = AttnProcessor()
        return processor
    return AttnProcessor()


def make_scheduler(predicts: str = "v_prediction") -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 2.1, or by "epsilon" 2.1-base: scaled-linear 0.00085 to 0.012."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=predicts,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def make_zero123plus_scheduler() -> EulerAncestralDiscreteScheduler:
    """Zero123++'s noise schedule: betas that grow linearly hide more of the picture than those of Stable Diffusion."""
    return EulerAncestralDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        prediction_type="v_prediction",
        steps_offset=1,
        timestep_spacing="linspace",
    )


def make_camera_embedding(unet: UNet2DConditionModel) -> TimestepEmbedding:
    """MVDream's, for `unet`: the 16 numbers of a camera, added to the time embedding.

    It begins silent, so that the network begins as the one it is made of; the released one begins at random.
    """
    embedding = TimestepEmbedding(16, unet.time_embedding.linear_2.out_features)
    nn.init.zeros_(embedding.linear_2.weight)
    nn.init.zeros_(embedding.linear_2.bias)
    return embedding


def make_tokenizer(words: Iterable[str], folder: Path) -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer learned on the lab's lexicon: every word of it becomes one token.

    Words outside the lexicon fall apart into letters, as rare words do in the real one. Learning breaks ties at random,
    so a tokenizer already in `folder` is kept: networks that were trained with its numbers need the same ones.
    """
    if (folder / "vocab.json").exists():
        return _clip_tokenizer(folder)
    words = sorted(set(words))
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        min_frequency=1,
        special_tokens=[],
        initial_alphabet=sorted(set("abcdefghijklmnopqrstuvwxyz0123456789,.-'")),
        limit_alphabet=64,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join([*words, *"abcdefghijklmnopqrstuvwxyz0123456789,.-'"])], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.model.save(str(folder))
    vocabulary = tokenizer.get_vocab()
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[token] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return _clip_tokenizer(folder)


def _clip_tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="<|endoftext|>", model_max_length=TEXT_TOKENS
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text transformer, three layers of 128; trained together with the UNet, as in latent diffusion."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=CONTEXT,
            intermediate_size=4 * CONTEXT,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TEXT_TOKENS,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=CONTEXT,
        )
    )


def make_image_encoder() -> CLIPVisionModelWithProjection:
    """CLIP's image transformer, three layers of 128 on 64 patches; trained along with the UNet that uses it."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=CONTEXT,
            intermediate_size=4 * CONTEXT,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=16,
            projection_dim=CONTEXT,
            hidden_act="gelu",
        )
    )


def make_cost_volume_networks() -> CostVolumeNetworks:
    """One-2-3-45's networks with a geometry decoder 64 wide (128 in the released ones)."""
    return CostVolumeNetworks(hidden=64)


def publish(network: MVDream | Zero123Plus, folder: Path) -> None:
    """Write a trained network in half precision to its folder, without the `SHARED` parts; the card there stays.

    Raises:
        InputError: the folder cannot be written, or text-to-image is not beside it.
    """
    new = folder.with_name(f".{folder.name}-new")
    network.half().save(new, SHARED)
    (new / MARKER).unlink()  # which says that a folder holds nothing else
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    for part in sorted(new.iterdir(), key=lambda part: part.name == INDEX):  # the index comes last
        shutil.rmtree(folder / part.name, ignore_errors=True)
        part.replace(folder / part.name)
    new.rmdir()
