"""Captions of lab objects: a small grammar of true sentences in which anything but the name may be left out."""

import re

import numpy as np

from geodream_lib.errors import InputError
from geodream_lib.lab.backgrounds import PHRASES as BACKGROUND_PHRASES
from geodream_lib.lab.compositions import Composition
from geodream_lib.lab.materials import MATERIALS
from geodream_lib.lab.objects import LabObject
from geodream_lib.lab.shape import COLORS
from geodream_lib.lab.styles import BLACK_AND_WHITE, STYLES

# {a} is the primary colour, {b} the secondary one; a dropped colour leaves the rest of the sentence as it is
TEMPLATES: dict[str, tuple[str, ...]] = {
    "mushroom": (
        "a {a} mushroom on a {b} log",
        "a {a} mushroom growing on a {b} log",
        "a mushroom with a {a} cap on a {b} log",
        "a mushroom with a {a} cap growing on a {b} log",
    ),
    "icecream": ("a {a} ice cream in a {b} cone", "a {b} cone with {a} ice cream", "a {a} ice cream cone"),
    "corgi": ("a {a} corgi with a {b} collar", "a {a} corgi dog with a {b} collar", "a {a} corgi"),
    "astronaut": (
        "a {a} astronaut with a {b} backpack",
        "an astronaut in a {a} suit with a {b} backpack",
        "an astronaut in a {a} suit",
        "a {a} astronaut",
    ),
    "giraffe": ("a {a} giraffe with {b} spots", "a {a} giraffe with a long neck and {b} spots", "a {a} giraffe"),
    "rocket": ("a {a} rocket with {b} fins", "a {a} space rocket with {b} fins", "a {a} rocket"),
    "house": ("a {a} house with a {b} roof", "a house with {a} walls and a {b} roof", "a {a} house"),
    "robot": ("a {a} robot with {b} hands", "a {a} robot with {b} hands and feet", "a {a} robot"),
    "squirrel": (
        "a {a} squirrel with a {b} acorn",
        "a {a} squirrel holding a {b} acorn",
        "a {a} squirrel holding an acorn",
        "a {a} squirrel",
    ),
    "bust": ("a {a} bust on a {b} pedestal", "a {a} bust of a man on a {b} pedestal", "a {a} stone bust of a man"),
    "dinosaur": ("a {a} dinosaur with {b} spikes", "a {a} dinosaur with {b} spikes on its back", "a {a} dinosaur"),
    "axe": ("a {a} axe with a {b} handle", "an axe with a {a} head and a {b} handle", "a {a} axe"),
    "kitten": ("a {a} kitten with a {b} collar", "a {a} kitten cat with a {b} collar", "a {a} kitten"),
    "snowman": ("a {a} snowman with a {b} hat", "a {a} snowman wearing a {b} hat", "a {a} snowman"),
    "cake": ("a {a} cake with {b} icing", "a {a} birthday cake with {b} icing", "a {a} cake"),
    "teapot": ("a {a} teapot with a {b} lid", "a {a} tea pot with a {b} lid", "a {a} teapot"),
    "car": ("a {a} car with a {b} roof", "a {a} car"),
    "owl": ("a {a} owl with a {b} belly", "a {a} owl bird with a {b} belly", "a {a} owl"),
    "vase": ("a {a} vase with {b} stripes", "a {a} vase with {b} bands", "a {a} vase"),
    "tree": ("a {a} tree in a {b} pot", "a {a} pine tree in a {b} pot", "a {a} tree"),
    "horse": ("a {a} horse with a {b} saddle", "a {a} horse with a mane and a {b} saddle", "a {a} horse"),
    "guitar": ("a {a} guitar with a {b} neck", "a {a} acoustic guitar with a {b} neck", "a {a} guitar"),
    "penguin": ("a {a} penguin with a {b} belly", "a {a} penguin bird with a {b} belly", "a {a} penguin"),
    "turtle": ("a {a} turtle with a {b} shell", "a {a} turtle with a {b} shell on its back", "a {a} turtle"),
    "boat": ("a {a} boat with a {b} sail", "a {a} sailing boat with a {b} sail", "a {a} boat"),
    "airplane": ("a {a} airplane with {b} wings", "a {a} airplane with {b} wings and tail", "a {a} airplane"),
}
# how an attachment is added to a sentence; the colour of hats, scarves and flags is the secondary one
ATTACHMENTS: dict[str, str] = {
    "ladybug": "beside a ladybug",
    "cherry": "and a cherry on top",
    "hat": "wearing a {b} hat",
    "flag": "and a {b} flag",
    "scarf": "wearing a {b} scarf",
    "flames": "and flames",
    "chimney": "and a chimney",
    "antenna": "and an antenna",
    "crown": "wearing a crown",
    "beard": "with a beard",
    "candles": "and candles",
    "suitcase": "and a suitcase on top",
    "flowers": "and flowers",
    "star": "with a star on top",
    "balls": "with balls",
}
ADJECTIVES = ("toy", "cute", "little")
VIEWS: tuple[str, ...] = ("front view", "side view", "back view", "overhead view")
_RELATION_WORDS = {"riding": "riding", "playing": "playing", "on": "on", "beside": "beside"}
NOUNS = {"icecream": "ice cream"}
# known words that name neither a thing nor a part nor a colour nor a material
_FUNCTION_WORDS = frozenset(
    "a an and in its of on at the with top beside long growing holding sailing acoustic playing riding wearing toy "
    "cute little birthday space front side back overhead view plain gradient background grass snow beach night "
    "cartoon pixel art photo".split()
)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", re.sub(r"\{.\}", "", text))


