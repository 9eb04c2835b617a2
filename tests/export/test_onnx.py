"""ONNX files say what the engine says, word for word, and tell whoever opens them how to use them."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import laconic
from laconic.captioner.engine import Engine
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load, save
from laconic.captioner.ready_made import packed_file
from laconic.data.regions import Regions
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, MissingError, TrainingError
from laconic.export.table import Options, export
from laconic.models import encoders
from laconic.models.layers import Features
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
checking = pytest.importorskip("laconic.export.onnx.checking")
files = pytest.importorskip("laconic.export.onnx.files")
graphs = pytest.importorskip("laconic.export.onnx.graphs")
quantizing = pytest.importorskip("laconic.export.onnx.quantizing")

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_caption.py"
LENGTH = 9
PHOTOS, REGIONS = EncoderConfig("toy", 64, 16), EncoderConfig("regions", channels=12)
MULTIPLY = ("Conv", "MatMul", "Gemm")
FILES = [part + ending for ending in (".onnx", ".int8.onnx") for part in ("encoder", "step", "greedy")]

# captioner, encoder, options, and how much likelier the end is made, so that some captions end before others
CASES: dict[str, tuple[str, EncoderConfig, dict[str, Any], float]] = {
    "soft_attention on photos": ("soft_attention", PHOTOS, {"hidden": 72}, 0),
    "object_relation on regions": ("object_relation", REGIONS, {"layers": 1}, 1.5),
    "spelled on regions": ("spelled", REGIONS, {}, 2),
    "up_down on regions": ("up_down", REGIONS, {}, 1.75),
    "aoanet on photos": ("aoanet", PHOTOS, {"tied": True, "rank": 8}, 4),
    "gru on regions": ("soft_attention", REGIONS, {"cell": "gru", "tied": True}, 4),
    "soft_attention on regions": ("soft_attention", REGIONS, {}, 1),
    "up_down on photos": ("up_down", PHOTOS, {}, 0.5),
    "object_relation on photos": ("object_relation", PHOTOS, {"share_layers": (0, 0), "share_attention": "kv"}, 6),
    "aoanet on regions": ("aoanet", REGIONS, {}, 2),
}
QUICK = 3
EVERY = [pytest.param(name, marks=[pytest.mark.slow] * (place >= QUICK), id=name) for place, name in enumerate(CASES)]


@dataclass(frozen=True)
class Exported:
    """A packed captioner and the folder that it was exported into."""

    file: Path
    folder: Path
    lines: tuple[str, ...]

    def run(self, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        session = onnxruntime.InferenceSession(str(self.folder / name), providers=["CPUExecutionProvider"])
        outputs = [one.name for one in session.get_outputs()]
        return dict(zip(outputs, session.run(outputs, inputs), strict=True))

    def facts(self, name: str = "greedy.onnx") -> dict[str, str]:
        return {one.key: one.value for one in onnx.load(self.folder / name).metadata_props}


@pytest.fixture(scope="module")
def exported(
    random_captioner: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Exported]:
    """Exports a case, once."""
    done: dict[str, Exported] = {}

    def make(name: str) -> Exported:
        if name not in done:
            decoder, encoder, options, ends = CASES[name]
            place = tmp_path_factory.mktemp("onnx")
            captioner = spelled() if decoder == "spelled" else load(random_captioner(decoder, encoder, **options))
            with torch.no_grad():
                captioner.decoder.output.bias[1] += 9  # the unknown word, which is never said
                captioner.decoder.output.bias[3] += ends
            save(captioner, place / "captioner.safetensors", "exact")
            lines = export(
                place / "captioner.safetensors", place / "out", "onnx", Options(max_length=LENGTH, int8=True)
            )
            done[name] = Exported(place / "captioner.safetensors", place / "out", tuple(lines))
        return done[name]

    return make


def spelled() -> ImageCaptioner:
    """Its words have two digits, and ids that go on to no word are likely everywhere."""
    torch.manual_seed(4)
    words = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(37))), base=16)  # the last one is 2, 4
    captioner = ImageCaptioner(ModelConfig(REGIONS, DecoderConfig("up_down", {"hidden": 40, "word": 24})), words)
    with torch.no_grad():
        for weight in captioner.decoder.parameters():
            if weight.ndim > 1:
                weight.mul_(6)
        captioner.decoder.output.bias[4 + 2 :] += 3
    return captioner


def images_of(captioner: Engine, counts: list[int]) -> tuple[Any, dict[str, Any], Any]:
    """Images, of so many regions where it reads those, as the engine, ONNX files and PyTorch take them."""
    rng, config = np.random.default_rng(7), captioner.config.encoder
    if config.name != "regions":
        patches = 255 * rng.integers(0, 2, (len(counts), 4, 4, 3), np.uint8)  # of fine noise all pictures look alike
        pixels = patches.repeat(config.size // 4, 1).repeat(config.size // 4, 2)
        return captioner.batch(list(pixels)), {"pixels": pixels}, torch.from_numpy(pixels)
    most = max(counts)
    valid = np.arange(most) < np.array(counts)[:, None]
    features = rng.standard_normal((len(counts), most, config.channels), np.float32)
    boxes = np.sort(rng.random((len(counts), most, 2, 2), np.float32), 2).reshape(len(counts), most, 4)
    regions = [Regions(features[i, :n], boxes[i, :n] if captioner.needs_boxes else None) for i, n in enumerate(counts)]
    given = {"features": features, "valid": valid, **({"boxes": boxes} if captioner.needs_boxes else {})}
    grid = features * valid[..., None]
    pooled = grid.sum(1) / valid.sum(1, keepdims=True)
    parts = (grid, pooled.astype(np.float32), boxes if captioner.needs_boxes else None, valid)
    tensors = (None if part is None else torch.from_numpy(part) for part in parts)
    return captioner.batch(regions), given, Features(*tensors)  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [[5], [7, 7], [3, 9, 6, 1, 4] * 4], ids=["1", "2", "20"])
@pytest.mark.parametrize("name", EVERY)
def test_the_whole_search_says_what_the_engine_says(name, counts, exported):
    case = exported(name)
    engine = laconic.load(case.file)
    images, given, _ = images_of(engine, counts)
    expected = [best[0] for best in engine.search(images, Decoding(beam=1, max_length=LENGTH))]
    found = case.run("greedy.onnx", given)
    tokens_of_word = int(case.facts()["tokens_per_word"])
    assert found["tokens"].shape == found["log_probs"].shape == (len(counts), LENGTH * tokens_of_word)
    assert found["tokens"].dtype == np.int64
    for tokens, costs, best in zip(found["tokens"], found["log_probs"], expected, strict=True):
        said = [*best.tokens, *([3] if best.finished else [])]
        assert tokens.tolist() == said + [0] * (len(tokens) - len(said))
        np.testing.assert_allclose(costs[: len(said)], best.log_probs, atol=1e-4)
        assert not costs[len(said) :].any()
    if len(counts) == 20:  # or little could be told apart
        assert len({best.tokens for best in expected}) > 3
        assert not CASES[name][-1] or any(best.finished for best in expected)


def test_the_loop_ends_with_the_last_caption(exported):
    case = exported("object_relation on regions")
    _, given, _ = images_of(laconic.load(case.file), [4] * 30)
    model = onnx.load(case.folder / "greedy.onnx")
    model.graph.output.append(onnx.ValueInfoProto(name="search/all_said"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = []
    for image in range(28):
        some = {name: value[image : image + 2] for name, value in given.items()}
        tokens, said = session.run(["tokens", "search/all_said"], some)
        lengths = (tokens != 0).sum(1)
        assert len(said) == lengths.max()
        found.append(tuple(lengths))
    assert any(min(pair) < max(pair) < LENGTH for pair in found)


@pytest.mark.parametrize("name", EVERY)
def test_a_step_is_a_step_of_the_captioner(name, exported):
    """Rows are those of a beam search: some look at one image, and they change places."""
    case = exported(name)
    captioner = load(case.file)
    _, given, images = images_of(laconic.load(case.file), [4, 6])
    facts = json.loads(case.facts()["tensors"])
    state = captioner.decoder.start(captioner.features(images))
    tensors = case.run("encoder.onnx", given)
    assert list(tensors) == facts["of_images"] + facts["of_captions"]
    image, token = np.array([0, 1]), np.array([2, 2])
    for rows in ([0, 1, 1], [2, 0, 1, 0], [3, 1], [0]):
        expected, _, state = captioner.decoder.step(state, token, None)
        found = case.run("step.onnx", {"token": token, "image": image, **tensors})
        np.testing.assert_allclose(found["log_probs"], expected, atol=1e-4)
        tensors |= {kept: found[f"next_{kept}"][rows] for kept in facts["of_captions"]}
        state = captioner.decoder.select(state, np.array(rows))
        image, token = image[rows], np.arange(5, 5 + len(rows))


@pytest.mark.parametrize("name", EVERY)
def test_eight_bits_are_near_and_unsigned(name, exported):
    case = exported(name)
    _, given, _ = images_of(laconic.load(case.file), [4, 6, 2])
    exact, found = (case.run(file, given) for file in ("greedy.onnx", "greedy.int8.onnx"))
    np.testing.assert_allclose(found["log_probs"][:, 0], exact["log_probs"][:, 0], atol=0.15)
    for part in ("encoder", "step", "greedy"):
        whole, small = (onnx.load(case.folder / (part + ending)).graph for ending in (".onnx", ".int8.onnx"))
        kinds = {one.data_type for one in small.initializer}
        assert onnx.TensorProto.INT8 not in kinds
        assert (onnx.TensorProto.UINT8 in kinds) == bool(large_floats(whole))
        assert large_floats(small) == []
    assert large_floats(whole)


def large_floats(graph: onnx.GraphProto) -> list[str]:
    """Names of large matrices and kernels of float32."""
    bodies = [one.g for node in graph.node for one in node.attribute if one.name == "body"]
    read = {node.input[1] for part in (graph, *bodies) for node in part.node if node.op_type in MULTIPLY}
    return [
        one.name
        for one in graph.initializer
        if one.name in read and one.data_type == onnx.TensorProto.FLOAT and np.prod(one.dims) >= quantizing.LEAST
    ]


@pytest.mark.parametrize("name", EVERY)
def test_every_file_says_what_it_is(name, exported):
    case = exported(name)
    captioner = laconic.load(case.file)
    assert sorted(path.name for path in case.folder.iterdir()) == sorted([*FILES, "export.json", "vocabulary.json"])
    for file in FILES:
        onnx.checker.check_model(case.folder / file, full_check=True)
        facts = case.facts(file)
        assert facts["part"] == file.split(".")[0]
        assert facts["weights"] == ("uint8" if "int8" in file else "float32")
        assert facts["laconic_version"] == laconic.__version__
        assert (facts["captioner"], facts["encoder"]) == (captioner.config.decoder.name, captioner.config.encoder.name)
        assert tuple(json.loads(facts["vocabulary"])) == captioner.vocabulary.words
        assert json.loads(facts["special_ids"]) == {"pad": 0, "unk": 1, "bos": 2, "eos": 3}
        assert json.loads(facts["never_said"]) == [0, 1, 2]
        assert (facts["max_length"], facts["radix_base"]) == (str(LENGTH), str(captioner.vocabulary.base))
        if captioner.config.encoder.name == "regions":
            assert facts["region_channels"] == "12"
        else:
            assert facts["image_size"] == "64"
            assert json.loads(facts["normalization"]) == {"mean": [127.5] * 3, "scale": [127.5] * 3}
    assert Vocabulary.load(case.folder / "vocabulary.json") == captioner.vocabulary
    for file in FILES:
        assert f"{file}: {(case.folder / file).stat().st_size:,} bytes" in case.lines
    assert any(f"{case.file.name}: {case.file.stat().st_size:,} bytes; ONNX knows no" in line for line in case.lines)


def test_the_example_captions_photos_without_laconic(exported, tmp_path):
    case, rng = exported("soft_attention on photos"), np.random.default_rng(5)
    assert "import laconic" not in EXAMPLE.read_text()
    photos = [tmp_path / name for name in ("plain.png", "turned.jpg", "large.jpg")]
    for photo, size in zip(photos, [(70, 90), (120, 80), (700, 560)], strict=True):
        picture = Image.fromarray(255 * rng.integers(0, 2, (5, 4, 3), np.uint8)).resize(size, Image.Resampling.NEAREST)
        exif = Image.Exif()
        exif[0x0112] = 6 if "turned" in photo.name else 1  # on its side
        picture.save(photo, exif=exif)
    command = [sys.executable, str(EXAMPLE), str(case.folder / "greedy.onnx"), *map(str, photos)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = laconic.load(case.file).caption(photos, Decoding(beam=1, max_length=LENGTH))
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        [str(photo), caption] for photo, caption in zip(photos, expected, strict=True)
    ]
    assert len(set(expected)) > 1


def test_a_length_is_counted_in_words_and_checked(random_captioner, tmp_path, capfd):
    file = random_captioner("soft_attention", REGIONS)
    for length in (0, 501):
        with pytest.raises(ConfigError, match=f"max_length is {length}, must be from 1 to 500"):
            export(file, tmp_path / "out", "onnx", Options(max_length=length))
    export(file, tmp_path / "out", "onnx", Options(max_length=1))
    assert capfd.readouterr() == ("", "")  # exporters talk
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "greedy.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == ["images", 1]
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json"] * 2 + [".onnx"] * 3
    given = {"features": np.ones((2, 3, 12), np.float32), "valid": np.ones((2, 3), bool)}
    assert session.run(["tokens"], given)[0].shape == (2, 1)


@pytest.mark.parametrize("package", ["torch", "onnx", "onnxscript", "onnxruntime"])
def test_what_is_missing_is_named(package, random_captioner, tmp_path, monkeypatch):
    file, find = random_captioner("soft_attention", REGIONS), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(MissingError, match=rf"written with {package}: pip install 'laconic\[onnx\]'"):
        export(file, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_what_pytorch_cannot_follow_is_refused(random_captioner, tmp_path, monkeypatch):
    file = random_captioner("soft_attention", PHOTOS)
    captioner = load(file)
    captioner.encoder = Counting(captioner.encoder)
    monkeypatch.setattr(files, "load", lambda path: captioner)
    with pytest.raises(ConfigError, match=r"encoder toy cannot be exported by PyTorch .*images"):
        export(file, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


class Counting(nn.Module):
    """An encoder whose code depends on how many images there are."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: torch.Tensor) -> Features:
        return self.encoder(images if len(images) == 2 else 2 * images)


