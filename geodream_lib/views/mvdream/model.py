"""MVDream, f_mv from words alone: a prompt in, the object from four sides out, consistent with each other.

Shi et al., "MVDream: Multi-view Diffusion for 3D Generation", 2023. The four views are noised and denoised together by
one network (`mvdream_network`); everything around it is Stable Diffusion's.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import diffusers
import torch
from diffusers import DDIMScheduler
from diffusers.models.embeddings import TimestepEmbedding
from jaxtyping import Float
from torch import Tensor, nn

from geodream_lib.cameras import look_at, sphere_position
from geodream_lib.cameras_sampling import mvdream_condition
from geodream_lib.components import INDEX, SHARED, check_shared
from geodream_lib.errors import InputError
from geodream_lib.guidance.diffusion import LatentDiffusion, draw_normal
from geodream_lib.guidance.load import load_diffusion
from geodream_lib.storage import atomic_folder, load_into, load_tensors, save_tensors, write_json
from geodream_lib.views.mvdream.network import MultiViewUNet
from geodream_lib.views.sampling import MVDREAM_REFERENCES

AZIMUTHS = tuple(MVDREAM_REFERENCES.values())  # front first, then counter-clockwise seen from above
CAMERA = Path("camera_embedding") / "diffusion_pytorch_model.safetensors"


def view_cameras(elevation: float) -> Float[Tensor, "4 16"]:
    """What the network is told of the four cameras of `predict`: on a circle at `elevation` degrees, front first."""
    azimuth = torch.tensor(AZIMUTHS)
    position = sphere_position(azimuth, torch.full_like(azimuth, elevation), torch.ones_like(azimuth))
    return mvdream_condition(look_at(position, torch.zeros_like(position)))


def released_timesteps(total: int, steps: int) -> list[int]:
    """The timesteps of the released sampler: 1, 1 + r, 1 + 2 r, ... with r = total // steps, and from noise to image.

    These are more than `steps` where `steps` does not divide `total`. (For some numbers the released list holds `total`
    itself, a timestep that does not exist, and the sampler fails; here that one is left out.)

    Raises:
        InputError: `steps` is not from 1 to `total`.
    """
    if not 1 <= steps <= total:
        raise InputError(f"{steps} steps of DDIM; expected 1 to {total}, 50 is usual")
    return list(range(1, total, total // steps))[::-1]


@torch.no_grad()
def denoise_views(
    network: MultiViewUNet,
    scheduler: DDIMScheduler,
    noise: Float[Tensor, "n c h w"],
    text: Float[Tensor, "n tokens d"],
    negative: Float[Tensor, "n tokens d"],
    camera: Float[Tensor, "n 16"],
    steps: int,
    guidance: float,
    num_frames: int,
) -> Iterator[tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]]:
    """DDIM (eta 0) with classifier-free guidance; both branches know the cameras.

    Args:
        scheduler: the noise schedule, which must not clip its latents; its timesteps are set.
        noise: start of the latents, the `num_frames` views of an object one after the other.
        text, negative: of the conditional and the unconditional branch, a row per view.
        guidance: s in uncond + s (cond - uncond).

    Yields:
        After every step the latents, and the clean latents that the network sees in them.
    """
    latents, n = noise, len(noise)
    timesteps = released_timesteps(scheduler.config.num_train_timesteps, steps)
    # The scheduler's own list can be shorter; its step goes from any t to t - r, and below 1 to its final alpha.
    scheduler.set_timesteps(steps)
    texts, cameras = torch.cat([negative, text]), torch.cat([camera, camera])
    for t in timesteps:
        both = network(
            torch.cat([latents, latents]), torch.full((2 * n,), t, device=noise.device), texts, cameras, num_frames
        )
        uncond, cond = both.chunk(2)
        step = scheduler.step(uncond + guidance * (cond - uncond), t, latents)
        latents = step.prev_sample
        yield latents, step.pred_original_sample


class MVDream(nn.Module):
    """Stable Diffusion whose UNet sees four views at once.

    Args:
        diffusion: text encoder, image autoencoder, UNet and noise schedule. Its UNet becomes the multi-view one and is
            no longer called without cameras.
        camera_embedding: see `MultiViewUNet`.
    """

    def __init__(self, diffusion: LatentDiffusion, camera_embedding: TimestepEmbedding) -> None:
        super().__init__()
        self.diffusion = diffusion
        self.network = MultiViewUNet(diffusion.denoiser.unet, camera_embedding)
        self.requires_grad_(False).eval()

    @staticmethod
    def load(folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "MVDream":
        """Read a folder of `save`: a Stable Diffusion in the diffusers layout, and `camera_embedding/`.

        Raises:
            InputError: the folder or a part of it is missing, truncated or of another network.
        """
        folder = Path(folder)
        if not (folder / INDEX).is_file() or not (folder / CAMERA).is_file():
            raise InputError(
                f"{folder} is not an MVDream folder (no {INDEX} or no {CAMERA}); expected one that "
                "MVDream.save or `geodream weights convert` wrote, make it anew"
            )
        diffusion = load_diffusion(folder, device, dtype)
        embedding = TimestepEmbedding(16, diffusion.denoiser.unet.time_embedding.linear_2.out_features)
        load_into(embedding, load_tensors(folder / CAMERA)[0], str(folder / CAMERA))
        return MVDream(diffusion, embedding.to(device, dtype))

    def save(self, folder: Path | str, shared: Mapping[str, str] | None = None) -> None:
        """Write the folder that `load` reads, whole or not at all.

        Args:
            shared: parts that are not written, as another network beside it has the same: `{"vae": "../sd"}`.

        Raises:
            InputError: the folder cannot be written or holds something else, or a shared part is not there.
        """
        diffusion, shared = self.diffusion, dict(shared or {})
        parts = {
            "vae": diffusion.vae,
            "text_encoder": diffusion.text_encoder,
            "tokenizer": diffusion.tokenizer,
            "unet": diffusion.denoiser.unet,
            "scheduler": diffusion.denoiser.scheduler,
        }
        check_shared(Path(folder), shared, parts)
        with atomic_folder(folder) as new:
            for name, part in parts.items():
                if name not in shared:
                    part.save_pretrained(new / name)
            save_tensors(new / CAMERA, self.network.camera_embedding.state_dict())
            index = {"_class_name": "MVDreamPipeline", "_diffusers_version": diffusers.__version__}
            parts |= {"camera_embedding": self.network.camera_embedding}
            libraries = {
                name: [type(part).__module__.split(".")[0], type(part).__name__] for name, part in parts.items()
            }
            write_json(new / INDEX, index | libraries | ({SHARED: shared} if shared else {}))

    @torch.no_grad()
    def predict(
        self,
        prompt: str,
        generator: torch.Generator,
        steps: int = 50,
        guidance: float = 10.0,
        elevation: float = 15.0,
        size: int = 256,
        suffix: str = ", 3d asset",
        negative: str = "",
        progress: Callable[[int, int], None] | None = None,
        autocast: torch.dtype | None = None,
    ) -> Float[Tensor, "4 h w 3"]:
        """The object of `prompt` from azimuth 0 (its front), 90, 180 and 270 degrees in our world, values 0..1.

        The defaults are those of the released text-to-image script.

        Args:
            generator: draws the noise.
            steps, guidance: of DDIM with classifier-free guidance.
            elevation: of the four cameras, degrees above the horizon.
            size: height and width of the images, a multiple of the VAE's factor (8).
            suffix: what the network's captions of 3D objects end with.
            negative: text of the unconditional branch.
            progress: called as `progress(done, total)` after every step.
            autocast: `torch.bfloat16` or `torch.float16` to compute in lower precision, None to leave it.

        Raises:
            InputError: `size` or `steps` does not fit the networks.
        """
        diffusion, views = self.diffusion, len(AZIMUTHS)
        factor = diffusion.image_size // diffusion.latent_size
        if size < factor or size % factor:
            raise InputError(f"images of {size} pixels; expected a multiple of {factor}, 256 is what MVDream learned")
        total = len(released_timesteps(diffusion.denoiser.steps, steps))
        shape = (views, diffusion.vae.config.latent_channels, size // factor, size // factor)
        latents = draw_normal(shape, generator, diffusion.device)
        text, unconditional = diffusion.encode_text([prompt + suffix, negative])[:, None].expand(-1, views, -1, -1)
        camera, scheduler = view_cameras(elevation).to(diffusion.device), diffusion.sampler(steps)
        with torch.autocast(diffusion.device.type, dtype=autocast, enabled=autocast is not None):
            trajectory = denoise_views(
                self.network, scheduler, latents, text, unconditional, camera, steps, guidance, num_frames=views
            )
            for done, (cleaner, _) in enumerate(trajectory, start=1):
                latents = cleaner
                if progress is not None:
                    progress(done, total)
        return diffusion.decode(latents)
