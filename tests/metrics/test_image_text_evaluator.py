"""The image-text evaluator is CLIP: its folder, its preparation of images and its features are transformers'."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from geodream_lib.errors import InputError
from geodream_lib.lab.networks import make_tokenizer
from geodream_lib.metrics.clip_images import DEVIATION, Preparation, read_preparation, write_preparation
from geodream_lib.metrics.image_text import ImageText

try:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
except ImportError:
    from transformers import CLIPImageProcessor as Processor

SIZE = 24


@pytest.fixture
def network(tmp_path) -> ImageText:
    torch.manual_seed(0)
    tokenizer = make_tokenizer(["a", "red", "blue", "log", "on", "mushroom"], tmp_path / "words")
    common = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 12, "eos_token_id": tokenizer.eos_token_id}
    image = {"image_size": SIZE, "patch_size": 8}
    config = CLIPConfig(text_config=common | text, vision_config=common | image, projection_dim=10)
    return ImageText(CLIPModel(config).eval(), tokenizer, Preparation(SIZE, (SIZE, SIZE)))


def pictures(*shape: int) -> torch.Tensor:
    """Smooth ones, as renders are: noise of single pixels would test the last bits of a resize."""
    coarse = torch.rand(shape[0], 3, 6, 6, generator=torch.Generator().manual_seed(1))
    fine = torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic", align_corners=False)
    return (fine.clamp(0, 1) * 255).round().permute(0, 2, 3, 1) / 255


def test_a_saved_folder_is_read_back_and_is_transformers_own(network, tmp_path):
    network.save(tmp_path / "clip")
    again, images = ImageText.load(tmp_path / "clip"), pictures(3, 40, 40)
    assert torch.equal(again.features(images), network.features(images))
    torch.testing.assert_close(again.embed_texts(["a red log"]), network.embed_texts(["a red log"]))
    clip = CLIPModel.from_pretrained(tmp_path / "clip")
    with torch.no_grad():
        pixels = network.preparation(images)
        found = clip(input_ids=torch.tensor([[1, network.tokenizer.eos_token_id]]), pixel_values=pixels)
    torch.testing.assert_close(found.image_embeds, again.embed_images(images))


def test_embeddings_have_unit_length_and_features_do_not(network):
    images = pictures(2, SIZE, SIZE)
    features = network.features(images)
    torch.testing.assert_close(network.embed_images(images), features / features.norm(dim=-1, keepdim=True))
    assert (features.norm(dim=-1) - 1).abs().min() > 0.01
    torch.testing.assert_close(network.embed_texts(["a log", "a red log"]).norm(dim=-1), torch.ones(2))
    for nothing in (lambda: network.embed_texts([]), lambda: network.embed_images(images[:0])):
        with pytest.raises(InputError, match="expected one at least"):
            nothing()


def test_what_fills_up_a_short_text_is_not_read(network):
    texts = ["a log", "a red mushroom on a blue log"]
    together = network.embed_texts(texts)
    alone = torch.cat([network.embed_texts([text]) for text in texts])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(30, 45), (64, 64), (20, 33), (24, 24)], ids=str)
def test_images_are_prepared_as_by_the_library(shape, tmp_path):
    write_preparation(tmp_path, Preparation(SIZE, (SIZE, SIZE)))
    image = pictures(1, *shape)[0]
    expected = Processor.from_pretrained(tmp_path)(
        Image.fromarray(np.uint8(image.numpy() * 255 + 0.5)), return_tensors="pt"
    ).pixel_values
    found = read_preparation(tmp_path)(image[None])
    # The library rounds to bytes between the two directions of a resize.
    assert ((found - expected).abs() * torch.tensor(DEVIATION)[:, None, None]).max() < 0.01


def test_either_spelling_of_sizes_is_read_and_another_preparation_is_not(tmp_path):
    write_preparation(tmp_path, Preparation(224, (224, 224)))
    file = tmp_path / "preprocessor_config.json"
    known, expected = json.loads(file.read_text()), read_preparation(tmp_path)
    file.write_text(json.dumps(known | {"size": 224, "crop_size": 224}))
    assert read_preparation(tmp_path) == expected == Preparation(224, (224, 224))
    for change in ({"resample": 2}, {"do_normalize": False}, {"size": None}, {"image_mean": [0.5]}):
        file.write_text(json.dumps(known | change))
        with pytest.raises(InputError, match="is not CLIP's"):
            read_preparation(tmp_path)


def test_what_is_missing_or_foreign_is_named(network, tmp_path):
    with pytest.raises(InputError, match=r"no CLIP at .* \(no config.json\)"):
        ImageText.load(tmp_path / "nothing")
    folder = tmp_path / "clip"
    network.save(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(InputError, match="a model of type 'siglip'; expected CLIPModel"):
        ImageText.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="cannot load"):
        ImageText.load(folder)
    network.save(folder)
    for file in ("vocab.json", "tokenizer.json"):
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(InputError, match="no vocab.json or tokenizer.json"):
        ImageText.load(folder)
