"""Train the lab's image-text evaluator: CLIP from scratch on captioned pictures that no generator was given."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from geodream_lib.lab.augment import disturb
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.captions import LEXICON
from geodream_lib.lab.datasets import load_shards, make_shards
from geodream_lib.lab.evaluator_data import EXAM, render_exams, render_pictures
from geodream_lib.lab.evaluator_networks import make_clip
from geodream_lib.lab.networks import make_tokenizer
from geodream_lib.lab.shape import COLORS
from geodream_lib.lab.train_text_to_image import tokenize
from geodream_lib.lab.training import Budget, train
from geodream_lib.metrics.clip_images import image_features
from geodream_lib.metrics.clip_texts import text_features
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.precision import fast_autocast

EXAMS = 2
LARGEST_SCALE = 100.0  # as in CLIP: a temperature of a hundredth
LEAST_SEEN = 20  # captions that must have a phrase for it to be learned
PHRASE_WEIGHT = 0.1  # of a nat of all phrases of a caption together
COLOUR_WORD = re.compile(rf"\b({'|'.join(COLORS)})\b")
# Of the layer for phrases, where the network that it reads has learned before.
CATCH_UP_PICTURES, CATCH_UP_STEPS, CATCH_UP_RATE = 8192, 600, 1e-2


def make_image_text(bench: Bench) -> None:
    """Render captioned pictures, train CLIP on them, write `image_text/`."""
    pictures = load_shards(make_shards(render_pictures, bench.data, bench.photographs), ("images", "captions"))
    exams = load_shards(make_shards(render_exams, bench.data, EXAMS, "test"), ("images", "captions"))
    out, folder = bench.out / "image_text", bench.folder("image_text")
    if bench.warm_start:
        network = ImageText.load(out, bench.device)
    else:
        network = make_clip(make_tokenizer(LEXICON, folder / "tokenizer"))
    network = train_image_text(
        network,
        torch.from_numpy(pictures["images"]),
        pictures["captions"],
        torch.from_numpy(exams["images"]),
        exams["captions"].tolist(),
        budget=bench.budget,
        folder=folder,
        device=bench.device,
        warm_start=bench.warm_start,
    )
    network.half().save(out)
    bench.keep_curve("image_text", out)


def train_image_text(
    network: ImageText,
    images: UInt8[Tensor, "n h w 3"],
    captions: np.ndarray,
    exam_images: UInt8[Tensor, "m h w 3"],
    exam_captions: list[str],
    *,
    budget: Budget,
    folder: Path,
    device: torch.device,
    warm_start: bool = False,
) -> ImageText:
    """Train on pictures and `captions [n, c]` of each, of which every step takes one; log retrieval in the exams.

    Pictures are mirrored half of the time: no caption says left or right.

    CLIP learns by comparing a caption with tens of thousands of others at once. A batch for a CPU holds some dozens,
    most of which are wrong at first sight, and teaches little. So a picture must also tell its caption from one with
    the colours mistaken (as NegCLIP does with words that changed places, Yuksekgonul et al. 2023), and the embeddings
    of pictures and texts are asked for the words and pairs of words ("red mushroom") of the caption, by one linear
    layer which is thrown away.

    Args:
        warm_start: the network has learned before. Its texts stay as they are, since the point-text judge learned to
            find them; the layer for words begins anew and catches up first, else it would spoil what the network knows
            (Kumar et al. 2022).
    """
    images, count = images.to(device), captions.shape[1]
    rng = np.random.default_rng(0)
    # The caption first, then the same with its colours mistaken.
    sentences = np.stack([captions, np.vectorize(lambda text: mistake_colours(text, rng))(captions)], -1)
    tokens = tokenize(network.tokenizer, sentences.ravel().tolist()).view(*sentences.shape, -1).to(device)
    # Equal sentences have equal numbers.
    meaning = torch.from_numpy(np.unique(sentences, return_inverse=True)[1].reshape(sentences.shape)).to(device)

    said_phrases, phrase_count = index_phrases(captions)
    said_phrases = said_phrases.to(device)

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = {"generator": generator, "device": device}
        index = torch.randint(len(images), (budget.batch_size,), **draw)
        which = torch.randint(count, (budget.batch_size,), **draw)
        batch = disturb(images[index], generator)
        mirrored = torch.rand(len(batch), 1, 1, 1, **draw) < 0.5
        pixels = network.preparation(torch.where(mirrored, batch.flip(2), batch))
        # All captions, and behind them what is mistaken for them.
        words, said = tokens[index, which].transpose(0, 1).flatten(0, 1), meaning[index, which].T.flatten()
        # What fills short texts up is cut off where the longest of the batch ends.
        words = words[:, : int((words != words[:, -1:]).sum(1).max()) + 1]
        with fast_autocast(device):
            seen = image_features(model["clip"], pixels)
            read = model["clip"].text_projection(model["clip"].text_model(input_ids=words).pooler_output)
        contrast = contrastive_loss(seen, read, model["clip"].logit_scale, said[: len(index), None] == said)
        # A picture shows what its longest caption says; a text says what it says.
        shown = phrase_loss(model["phrases"], seen, said_phrases[index, 0])
        told = phrase_loss(model["phrases"], read[: len(index)], said_phrases[index, which])
        return contrast + PHRASE_WEIGHT * (shown + told), {"contrast": contrast.item(), "phrases": shown.item()}

    def validate(model: nn.ModuleDict) -> dict[str, float]:
        return {"retrieval": exam_score(network.embed_images(exam_images / 255), network.embed_texts(exam_captions))}

    head = make_phrase_head(network.clip.config.projection_dim, phrase_count)
    model = nn.ModuleDict({"clip": network.clip, "phrases": head}).to(device).requires_grad_(True)
    if warm_start:
        for part in (network.clip.text_model, network.clip.text_projection):
            part.requires_grad_(False)
        some = slice(CATCH_UP_PICTURES)
        with torch.no_grad():
            read = text_features(network.clip, network.tokenizer, captions[some, 0].tolist())
        catch_up(head, torch.cat([network.features(images[some] / 255), read]), said_phrases[some, 0].repeat(2, 1))
    train("image_text", model, loss, budget=budget, folder=folder, device=device, validate=validate)
    return network.eval()


def mistake_colours(sentence: str, rng: np.random.Generator) -> str:
    """The sentence with two of its colours in each other's place or, half of the time and where it has not two, with
    another colour in the place of one; as it is where it has none."""
    said = list(COLOUR_WORD.finditer(sentence))
    if not said:
        return sentence
    one = said[rng.integers(len(said))]
    different = [word for word in said if word[0] != one[0]]
    if different and rng.random() < 0.5:
        first, last = sorted((one, different[rng.integers(len(different))]), key=lambda word: word.start())
        between = sentence[first.end() : last.start()]
        return sentence[: first.start()] + last[0] + between + first[0] + sentence[last.end() :]
    others = sorted(set(COLORS) - {word[0] for word in said})
    return sentence[: one.start()] + others[rng.integers(len(others))] + sentence[one.end() :]


def phrases(sentence: str) -> set[str]:
    """Words and pairs of neighbouring words."""
    words = re.findall(r"[a-z]+", sentence)
    return {*words, *(f"{one} {other}" for one, other in pairwise(words))}


def index_phrases(captions: np.ndarray, least: int = LEAST_SEEN) -> tuple[Int[Tensor, "n c longest"], int]:
    """Numbers of the phrases of `captions [n, c]`, filled up with the number of phrases; and that number.

    Phrases that fewer than `least` captions have are left out.
    """
    sets = [phrases(sentence) for sentence in captions.ravel().tolist()]
    counts = Counter(phrase for one in sets for phrase in one)
    number = {phrase: i for i, phrase in enumerate(sorted(p for p, count in counts.items() if count >= least))}
    rows = [torch.tensor([number[p] for p in sorted(one) if p in number], dtype=torch.long) for one in sets]
    filled = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=len(number))
    return filled.reshape(*captions.shape, -1), len(number)


def make_phrase_head(width: int, phrase_count: int) -> nn.Linear:
    """One linear layer from an embedding to the logits of all phrases."""
    head = nn.Linear(width, phrase_count)
    nn.init.constant_(head.bias, -5.0)  # most captions do without most phrases
    return head


def catch_up(head: nn.Linear, embedded: Float[Tensor, "n d"], said: Int[Tensor, "n longest"]) -> None:
    """Teach the layer for phrases alone, from embeddings that stay as they are."""
    optimizer = torch.optim.Adam(head.parameters(), CATCH_UP_RATE)
    generator = torch.Generator(embedded.device).manual_seed(0)
    for _ in range(CATCH_UP_STEPS):
        some = torch.randint(len(embedded), (256,), generator=generator, device=embedded.device)
        optimizer.zero_grad()
        phrase_loss(head, embedded[some], said[some]).backward()
        optimizer.step()


def phrase_loss(head: nn.Linear, embedded: Float[Tensor, "n d"], said: Int[Tensor, "n longest"]) -> Float[Tensor, ""]:
    """Nats by which an embedding does not tell which phrases its caption has (`said`, as `index_phrases` counts)."""
    target = torch.zeros(len(said), head.out_features + 1, device=said.device).scatter_(1, said, 1.0)[:, :-1]
    logits = head(embedded.float())
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(said)


def contrastive_loss(
    items: Float[Tensor, "n d"], texts: Float[Tensor, "m d"], log_scale: Float[Tensor, ""], same: Bool[Tensor, "n m"]
) -> Float[Tensor, ""]:
    """CLIP's: each item finds its text, and each text its item in the batch.

    Args:
        texts: those of the items, in their order, and behind them any others, as wrong answers.
        same: which texts say what an item's own says; one that is not its own is no wrong answer and takes no part.
    """
    items, texts = functional.normalize(items.float(), dim=-1), functional.normalize(texts.float(), dim=-1)
    similarity = log_scale.exp().clamp(max=LARGEST_SCALE) * items @ texts.T
    itself = torch.eye(*same.shape, dtype=torch.bool, device=items.device)
    similarity = similarity.masked_fill(same & ~itself, float("-inf"))
    own = torch.arange(len(items), device=items.device)
    found = functional.cross_entropy(similarity, own), functional.cross_entropy(similarity[:, : len(items)].T, own)
    return (found[0] + found[1]) / 2


def exam_score(items: Float[Tensor, "n d"], texts: Float[Tensor, "n d"]) -> float:
    """Share of items of the exams, one behind the other, that retrieve their own text among those of their exam."""
    size = sum(EXAM.values())
    right = [
        (one @ other.T).argmax(-1) == torch.arange(len(one), device=one.device)
        for one, other in zip(items.split(size), texts.split(size), strict=True)
    ]
    return torch.cat(right).float().mean().item()
