"""Stage 1 of a run with its networks: reference views of the prompt, and the source views predicted around them."""

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib import show
from geodream_lib.guidance import load_diffusion
from geodream_lib.run import Run
from geodream_lib.views import MVDream, RelativePose, Zero123, Zero123Plus, load_reference, prepare_reference
from geodream_lib.views.background import cut_out
from geodream_lib.views.images import on_white
from geodream_lib.views.sampling import MVDREAM_REFERENCES
from geodream_lib.views.sources import predict_in_two_rounds, predict_with_zero123, predict_with_zero123plus
from geodream_lib.weights.folder import network_path


def front_view(run: Run, generator: torch.Generator) -> Float[Tensor, "h w 3"]:
    """The run's image, or a front view of its prompt by text-to-image (appendix F, i), centred on white."""
    settings = run.preset.views
    if run.image is not None:
        return load_reference(run.image, settings.size, settings.fill)[0]
    diffusion = load_diffusion(network_path(run.preset.text_to_image), run.device, run.dtype)
    prompt = run.prompt + settings.reference_suffix
    image = diffusion.sample([prompt], settings.reference_steps, settings.reference_guidance, generator)[0]
    return prepare_reference(image.cpu(), settings.size, settings.fill)[0]


def imagine_sides(run: Run, generator: torch.Generator) -> dict[float, Float[Tensor, "h w 3"]]:
    """Front, left, back and right of the prompt by MVDream (appendix F, ii), on white, by azimuth in degrees."""
    settings = run.preset.views
    mvdream = MVDream.load(network_path(run.preset.mvdream), run.device, run.dtype)
    with show.step_bar("imagining four sides", settings.mvdream_steps) as advance:
        images = mvdream.predict(
            run.prompt,
            generator,
            settings.mvdream_steps,
            settings.mvdream_guidance,
            settings.mvdream_elevation,
            settings.size,
            progress=advance,
        ).cpu()
    return {
        azimuth: on_white(image, cut_out(image))
        for azimuth, image in zip(MVDREAM_REFERENCES.values(), images, strict=True)
    }


def predict_sources(
    run: Run,
    references: dict[float, Float[Tensor, "h w 3"]],
    poses: list[RelativePose],
    elevation: float,
    generator: torch.Generator,
) -> Float[Tensor, "n h w 3"]:
    """The source views, by the network that the preset names."""
    settings, title = run.preset.views, "predicting source views"
    if settings.predictor == "zero123plus" and len(references) == len(MVDREAM_REFERENCES):
        zero123plus = Zero123Plus.load(network_path(run.preset.zero123plus), run.device, run.dtype)
        with show.step_bar(title, settings.steps) as advance:
            return predict_with_zero123plus(zero123plus, references, poses, settings, generator, advance)
    zero123 = Zero123.load(network_path(run.preset.zero123), run.device, run.dtype)
    with show.step_bar(title, settings.steps) as advance:
        if settings.sampling == "released" and len(references) == 1:
            return predict_in_two_rounds(zero123, references[0.0], settings, generator, advance)
        return predict_with_zero123(zero123, references, poses, settings, elevation, generator, advance)
