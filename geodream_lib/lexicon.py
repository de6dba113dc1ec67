"""Which words a small text encoder knows, so that a prompt it cannot understand is refused before minutes are spent."""

import difflib
import logging
import re
from pathlib import Path

from geodream_lib.errors import InputError
from geodream_lib.storage import read_json

logger = logging.getLogger(__name__)


def check_prompt(prompt: str, lexicon: Path | None) -> None:
    """Compare the prompt with the words of the lexicon file, `{"content": [...], "function": [...]}`.

    Without a lexicon (networks that learned from the whole web) any word will do.

    Content words are things, their parts and colours; one of them is enough. Other known words (articles, prepositions,
    "front view") say nothing about what is to be made. A prompt that is partly unknown is warned about and goes on.

    Raises:
        InputError: the prompt holds no word, or no content word of the lexicon; the message suggests some.
    """
    words = re.findall(r"[^\W\d_]+", prompt.lower())
    if not words:
        raise InputError('the prompt is empty; describe one object, for example "a red mushroom on a log"')
    if lexicon is None:
        return
    known = read_json(lexicon)
    if not isinstance(known.get("content"), list) or not isinstance(known.get("function"), list):
        raise InputError(f'{lexicon} is no lexicon; expected {{"content": [...], "function": [...]}}, restore the file')
    content = known["content"]
    unknown = [word for word in dict.fromkeys(words) if word not in content and word not in known["function"]]
    similar = {word: difflib.get_close_matches(word, content, n=2, cutoff=0.7) for word in unknown}
    hints = "".join(f"; for {word!r} perhaps {' or '.join(found)}" for word, found in similar.items() if found)
    if not any(word in content for word in words):
        raise InputError(
            f"{prompt!r} names no thing and no colour that the lab's small networks know{hints}; they know: "
            f"{', '.join(content)}"
        )
    if unknown:
        logger.warning(
            "the lab's networks will ignore or misread words they do not know: %s%s", ", ".join(unknown), hints
        )
