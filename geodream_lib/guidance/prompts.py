"""View-dependent prompting (the default, paper appendix G) and Perp-Neg (its alternative, off by default).

A 2D prior asked for "a corgi" wants to see a face from everywhere. Telling it which side the camera looks at is the
oldest remedy against the Janus problem (DreamFusion); rule and words are those of threestudio.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.guidance.diffusion import Denoiser, LatentDiffusion

SLOTS = ("side", "front", "back", "overhead")
SIDE, FRONT, BACK, OVERHEAD = range(4)


@dataclass(frozen=True)
class ViewPrompts:
    """A prompt and the angles, in degrees, at which the camera sees the object's front, its back, or its top.

    view_words: say so in the prompt; without, every view is asked for the same, as before DreamFusion.

    The released GeoDream configs use 20, 40, 50 for field and texture and the defaults for the mesh's geometry. Its
    world has azimuth 0 behind the object, so its code swaps the words front and back; here the front is at azimuth 0
    (the world of `cameras`, and threestudio's) and no swap is needed.
    """

    prompt: str
    negative: str = ""
    front: float = 45.0
    back: float = 45.0
    overhead: float = 60.0
    view_words: bool = True

    def texts(self) -> list[str]:
        """The prompt as seen from the side, the front, the back and above, in the order of `SLOTS`."""
        return [f"{self.prompt}, {slot} view" if self.view_words else self.prompt for slot in SLOTS]

    def slots(self, azimuth: Float[Tensor, " b"], elevation: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
        """Index into `SLOTS` for each camera; angles in degrees, any turn. All comparisons are strict."""
        azimuth = wrap_degrees(azimuth)
        slots = torch.full_like(azimuth, SIDE, dtype=torch.long)
        slots[azimuth.abs() < self.front] = FRONT
        slots[(azimuth > 180 - self.back) | (azimuth < -180 + self.back)] = BACK
        slots[elevation > self.overhead] = OVERHEAD
        return slots


@dataclass(frozen=True)
class Condition:
    """What the pretrained network is asked for a batch of views.

    text: the prompt of each view. negative: the unconditional branch (the negative prompt, usually empty).
    repelled, weights: Perp-Neg's two texts per view to move away from, with weights <= 0 (None without Perp-Neg).
    """

    text: Float[Tensor, "b tokens d"]
    negative: Float[Tensor, "b tokens d"]
    repelled: Float[Tensor, "b 2 tokens d"] | None = None
    weights: Float[Tensor, "b 2"] | None = None


@dataclass(frozen=True)
class PromptEmbeddings:
    """The encoded prompt: as written, from the four sides, and the negative prompt."""

    prompts: ViewPrompts
    plain: Float[Tensor, "1 tokens d"]
    views: Float[Tensor, "4 tokens d"]
    negative: Float[Tensor, "1 tokens d"]

    def condition(self, azimuth: Float[Tensor, " b"], elevation: Float[Tensor, " b"]) -> Condition:
        """View-dependent prompting: each camera gets the text of its side."""
        slots = self.prompts.slots(azimuth, elevation).to(self.views.device)
        return Condition(self.views[slots], self.negative.expand(len(slots), -1, -1))

    def perp_neg_condition(self, azimuth: Float[Tensor, " b"], elevation: Float[Tensor, " b"]) -> Condition:
        """Perp-Neg (Armandpour et al. 2023): a blend of two neighbouring sides, repelled from both.

        With r from 1 at the front over 0 at the side (or from 1 at the side to 0 at the back), the text is the blend
        of the embeddings by r, and the two repelled texts have weights -f(r) that fade where a side is wanted. From
        above the text is the overhead one and nothing is repelled.
        """
        device = self.views.device
        slots = self.prompts.slots(azimuth, elevation).to(device)
        turn = wrap_degrees(azimuth).abs().to(device) / 90
        front_half, overhead = turn < 1, slots == OVERHEAD
        r = torch.where(front_half, 1 - turn, 2 - turn)

        nearer = torch.where(front_half, FRONT, SIDE)
        farther = torch.where(front_half, SIDE, BACK)
        text = r[:, None, None] * self.views[nearer] + (1 - r)[:, None, None] * self.views[farther]
        text = torch.where(overhead[:, None, None], self.views[OVERHEAD], text)

        front_weights = torch.stack([_decay(r, 4.0, 0.5, -2.426), _decay(1 - r, 4.0, 0.5, -2.426)], dim=-1)
        back_weights = torch.stack([_decay(r, 1.0, 0.5, -0.606), _decay(r, 1.0, 0.5, 0.967)], dim=-1)
        weights = torch.where(front_half[:, None], -front_weights, -back_weights)
        weights = torch.where(overhead[:, None], 0.0, weights)

        repelled = torch.stack(
            [self.views[torch.where(front_half, FRONT, SIDE)], self.views[torch.where(front_half, SIDE, FRONT)]], dim=1
        )
        repelled = torch.where(overhead[:, None, None, None], self.negative[:, None], repelled)
        return Condition(text, self.negative.expand(len(slots), -1, -1), repelled, weights)


def encode_prompts(diffusion: LatentDiffusion, prompts: ViewPrompts) -> PromptEmbeddings:
    """Run the text encoder once for all texts of a run."""
    text = diffusion.encode_text([prompts.prompt, *prompts.texts(), prompts.negative])
    return PromptEmbeddings(prompts, plain=text[:1], views=text[1:5], negative=text[5:])


def wrap_degrees(angle: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The same direction in [-180, 180)."""
    return (angle + 180) % 360 - 180


def _decay(r: Float[Tensor, " b"], a: float, b: float, c: float) -> Float[Tensor, " b"]:
    return a * torch.exp(-b * r) + c


def perpendicular(x: Float[Tensor, "b c h w"], to: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The part of `x` perpendicular to `to`, with all of (c, h, w) as one vector."""
    dot = (x * to).sum(dim=(1, 2, 3), keepdim=True)
    return x - dot / (to * to).sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6) * to


def perp_neg_direction(
    wanted: Float[Tensor, "b c h w"], repelled: Float[Tensor, "b 2 c h w"], weights: Float[Tensor, "b 2"]
) -> Float[Tensor, "b c h w"]:
    """The guidance direction e_pos + sum_i w_i (e_i perpendicular to e_pos); all e are differences to uncond."""
    total = wanted
    for i in range(repelled.shape[1]):
        total = total + weights[:, i, None, None, None] * perpendicular(repelled[:, i], wanted)
    return total


@torch.no_grad()
def guided_noise(
    pretrained: Denoiser,
    noisy: Float[Tensor, "b c h w"],
    t: Int[Tensor, " b"],
    condition: Condition,
    scale: float,
) -> Float[Tensor, "b c h w"]:
    """Classifier-free guidance, uncond + s (cond - uncond), with Perp-Neg's direction if the condition has one.

    All branches go through the network as one batch; at s = 1 without Perp-Neg only the conditional one is needed.
    """
    if condition.repelled is None and math.isclose(scale, 1.0):
        return pretrained(noisy, t, condition.text)
    texts = [condition.text, condition.negative]
    if condition.repelled is not None:
        texts += condition.repelled.unbind(dim=1)
    n = len(texts)
    cond, uncond, *repelled = pretrained(noisy.repeat(n, 1, 1, 1), t.repeat(n), torch.cat(texts)).chunk(n)
    direction = cond - uncond
    if condition.repelled is not None:
        direction = perp_neg_direction(direction, torch.stack(repelled, dim=1) - uncond[:, None], condition.weights)
    return uncond + scale * direction
