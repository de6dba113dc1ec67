"""The source views of a prompt or a picture: reference views, viewpoints around them, and what is seen from there.

A reference is an image with its azimuth in the object's frame (0 is the front). `viewpoints` says where to look from;
`predict_with_zero123` and `predict_with_zero123plus` look.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from geodream_lib.presets.settings import Views
from geodream_lib.views.background import cut_out
from geodream_lib.views.images import off_white, on_white
from geodream_lib.views.sampling import (
    MVDREAM_REFERENCES,
    RelativePose,
    released_rounds,
    released_viewpoints,
    sample_mvdream_viewpoints,
    sample_viewpoints,
)
from geodream_lib.views.zero123.model import Zero123
from geodream_lib.views.zero123plus.layout import AZIMUTHS, zero123plus_viewpoints
from geodream_lib.views.zero123plus.model import Zero123Plus

References = Mapping[float, Tensor]
Progress = Callable[[int, int], None]
NEAR = 45.0  # degrees of azimuth from an MVDream view within which appendix F predicts


def viewpoints(settings: Views, sides: bool, generator: torch.Generator) -> list[RelativePose]:
    """Where the source views look from.

    Args:
        settings: which rule, which network, how many.
        sides: the references are MVDream's four sides, else one front view.
        generator: CPU generator of the stage.
    """
    elevation = settings.declared_elevation if sides else settings.reference_elevation
    if settings.sampling == "released":
        return released_viewpoints("text" if sides else "image", elevation)
    if settings.predictor == "zero123plus":
        return _zero123plus_viewpoints(settings.zero123plus_version, sides, elevation)
    sample = sample_mvdream_viewpoints if sides else sample_viewpoints
    return sample(settings.count, generator, elevation)


def _zero123plus_viewpoints(version: str, sides: bool, elevation: float) -> list[RelativePose]:
    """Appendix F where the viewpoints are fixed: of Zero123++'s six those that the rule allows."""
    six = zero123plus_viewpoints(version, elevation)
    if not sides:
        return [RelativePose(0.0, 0.0, "reference"), *six]
    poses = [RelativePose(0.0, 0.0, f"MVDream {side}", azimuth) for side, azimuth in MVDREAM_REFERENCES.items()]
    for side in ("front", "left", "right"):
        azimuth = MVDREAM_REFERENCES[side]
        near = [pose for pose in six if min(pose.azimuth, 360 - pose.azimuth) < NEAR]
        poses += [RelativePose(p.azimuth, p.elevation, f"{p.rule} of {side}", azimuth) for p in near]
    return poses


def predict_with_zero123(
    zero123: Zero123,
    references: References,
    poses: list[RelativePose],
    settings: Views,
    elevation: float,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Float[Tensor, "n h w 3"]:
    """The views of `poses`, each predicted from its own reference; a pose at a reference is the reference itself.

    Args:
        references: images [h, w, 3] on white, 0..1.
        settings: steps, guidance and eta of the sampler.
        elevation: of the references, degrees; Stable Zero123 is told.
    """
    images: dict[int, Tensor] = {}
    for azimuth, image in references.items():
        wanted = [i for i, pose in enumerate(poses) if pose.reference == azimuth and not _is_reference(pose)]
        if wanted:
            seen = _look(
                zero123, image, [poses[i] for i in wanted], settings, settings.steps, elevation, generator, progress
            )
            images |= dict(zip(wanted, seen, strict=True))
    return torch.stack([images.get(i, references[pose.reference]) for i, pose in enumerate(poses)])


def predict_in_two_rounds(
    zero123: Zero123,
    reference: Float[Tensor, "h w 3"],
    settings: Views,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Float[Tensor, "n h w 3"]:
    """The released list of one image (`released_rounds`): neighbours of predicted views, in their order.

    As released, Stable Zero123 is told that every view it starts from is at elevation 0.
    """
    first, second = released_rounds()
    around = _look(zero123, reference, first, settings, settings.steps, 0.0, generator, progress)
    images = []
    for i, view in enumerate(around):
        steps = [step for index, step in second if index == i]
        images.append(_look(zero123, view, steps, settings, settings.neighbour_steps, 0.0, generator, progress))
    return torch.cat(images)


def predict_with_zero123plus(
    zero123plus: Zero123Plus,
    references: References,
    poses: list[RelativePose],
    settings: Views,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Float[Tensor, "n h w 3"]:
    """The views of `poses`: Zero123++'s outputs at those azimuths, cut out of their grey and put on white."""
    size = next(iter(references.values())).shape[0]
    images: dict[int, Tensor] = {}
    for azimuth, image in references.items():
        wanted = [i for i, pose in enumerate(poses) if pose.reference == azimuth and not _is_reference(pose)]
        if not wanted:
            continue
        large = _resized(image, max(size, settings.tile))
        alpha = cut_out(large)
        shown = torch.cat([off_white(large, alpha), alpha[..., None]], dim=-1)
        six = zero123plus.predict(shown, generator, settings.steps, settings.guidance, settings.tile, progress).cpu()
        for i in wanted:
            tile = six[AZIMUTHS.index(poses[i].azimuth)]
            images[i] = _resized(on_white(tile, cut_out(tile)), size)
    return torch.stack([images.get(i, references[pose.reference]) for i, pose in enumerate(poses)])


def _look(
    zero123: Zero123,
    image: Float[Tensor, "h w 3"],
    poses: list[RelativePose],
    settings: Views,
    steps: int,
    elevation: float,
    generator: torch.Generator,
    progress: Progress | None,
) -> Float[Tensor, "n h w 3"]:
    return zero123.predict(
        image,
        poses,
        steps,
        settings.guidance,
        settings.eta,
        generator,
        reference_elevation=elevation,
        drop_noisiest=settings.drop_noisiest,
        progress=progress,
    ).cpu()


def _is_reference(pose: RelativePose) -> bool:
    return pose.azimuth == 0.0 and pose.elevation == 0.0


def _resized(image: Float[Tensor, "h w 3"], size: int) -> Float[Tensor, "{size} {size} 3"]:
    if image.shape[0] == size:
        return image
    pixels = image.permute(2, 0, 1)[None]
    pixels = functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
    return pixels[0].permute(1, 2, 0).clamp(0, 1)