def test_a_search_that_says_other_words_is_refused(exported):
    case = exported("soft_attention on photos")
    model, captioner = onnx.load(case.folder / "greedy.onnx"), load(case.file)
    checking.check(model, captioner, LENGTH)
    (bias,) = [one for one in model.graph.initializer if one.name.endswith("output.bias")]
    bias.CopyFrom(graphs.constant(bias.name, np.linspace(0, 5, bias.dims[0], dtype=np.float32)))
    with pytest.raises(ConfigError, match="soft_attention on toy: as ONNX the log-probability of its word 1 is"):
        checking.check(model, captioner, LENGTH)
    with torch.no_grad():
        captioner.decoder.output.bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match="NaN"):
        checking.check(model, captioner, LENGTH)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["nanodet_plus_m", "picodet_s_416"])
def test_detectors_are_encoders(name, shared, tmp_path):
    torch.manual_seed(1)
    encoder = EncoderConfig(name, 256, 32, regions=6)
    words = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(40))))
    options = {"layers": 1, "width": 32, "feed_forward": 48, "heads": 4}
    captioner = ImageCaptioner(ModelConfig(encoder, DecoderConfig("object_relation", options)), words).eval()
    encoders.load_imagenet(captioner.encoder, shared / "data" / "encoders" / f"{name}.npz")
    save(captioner, tmp_path / "detector.safetensors", "exact")
    export(tmp_path / "detector.safetensors", tmp_path / "out", "onnx", Options(int8=True))
    found = Exported(tmp_path / "detector.safetensors", tmp_path / "out", ())
    photos = sorted((shared / "data" / "flickr8k" / "images").glob("*.jpg"))[:4]
    pixels = captioner.batch(photos)
    expected = captioner.search(pixels, Decoding(beam=1))
    for file in ("greedy.onnx", "greedy.int8.onnx"):
        said = found.run(file, {"pixels": pixels.numpy()})
        for costs, best in zip(said["log_probs"], expected, strict=True):
            np.testing.assert_allclose(costs[0], best[0].log_probs[0], atol=1e-3 if file == "greedy.onnx" else 0.1)


@pytest.mark.slow
def test_the_ready_made_captioner_says_the_same_in_eight_bits(shared, tmp_path):
    file = packed_file("flickr8k_tiny")
    lines = export(file, tmp_path / "out", "onnx", Options(int8=True))
    assert any(line.startswith("greedy.int8.onnx: 9,") for line in lines)
    engine, found = laconic.load(), Exported(file, tmp_path / "out", ())
    photos = sorted((shared / "data" / "flickr8k" / "images").glob("*.jpg"))[:12]
    images = engine.batch(photos)
    expected = [best[0].tokens for best in engine.search(images, Decoding(beam=1))]
    for name in ("greedy.onnx", "greedy.int8.onnx"):
        tokens = found.run(name, {"pixels": images.pixels})["tokens"]
        assert [tuple(i for i in said if i not in (0, 3)) for said in tokens.tolist()] == expected
