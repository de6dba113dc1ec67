"""The 3D priors of stage 1: how near predicted views are to the true ones of objects that were held out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from geodream_lib import cameras as cam
from geodream_lib.lab.meaning import meaning, sample_meant
from geodream_lib.lab.measure.pictures import retrieved
from geodream_lib.lab.networks import IMAGE_SIZE
from geodream_lib.lab.objects import LabObject
from geodream_lib.lab.render import render_rgba
from geodream_lib.lab.train_viewpoint import angle_between
from geodream_lib.lab.turntables import TURNTABLE_FOV, TURNTABLE_RADIUS, turntable_object
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.viewpoint import Viewpoint
from geodream_lib.presets import Views
from geodream_lib.views import MVDream, Zero123, Zero123Plus
from geodream_lib.views.background import cut_out
from geodream_lib.views.images import on_white
from geodream_lib.views.sampling import (
    MVDREAM_REFERENCES,
    RelativePose,
    pose_cameras,
    sample_mvdream_viewpoints,
    sample_viewpoints,
)
from geodream_lib.views.sources import predict_with_zero123plus, viewpoints

ELEVATION = 14.0  # degrees, of reference views
SPHERE = (TURNTABLE_RADIUS, TURNTABLE_FOV, IMAGE_SIZE)
SIDES = {"front": 0.0, "back": 180.0}
CANDIDATES = 32  # exact objects among which MVDream's nearest is looked for


def exact_views(obj: LabObject, cameras: cam.Cameras) -> tuple[Float[Tensor, "n h w 3"], Bool[Tensor, "n h w"]]:
    """Pictures of an object on white, 0..1, and its silhouettes."""
    images, alpha = render_rgba([obj] * len(cameras), cameras, np.ones((len(cameras), 3), np.float32))
    return torch.from_numpy(images).float() / 255, torch.from_numpy(alpha) > 127


def held_out_objects(count: int) -> list[LabObject]:
    """The first so many held-out turntable objects, in colours that no network has seen on them."""
    return [turntable_object(0, index, "held_out")[0] for index in range(count)]


def likeness(
    pictures: Float[Tensor, "n h w 3"], true: Float[Tensor, "n h w 3"], silhouette: Bool[Tensor, "n h w"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """PSNR of each picture in dB, and the overlap (IoU) of what is cut out of it with the true silhouette."""
    psnr = -10 * (pictures - true).square().mean(dim=(1, 2, 3)).log10()
    seen = torch.stack([cut_out(picture) for picture in pictures]) > 0.5
    return psnr, (seen & silhouette).sum((1, 2)) / (seen | silhouette).sum((1, 2))


def asked_of_zero123plus(settings: Views) -> Views:
    """Settings of stage 1 with Zero123++ in place of Zero123, with the same guidance; released are 4 and 3."""
    return replace(settings, predictor="zero123plus")


def measure_zero123(folder: Path, settings: Views, objects: int) -> dict[str, object]:
    """PSNR and mask IoU at the relative poses of appendix F.

    "from_sides": as around MVDream's views (ii), here the true front, left and right; "from_front": all around the one
    view that text-to-image gives (i); "from_back": the same from the true back, from which the strategy predicts
    nothing. "by_azimuth" has the last two against the relative azimuth.
    """
    zero123, measured = Zero123.load(folder), []

    def ask(obj: LabObject, side: float, poses: list[RelativePose], generator: torch.Generator) -> list[tuple]:
        around = cam.orbit([side + p.azimuth for p in poses], [ELEVATION + p.elevation for p in poses], *SPHERE)
        reference, _ = exact_views(obj, cam.orbit([side], [ELEVATION], *SPHERE))
        predicted = zero123.predict(reference[0], poses, settings.steps, settings.guidance, settings.eta, generator)
        psnr, iou = likeness(predicted, *exact_views(obj, around))
        return [(abs(p.azimuth), *pair) for p, *pair in zip(poses, psnr.tolist(), iou.tolist(), strict=True)]

    for index, obj in enumerate(tqdm(held_out_objects(objects), desc="Zero123", unit="object")):
        for name, side in SIDES.items():
            generator = torch.Generator().manual_seed(index)  # the same poses and noise from both sides
            poses = sample_viewpoints(settings.count, generator, ELEVATION)[1:]
            measured += [(name, *row) for row in ask(obj, side, poses, generator)]
        generator = torch.Generator().manual_seed(index)
        poses = [p for p in sample_mvdream_viewpoints(settings.count, generator, ELEVATION) if p.rule == "random"]
        for side in dict.fromkeys(pose.reference for pose in poses):
            near = [pose for pose in poses if pose.reference == side]
            measured += [("sides", *row) for row in ask(obj, side, near, generator)]
    edges = (0, 30, 60, 90, 120, 150, 181)
    by_azimuth = [
        {"azimuth": [low, min(high, 180)]}
        | {side: _average([row for row in measured if row[0] == side and low <= row[1] < high]) for side in SIDES}
        for low, high in zip(edges, edges[1:], strict=False)
    ]
    scores = {f"from_{name}": _average([row for row in measured if row[0] == name]) for name in ("sides", *SIDES)}
    return scores | {"by_azimuth": by_azimuth, "objects": objects}


def measure_zero123plus(folder: Path, settings: Views, objects: int) -> dict[str, float]:
    """PSNR and mask IoU of the six views around a true front, cut out as stage 1 does."""
    network, rows, settings = Zero123Plus.load(folder), [], asked_of_zero123plus(settings)
    for index, obj in enumerate(tqdm(held_out_objects(objects), desc="Zero123++", unit="object")):
        generator = torch.Generator().manual_seed(index)
        reference, _ = exact_views(obj, cam.orbit([0.0], [ELEVATION], *SPHERE))
        poses = viewpoints(settings, False, generator)[1:]
        cameras = pose_cameras(poses, ELEVATION, TURNTABLE_RADIUS, TURNTABLE_FOV, IMAGE_SIZE)
        predicted = predict_with_zero123plus(network, {0.0: reference[0]}, poses, settings, generator)
        psnr, iou = likeness(predicted, *exact_views(obj, cameras))
        rows += [("front", 0.0, *pair) for pair in zip(psnr.tolist(), iou.tolist(), strict=True)]
    return _average(rows) | {"objects": objects}


def measure_mvdream(
    folder: Path,
    single: list[str],
    compositions: list[str],
    known: list[str],
    judge: ImageText,
    compass: Viewpoint,
    settings: Views,
) -> dict[str, object]:
    """What the four views have in common.

    A prompt leaves proportions open, so of `CANDIDATES` exact objects that it is true of, the one nearest to all four
    views together is taken: one object explains consistent views, no object explains others. "azimuth_error" is that
    of single views by the viewpoint evaluator, "retrieval" of all views among the `known` prompts.
    """
    mvdream, azimuth = MVDream.load(folder), torch.tensor(list(MVDREAM_REFERENCES.values()))
    cameras = cam.orbit(azimuth, torch.full((4,), settings.mvdream_elevation), *SPHERE)
    rows, errors, hits = [], [], {"single": [], "composition": []}
    for index, prompt in enumerate(tqdm([*single, *compositions], desc="MVDream", unit="prompt")):
        generator = torch.Generator().manual_seed(index)
        views = mvdream.predict(
            prompt,
            generator,
            settings.mvdream_steps,
            settings.mvdream_guidance,
            settings.mvdream_elevation,
            settings.size,
        )
        views = torch.stack([on_white(view, cut_out(view)) for view in views])
        sort = "single" if index < len(single) else "composition"
        hits[sort] += retrieved(judge, views, [known.index(prompt)] * len(views), known)
        if sort == "composition":
            continue
        meant = meaning(prompt)
        truths = [exact_views(sample_meant(meant, np.random.default_rng([71, k])), cameras) for k in range(CANDIDATES)]
        scores = [likeness(views, *truth) for truth in truths]
        psnr, iou = max(scores, key=lambda score: score[0].mean().item())
        rows.append(("front", 0.0, psnr.mean().item(), iou.mean().item()))
        errors += angle_between(compass.predict(views)[0], azimuth).tolist()
    scores = {f"retrieval_{sort}": float(np.mean(values)) for sort, values in hits.items()}
    return _average(rows) | scores | {"azimuth_error": float(np.median(errors)), "prompts": len(single)}


def _average(rows: list[tuple[str, float, float, float]]) -> dict[str, float]:
    psnr, iou = np.mean([row[2:] for row in rows], axis=0)
    return {"psnr": float(psnr), "mask_iou": float(iou)}