LEXICON: frozenset[str] = frozenset(
    word
    for text in (
        *(template for templates in TEMPLATES.values() for template in templates),
        *ATTACHMENTS.values(),
        *ADJECTIVES,
        *VIEWS,
        *_RELATION_WORDS.values(),
        *BACKGROUND_PHRASES.values(),
        *MATERIALS,
        *STYLES,
        *COLORS,
    )
    for word in _words(text)
)
CONTENT_WORDS: frozenset[str] = LEXICON - _FUNCTION_WORDS


def lexicon() -> dict[str, list[str]]:
    """The content of `data/prompts/lexicon.json`, by which prompts are checked before a run: all words, sorted."""
    return {"content": sorted(CONTENT_WORDS), "function": sorted(LEXICON - CONTENT_WORDS)}


def caption(
    obj: LabObject,
    rng: np.random.Generator,
    view: str | None = None,
    background: str | None = None,
    style: str | None = None,
    material: str | None = None,
) -> str:
    """A true sentence about the object, as in "a toy red mushroom on a brown log, front view".

    Args:
        obj: what is described; its colours and attachments may be left out, its name may not.
        rng: chooses the sentence and what is left out.
        view: one of `VIEWS`, appended after a comma.
        background: such as "on a white background", appended after a comma.
        style: one of `STYLES`, appended after a comma; a black and white photo has no other colours to name.
        material: one of `MATERIALS`, named always and instead of the colours.

    Raises:
        InputError: if the view or background uses a word outside `LEXICON`.
    """
    return _finished(_part(obj, rng, style, material, brief=False), rng, view, background, style)


def composition_caption(
    scene: Composition,
    rng: np.random.Generator,
    view: str | None = None,
    background: str | None = None,
    style: str | None = None,
    materials: tuple[str | None, str | None] = (None, None),
) -> str:
    """A true sentence about two objects, as in "a brown corgi riding a red rocket, on grass".

    Args:
        scene: what is described; the names of its parts and their relation are always said, colours mostly.
        materials: of the subject and of the object of the sentence. The other arguments are those of `caption`.

    Raises:
        InputError: if the view or background uses a word outside `LEXICON`.
    """
    first, second = (
        _part(part, rng, style, material, brief=rng.random() < 0.88)
        for part, material in zip(scene.parts, materials, strict=True)
    )
    return _finished(f"{first} {_RELATION_WORDS[scene.relation]} {second}", rng, view, background, style)


def _part(obj: LabObject, rng: np.random.Generator, style: str | None, material: str | None, brief: bool) -> str:
    """What is said of one object; briefly it is its name and perhaps its primary colour."""
    templates = TEMPLATES[obj.category]
    text = templates[rng.integers(len(templates))]
    if brief or material is not None:
        text = f"a {{a}} {NOUNS.get(obj.category, obj.category)}"
    else:
        for attachment in obj.attachments:
            if rng.random() < 0.75:
                text = f"{text} {_joined(text, ATTACHMENTS[attachment])}"
    primary, secondary = obj.colors[0] if rng.random() < 0.85 else "", obj.colors[1] if rng.random() < 0.65 else ""
    if style == BLACK_AND_WHITE:
        primary = secondary = ""
    return text.replace("{a}", material or primary).replace("{b}", secondary)


def _finished(text: str, rng: np.random.Generator, view: str | None, background: str | None, style: str | None) -> str:
    """Adjectives, articles and what follows after commas."""
    if rng.random() < 0.2:
        text = re.sub(r"^an? ", f"a {ADJECTIVES[rng.integers(len(ADJECTIVES))]} ", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\ba (?=[aeiou])", "an ", re.sub(r"\ban ", "a ", text))
    for extra in (view, background, style):
        if extra is not None:
            unknown = sorted(set(_words(extra)) - LEXICON)
            if unknown:
                raise InputError(f"{extra!r} holds {unknown}, no word of the lab; use views such as {VIEWS[0]!r}")
            text = f"{text}, {extra}"
    return text


def _joined(text: str, phrase: str) -> str:
    """A part is added with "and" to a sentence that already has "with", and with "with" to one that does not."""
    return phrase if " with " in text or not phrase.startswith("and ") else "with " + phrase.removeprefix("and ")


def view_word(azimuth: float | int, elevation: float | int) -> str:
    """The view-dependent phrase for a camera direction in degrees; azimuth 0 looks at the front."""
    if elevation > 60:
        return "overhead view"
    turned = abs((azimuth + 180) % 360 - 180)
    if turned < 30:
        return "front view"
    return "back view" if turned > 140 else "side view"
