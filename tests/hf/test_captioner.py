"""Captioners as a pipeline and as a folder: laconic's own without torch, and a BLIP's."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import laconic
from laconic import hf
from laconic.data.images import from_pillow, read_image
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, DataError, FormatError, TrainingError
from laconic.hf.cards import CARD
from laconic.spec.model import EncoderConfig


@pytest.fixture(scope="module")
def file(random_captioner):
    return random_captioner("soft_attention", EncoderConfig("mobilenet_v1_025", 64, 16))


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(path)
    return paths


def test_it_answers_as_the_pipeline_does(file, photos):
    pipe = hf.Captioner.from_pretrained(file)
    expected = laconic.load(file).caption(photos)
    assert pipe(str(photos[0])) == [{"generated_text": expected[0]}]
    assert pipe(photos) == [[{"generated_text": text}] for text in expected]
    with Image.open(photos[1]) as image:
        assert pipe(image) == pipe(np.asarray(image)) == [{"generated_text": expected[1]}]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
def test_images_of_pillow_are_read_as_their_files_are(mode, file, tmp_path):
    levels = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    pixels = np.dstack([levels, levels.T, levels, levels.T])
    path = tmp_path / "image.png"
    if mode == "I;16":
        Image.fromarray(levels.astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(pixels).convert(mode).save(path)
    with Image.open(path) as image:
        assert image.mode == mode
        np.testing.assert_array_equal(from_pillow(image), read_image(path))
        assert hf.Captioner.from_pretrained(file)(image) == hf.Captioner.from_pretrained(file)(path)


def test_options_have_the_names_of_transformers(file, photos):
    pipe = hf.Captioner.from_pretrained(file)
    expected = laconic.load(file).caption(photos[:1], Decoding(beam=1, max_length=3))
    assert pipe(photos[0], max_new_tokens=3, generate_kwargs={"num_beams": 1}) == [{"generated_text": expected[0]}]
    with pytest.raises(ConfigError, match="no option 'temperature'; there are num_beams"):
        pipe(photos[0], generate_kwargs={"temperature": 0.5})


def test_what_is_no_photo_is_refused(file, tmp_path):
    pipe = hf.Captioner.from_pretrained(file)
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        pipe("https://example.org/photo.jpg")
    with pytest.raises(DataError, match="No such file"):
        pipe(tmp_path / "none.jpg")


def test_a_folder_holds_the_captioner_and_its_card(file, photos, tmp_path):
    folder = tmp_path / "tiny"
    pipe = hf.Captioner.from_pretrained(file)
    pipe.save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == file.read_bytes()
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LaconicCaptioner"]
    card = (folder / CARD).read_text()
    assert "pipeline_tag: image-to-text" in card
    assert f"{file.stat().st_size:,} bytes" in card
    (folder / CARD).write_text("filled in")
    again = hf.Captioner.from_pretrained(folder)
    again.save_pretrained(folder)
    assert (folder / CARD).read_text() == "filled in"
    assert again(photos) == pipe(photos)


def test_other_folders_are_left_alone(file, tmp_path):
    (tmp_path / "notes.txt").write_text("of the user")
    with pytest.raises(TrainingError, match=r"holds something else than a captioner \(notes.txt\)"):
        hf.Captioner.from_pretrained(file).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": 3}')
    with pytest.raises(FormatError, match=r"config\.json"):
        hf.Captioner.from_pretrained(tmp_path)


def test_it_needs_neither_torch_nor_transformers(file, photos):
    program = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from laconic import hf
print(hf.Captioner.from_pretrained({str(file)!r})({str(photos[0])!r})[0]["generated_text"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == laconic.load(file).caption(photos[:1])[0], done.stderr


# BLIP


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    """A folder of a small BLIP with random weights that reads pixels."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from laconic.hf.pixels import image_processor
    from laconic.spec.pixels import Normalization

    tokenizer = hf.make_tokenizer(["a dog runs through the grass", "two men play ball"], 60)
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {
        "vocab_size": len(tokenizer), "bos_token_id": 5, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3,
        "initializer_range": 1.0,
    }  # fmt: skip
    config = transformers.BlipConfig(
        text_config={**tower, **text}, vision_config={**tower, "image_size": 32, "patch_size": 16}
    )
    torch.manual_seed(0)
    net = transformers.BlipForConditionalGeneration(config).eval()
    folder = tmp_path_factory.mktemp("blip") / "blip"
    hf.save_pretrained(net, folder, tokenizer, image_processor(32, Normalization()))
    return folder


def test_a_blip_answers_in_the_same_shape(blip, photos, tmp_path):
    pipe = hf.Captioner.from_pretrained(blip)
    one, two = pipe(photos, max_new_tokens=6)
    assert pipe(photos[0], max_new_tokens=6) == one
    assert isinstance(two[0]["generated_text"], str)
    pipe.save_pretrained(tmp_path / "again")
    assert hf.Captioner.from_pretrained(tmp_path / "again")(photos, max_new_tokens=6) == [one, two]
    assert "BlipForConditionalGeneration" in (tmp_path / "again" / CARD).read_text()


def test_captions_of_a_blip_are_those_that_transformers_finds(blip, photos):
    torch = pytest.importorskip("torch")
    from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessorPil

    net = BlipForConditionalGeneration.from_pretrained(blip).eval()
    squares = [Image.open(photo).resize((32, 32), Image.Resampling.BILINEAR) for photo in photos]
    pixels = BlipImageProcessorPil.from_pretrained(blip)(squares, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        tokens = net.generate(pixels, num_beams=3, max_length=8, length_penalty=0.0, do_sample=False)
    expected = AutoTokenizer.from_pretrained(blip).batch_decode(tokens, skip_special_tokens=True)
    said = hf.Captioner.from_pretrained(blip)(photos, max_new_tokens=7)
    assert [text[0]["generated_text"] for text in said] == expected


def test_other_models_caption_nothing(blip, tmp_path):
    hf.save_pretrained(hf.from_pretrained(blip), tmp_path / "bare")
    with pytest.raises(FormatError, match="no image processor's file says how pixels are normalised"):
        hf.Captioner.from_pretrained(tmp_path / "bare")


def test_the_command_line_takes_its_folder(blip, photos, capsys):
    from laconic.cli import main

    assert main(["caption", str(blip), *map(str, photos), "--max-length", "6"]) == 0
    expected = [said[0]["generated_text"] for said in hf.Captioner.from_pretrained(blip)(photos, max_new_tokens=6)]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{photo}: {text}" for photo, text in zip(photos, expected, strict=True)]
