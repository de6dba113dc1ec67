"""What a caption says: the grammar of `captions` read backwards, from a sentence to the objects it is true of."""

import re
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from geodream_lib.lab.captions import ADJECTIVES, ATTACHMENTS, NOUNS, TEMPLATES
from geodream_lib.lab.compositions import COMPOSITIONS, RELATIONS, compose
from geodream_lib.lab.objects import LabObject, sample_object
from geodream_lib.lab.shape import COLORS

DRAWS = 64  # objects drawn at most until one has the parts that are named


@dataclass(frozen=True)
class Meaning:
    """One object: category, primary and secondary colour (None where left out), the attachments that are named."""

    category: str
    colors: tuple[str | None, str | None]
    attachments: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """Two objects and their relation, one of `RELATIONS`."""

    subject: Meaning
    relation: str
    object: Meaning


def meaning(prompt: str) -> Meaning | Scene | None:
    """The inverse of `caption` and `composition_caption`; None for any other sentence.

    What follows a comma (view, background, style) is ignored. A material names no colour, so it is no part of this.
    """
    words = re.sub(r"\s+", " ", prompt.lower().split(",")[0]).strip(" .")
    return _one(words) or _two(words)


def sample_meant(meant: Meaning | Scene, rng: np.random.Generator) -> LabObject:
    """Draw an object that the sentence is true of; colours and parts that it leaves out are drawn.

    A scene becomes one object, which has a front. A named part that the category never has is missing from what is
    returned after `DRAWS` draws.
    """
    if isinstance(meant, Scene):
        # As in `sample_composition`: nothing stands where a rider sits.
        bare = meant.relation != "beside" and not meant.object.attachments
        first, second = _draw(meant.subject, rng, bare=False), _draw(meant.object, rng, bare)
        scene = compose(first, meant.relation, second, rng)
        return replace(first, primitives=scene.primitives, symmetric=False)
    return _draw(meant, rng, bare=False)


def _draw(meant: Meaning, rng: np.random.Generator, bare: bool) -> LabObject:
    """One object; `bare`: without any attachment."""
    for _ in range(DRAWS):
        drawn = sample_object(rng, meant.category)
        colors = tuple(named or other for named, other in zip(meant.colors, drawn.colors, strict=True))
        obj = sample_object(rng, meant.category, colors)
        if set(meant.attachments) <= set(obj.attachments) and not (bare and obj.attachments):
            break
    return obj


def _two(words: str) -> Scene | None:
    for found in re.finditer(f" ({'|'.join(RELATIONS)}) ", words):
        subject, relation, thing = _one(words[: found.start()]), found[1], _one(words[found.end() :])
        if subject and thing and (subject.category, relation, thing.category) in COMPOSITIONS:
            return Scene(subject, relation, thing)
    return None


def _one(words: str) -> Meaning | None:
    for category, templates in TEMPLATES.items():
        # In a scene an object is named briefly.
        for template in (*templates, f"a {{a}} {NOUNS.get(category, category)}"):
            found = re.fullmatch(_pattern(template), words)
            if found is not None:
                said = {name: value for name, value in found.groupdict().items() if value is not None}
                primary = next((value for name, value in said.items() if name.startswith("a_")), None)
                secondary = next((value for name, value in said.items() if name.startswith("b_")), None)
                return Meaning(category, (primary, secondary), tuple(name for name in ATTACHMENTS if name in said))
    return None


@cache
def _pattern(template: str) -> str:
    """A regular expression for every sentence that `caption` makes of a template."""
    attachments = "|".join(
        f"(?P<{name}>{_with_colors(phrase, name).replace('and ', '(?:and|with) ', 1)})"
        for name, phrase in ATTACHMENTS.items()
    )
    article, rest = _with_colors(template, "template").split(" ", 1)
    return f"{article} (?:(?:{'|'.join(ADJECTIVES)}) )?{rest}(?: (?:{attachments}))?"


def _with_colors(text: str, place: str) -> str:
    """The text with any article, and with any colour or none in the places of colours."""
    text = re.sub(r"\{(.)\} ", lambda slot: f"(?:(?P<{slot[1]}_{place}>{'|'.join(COLORS)}) )?", text)
    return re.sub(r"\ban?\b", "an?", text)
