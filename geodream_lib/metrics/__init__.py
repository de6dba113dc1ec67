"""The yardstick: what the paper measures (section 3.1), and what only a world with known truth lets one measure."""

from geodream_lib.metrics.evaluate import Evaluation, evaluate_run
from geodream_lib.metrics.evaluators import Evaluators, load_evaluators
from geodream_lib.metrics.fid import frechet_distance
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.janus import Janus, count_fronts, janus
from geodream_lib.metrics.point_text import PointText, sample_surface
from geodream_lib.metrics.report import write_page
from geodream_lib.metrics.retrieval import r_score
from geodream_lib.metrics.saturation import Saturation, half_transparent, saturation
from geodream_lib.metrics.scores import Scores
from geodream_lib.metrics.shape import ShapeScores, compare_shapes
from geodream_lib.metrics.table import format_table, means
from geodream_lib.metrics.truth import Truth
from geodream_lib.metrics.viewpoint import Viewpoint

__all__ = [
    "Evaluation",
    "Evaluators",
    "ImageText",
    "Janus",
    "PointText",
    "Saturation",
    "Scores",
    "ShapeScores",
    "Truth",
    "Viewpoint",
    "compare_shapes",
    "count_fronts",
    "evaluate_run",
    "format_table",
    "frechet_distance",
    "half_transparent",
    "janus",
    "load_evaluators",
    "means",
    "r_score",
    "sample_surface",
    "saturation",
    "write_page",
]
