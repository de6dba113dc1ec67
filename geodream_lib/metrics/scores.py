"""Everything that is measured of one run, as it is written into its `evaluation.json`."""

from dataclasses import dataclass

from geodream_lib.metrics.janus import Janus
from geodream_lib.metrics.saturation import Saturation
from geodream_lib.metrics.truth import Shape


@dataclass(frozen=True)
class Scores:
    """What is known of one run; None where it is not, and then `missing` says why by the score's name.

    clip_r_score, uni3d_score: see `r_score`; among `prompts` prompts. fid: of `views` renders and `reference_images`
    references, too large by a bias that falls with both. symmetric: None if it is not known. janus: None too for an
    object without a front. half_transparent: of the refined field.
    """

    run: str
    prompt: str
    preset: str
    seed: int
    views: int
    prompts: int
    clip_r_score: float | None
    uni3d_score: float | None
    fid: float | None
    reference_images: int
    symmetric: bool | None
    janus: Janus | None
    saturation: Saturation | None
    half_transparent: float | None
    shape: Shape | None
    missing: dict[str, str]

    @property
    def consistent(self) -> bool | None:
        """The paper's vote on consistency, measured; an object without a front is consistent by definition (app. E)."""
        return True if self.symmetric else self.janus.consistent if self.janus else None
