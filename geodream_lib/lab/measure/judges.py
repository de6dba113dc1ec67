"""The evaluators, asked what is known: exact pictures, clouds and views that no network has learned from."""

from pathlib import Path

import numpy as np
import torch

from geodream_lib.lab.evaluator_data import EXAM, render_bearings, render_cloud_exams, render_exams
from geodream_lib.lab.train_image_text import exam_score, mistake_colours
from geodream_lib.lab.train_viewpoint import angle_between
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.point_text import PointText
from geodream_lib.metrics.viewpoint import FRONT, Viewpoint

PICTURE_EXAMS, CLOUD_EXAMS = 8, 2  # of 35 single objects and 100 compositions each


def measure_image_text(folder: Path) -> dict[str, float]:
    """Share of exact pictures that retrieve their caption among the 135 of their exam, and share of those that are
    nearer to it than to the same caption with one or two of its colours mistaken."""
    judge, rights, told = ImageText.load(folder), [], []
    rng = np.random.default_rng(0)
    for exam in (render_exams(number, "test") for number in range(PICTURE_EXAMS)):
        seen = judge.embed_images(torch.from_numpy(exam["images"]).float() / 255)
        captions = exam["captions"].tolist()
        own = judge.embed_texts(captions)
        mistaken = judge.embed_texts([mistake_colours(caption, rng) for caption in captions])
        rights.append(exam_score(seen, own))
        told.append(((seen * own).sum(-1) > (seen * mistaken).sum(-1)).float().mean().item())
    scores = {"retrieval": float(np.mean(rights)), "colours_told": float(np.mean(told))}
    return scores | {"captions": sum(EXAM.values()), "exams": PICTURE_EXAMS}


def measure_point_text(folder: Path) -> dict[str, float]:
    """Share of exact clouds of 10 000 points that retrieve their caption among the 135 of their exam."""
    judge, rights = PointText.load(folder), []
    for exam in (render_cloud_exams(number, "test") for number in range(CLOUD_EXAMS)):
        clouds = torch.from_numpy(exam["xyz"]).float(), torch.from_numpy(exam["rgb"]).float() / 255
        rights.append(exam_score(judge.embed_points(*clouds), judge.embed_texts(exam["captions"].tolist())))
    return {"retrieval": float(np.mean(rights)), "captions": sum(EXAM.values()), "exams": CLOUD_EXAMS}


def measure_viewpoint(folder: Path) -> dict[str, float]:
    """Median error in degrees on 1024 exact views from anywhere, and how often a front is told from what is none."""
    judge, asked = Viewpoint.load(folder), render_bearings(0, "test")
    images, azimuth = torch.from_numpy(asked["images"]).float() / 255, torch.from_numpy(asked["azimuth"])
    error = angle_between(judge.predict(images)[0], azimuth)
    told = (judge.frontness(images) > 0.5) == (angle_between(azimuth, torch.zeros(())) < FRONT)
    return {"median_error": error.median().item(), "front_told": told.float().mean().item(), "views": len(images)}
