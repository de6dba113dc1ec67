"""The evaluators, asked what is known: exact pictures, clouds and views that no network has learned from."""

from pathlib import Path

import numpy as np
import torch

from geodream_lib.lab.evaluator_data import EXAM, render_bearings, render_cloud_exams, render_exams
from geodream_lib.lab.train_image_text import exam_score
from geodream_lib.lab.train_viewpoint import angle_between
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.point_text import PointText
from geodream_lib.metrics.viewpoint import FRONT, Viewpoint

EXAMS = 2  # of 35 single objects and 100 compositions each


def measure_image_text(folder: Path) -> dict[str, float]:
    """Share of exact pictures that retrieve their caption among the 135 of their exam."""
    judge, rights = ImageText.load(folder), []
    for exam in (render_exams(number, "test") for number in range(EXAMS)):
        seen = judge.embed_images(torch.from_numpy(exam["images"]).float() / 255)
        rights.append(exam_score(seen, judge.embed_texts(exam["captions"].tolist())))
    return {"retrieval": float(np.mean(rights)), "captions": sum(EXAM.values()), "exams": EXAMS}


def measure_point_text(folder: Path) -> dict[str, float]:
    """Share of exact clouds of 10 000 points that retrieve their caption among the 135 of their exam."""
    judge, rights = PointText.load(folder), []
    for exam in (render_cloud_exams(number, "test") for number in range(EXAMS)):
        clouds = torch.from_numpy(exam["xyz"]).float(), torch.from_numpy(exam["rgb"]).float() / 255
        rights.append(exam_score(judge.embed_points(*clouds), judge.embed_texts(exam["captions"].tolist())))
    return {"retrieval": float(np.mean(rights)), "captions": sum(EXAM.values()), "exams": EXAMS}


def measure_viewpoint(folder: Path) -> dict[str, float]:
    """Median error in degrees on 1024 exact views from anywhere, and how often a front is told from what is none."""
    judge, asked = Viewpoint.load(folder), render_bearings(0, "test")
    images, azimuth = torch.from_numpy(asked["images"]).float() / 255, torch.from_numpy(asked["azimuth"])
    error = angle_between(judge.predict(images)[0], azimuth)
    told = (judge.frontness(images) > 0.5) == (angle_between(azimuth, torch.zeros(())) < FRONT)
    return {"median_error": error.median().item(), "front_told": told.float().mean().item(), "views": len(images)}
