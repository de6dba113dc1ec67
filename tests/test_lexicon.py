"""A prompt is accepted when it names something the small networks know."""

import json
import logging

import pytest

from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.lab import CATEGORIES
from geodream_lib.lab.captions import LEXICON, lexicon
from geodream_lib.lexicon import check_prompt
from geodream_lib.storage import read_json, write_json

FILE = data_folder() / "prompts" / "lexicon.json"


def test_the_file_holds_the_words_of_the_caption_grammar():
    found = read_json(FILE)
    assert found == lexicon(), "regenerate it as data/prompts/README.md says"
    assert set(found["content"]) | set(found["function"]) == LEXICON
    assert not set(found["content"]) & set(found["function"])


@pytest.mark.parametrize("name", ["lab_prompts.json", "composition_prompts.json"])
def test_the_prompts_of_the_lab_are_known_entirely(caplog, name):
    for entry in json.loads(FILE.with_name(name).read_text()):
        check_prompt(entry["prompt"], FILE)
    assert not caplog.records


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_name_of_a_category_is_enough(category):
    check_prompt({"icecream": "ice cream"}.get(category, category), FILE)


@pytest.mark.parametrize("prompt", ["", "   ", "?!", "42"])
def test_an_empty_prompt_is_refused_with_an_example(prompt):
    with pytest.raises(InputError, match="prompt is empty; describe one object, for example"):
        check_prompt(prompt, FILE)


@pytest.mark.parametrize("prompt", ["a blorb", "front view", "a cute toy on a plain background", "гриб"])
def test_a_prompt_that_names_nothing_known_is_refused(prompt):
    with pytest.raises(InputError, match="names no thing and no colour .* they know: .*mushroom"):
        check_prompt(prompt, FILE)


def test_the_nearest_words_are_suggested():
    with pytest.raises(InputError, match="for 'mushrom' perhaps mushroom"):
        check_prompt("a mushrom", FILE)


def test_a_partly_known_prompt_goes_on_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        check_prompt("a red blorb wearing a scarff", FILE)
    assert (
        "blorb, scarff" in caplog.text and "for 'scarff' perhaps scarf" in caplog.text and "wearing" not in caplog.text
    )


def test_case_and_punctuation_do_not_matter(caplog):
    check_prompt("A RED mushroom, on a log!", FILE)
    assert not caplog.records


def test_another_file_is_no_lexicon(tmp_path):
    write_json(tmp_path / "lexicon.json", {"words": []})
    with pytest.raises(InputError, match="is no lexicon; expected"):
        check_prompt("a red mushroom", tmp_path / "lexicon.json")
