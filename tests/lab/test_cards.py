"""The cards' sample sheets: held-out objects, and truth beside what the networks make of it."""

from dataclasses import replace

from geodream_lib.data import data_folder
from geodream_lib.lab import HELD_OUT, cards
from geodream_lib.presets import load_preset

LAB = data_folder() / "lab"


def test_objects_are_held_out():
    objects = [cards.held_out_object(index)[0] for index in (*range(10), *cards.ZERO123_OBJECTS)]
    assert all((obj.category, obj.colors[0]) in HELD_OUT for obj in objects)


def test_sheets_hold_truth_and_prediction_side_by_side():
    preset = load_preset("lab")
    few = replace(preset.views, steps=1, reference_steps=1)
    sheets = (
        (cards.autoencoder_rows(LAB / "text_to_image", count=2), 2),
        (cards.text_to_image_rows(LAB / "text_to_image", few), 3),
        (cards.zero123_rows(LAB / "zero123", few), 2 * len(cards.ZERO123_OBJECTS)),
        (
            cards.cost_volume_rows(LAB / "cost_volume" / "model.safetensors", preset.volume),
            2 * len(cards.VOLUME_OBJECTS),
        ),
    )
    for rows, count in sheets:
        assert len(rows) == count and len({images.shape for images in rows.values()}) == 1
    decoded, truth = sheets[0][0]["decoded"], sheets[0][0]["true"]
    assert (decoded - truth).square().mean() < 1e-2
