"""Guidance by a 2D prior: latent diffusion, view-dependent prompts, SDS, VSD and its LoRA (paper section 2.2)."""

from geodream_lib.guidance.diffusion import Denoiser, LatentDiffusion
from geodream_lib.guidance.load import load_denoiser, load_diffusion
from geodream_lib.guidance.lora import add_camera_lora, copy_lora, load_lora_state, lora_parameters, lora_state
from geodream_lib.guidance.prompts import ViewPrompts, encode_prompts
from geodream_lib.guidance.renders import Renders
from geodream_lib.guidance.sds import Guided, SDSGuidance
from geodream_lib.guidance.vsd import VSDGuidance

__all__ = [
    "Denoiser",
    "Guided",
    "LatentDiffusion",
    "Renders",
    "SDSGuidance",
    "VSDGuidance",
    "ViewPrompts",
    "add_camera_lora",
    "copy_lora",
    "encode_prompts",
    "load_denoiser",
    "load_diffusion",
    "load_lora_state",
    "lora_parameters",
    "lora_state",
]
