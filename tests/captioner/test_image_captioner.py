"""ImageCaptioner: from pixels to words, through one file and back; files that lie are refused."""

import copy
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from laconic import store
from laconic.captioner.image_captioner import ImageCaptioner, a_few_at_a_time, stack_regions
from laconic.captioner.packing import folded, load, save
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.data import preprocess, read_image
from laconic.data.regions import Regions
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, DataError, FormatError
from laconic.models.encoders import normalize
from laconic.models.layers import Conv, Features
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.spec.pixels import Normalization
from laconic.text import SPECIALS, Vocabulary

VOCABULARY = Vocabulary((*SPECIALS, *(f"word{i}" for i in range(26))))
CONFIG = ModelConfig(
    EncoderConfig("toy", size=32, stride=16, norm=True),
    DecoderConfig(options={"word": 8, "hidden": 12, "cell": "gru"}),
)


def make(config: ModelConfig = CONFIG) -> ImageCaptioner:
    torch.manual_seed(0)
    captioner = ImageCaptioner(config, VOCABULARY)
    captioner.train()
    with torch.no_grad():  # weights under which images matter
        for conv in captioner.encoder.modules():
            if isinstance(conv, Conv):
                conv.weight.mul_(conv.groups**0.5)
                if conv.norm is not None:
                    conv.norm.momentum = 0.5
        for _ in range(12):  # running statistics
            captioner.encode(torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8))
        for parameter in captioner.decoder.parameters():
            parameter.mul_(4)
        captioner.decoder.initial.weight.mul_(10)
    return captioner.eval()


@pytest.fixture
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(32, 32), (50, 20), (7, 90), (64, 64), (32, 33)]
    return [rng.integers(0, 50 * i + 20, (*shape, 3), dtype=np.uint8) for i, shape in enumerate(shapes)]


def test_normalize_equals_preprocess_of_the_data_layer():
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    square = np.ascontiguousarray(image[:24, :24])
    found = normalize(torch.from_numpy(square)[None], Normalization())
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found[0].numpy(), preprocess(square, 24))


def test_weights_beyond_a_limit_are_not_loaded(tmp_path):
    captioner = ImageCaptioner(replace(CONFIG, encoder=EncoderConfig("toy", size=32)), VOCABULARY)
    save(captioner, tmp_path / "file")
    total = sum(tensor.numel() for tensor in captioner.state_dict().values())
    assert load(tmp_path / "file", max_weights=total)
    with pytest.raises(FormatError, match="elements"):
        load(tmp_path / "file", max_weights=total - 1)


@pytest.mark.parametrize(
    ("image", "given"),
    [
        (None, "NoneType"),
        (np.zeros((8, 8), np.uint8), r"uint8 of shape \(8, 8\)"),
        (np.zeros((8, 8, 3)), "float64 of shape"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 of shape \(8, 8, 4\)"),
    ],
)
def test_what_is_no_photo_is_refused_and_not_left_out(image, given):
    captioner = ImageCaptioner(CONFIG, VOCABULARY)
    with pytest.raises(ConfigError, match=rf"an image is {given}.*give its path, or uint8"):
        captioner.caption([np.zeros((8, 8, 3), np.uint8), image])


def test_captions_are_words_of_the_vocabulary_and_do_not_depend_on_the_batch(images):
    captioner = make()
    captions = captioner.caption(images, Decoding(beam=2, max_length=6))
    assert len(captions) == len(images)
    assert len(set(captions)) > 1
    assert {word for caption in captions for word in caption.split()} <= set(VOCABULARY.words[4:])
    alone = captioner.caption(iter(images), Decoding(beam=2, max_length=6), batch=1)
    assert alone == captions
    assert captioner.caption([]) == []


def test_a_photo_may_be_given_by_its_path(images, tmp_path):
    captioner = make()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    decoding = Decoding(beam=2, max_length=6)
    assert captioner.caption([str(paths[0]), *paths[1:]], decoding) == captioner.caption(images, decoding)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 160, 3), np.uint8)).save(tmp_path / "a.jpg")
    as_in_training = read_image(tmp_path / "a.jpg", 32)
    assert as_in_training.shape == (50, 40, 3)
    assert torch.equal(captioner.batch([tmp_path / "a.jpg"]), captioner.batch([as_in_training]))
    with pytest.raises(DataError, match=r"nowhere\.jpg: cannot be opened"):
        captioner.caption([paths[0], "nowhere.jpg"])
    for one in ("a.jpg", tmp_path / "a.jpg"):
        with pytest.raises(ConfigError, match=r"give a list of images, \['.*a\.jpg'\]"):
            captioner.caption(one)


def test_regions_may_be_given_by_the_path_of_their_file(tmp_path):
    torch.manual_seed(0)
    options = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8}
    config = ModelConfig(EncoderConfig("regions", channels=5), DecoderConfig("object_relation", options))
    captioner = ImageCaptioner(config, VOCABULARY)
    found = Regions(np.ones((2, 5), np.float32), np.tile(np.array([0, 0, 1, 1], np.float32), (2, 1)))
    for folder, array in (("cocobu_att", found.features), ("cocobu_box_relative", found.boxes)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "1.npy", array)
    assert captioner.caption([tmp_path / "cocobu_att/1.npy"]) == captioner.caption([found])
    (tmp_path / "cocobu_box_relative/1.npy").unlink()
    with pytest.raises(DataError, match="where regions lie"):
        captioner.caption([tmp_path / "cocobu_att/1.npy"])


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("values", ["exact", "half"])
def test_a_file_gives_back_weights_words_and_captions(norm, values, images, tmp_path):
    config = replace(CONFIG, encoder=replace(CONFIG.encoder, norm=norm))
    captioner = make(config)
    expected = captioner.caption(images, Decoding(beam=3, max_length=6))
    before = {name: tensor.clone() for name, tensor in captioner.state_dict().items()}
    size = save(captioner, tmp_path / "tiny.safetensors", values, CIDEr=0.5)
    assert size == (tmp_path / "tiny.safetensors").stat().st_size
    found = load(tmp_path / "tiny.safetensors")
    assert not found.training
    assert found.vocabulary == VOCABULARY
    assert found.config == replace(config, encoder=replace(config.encoder, norm=False))
    tolerance = 1e-3 if values == "half" else 0.0
    for name, tensor in folded(captioner, exact=values == "exact").state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=tolerance, atol=tolerance)
    after = captioner.state_dict()  # it is as it was
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    if values == "exact":
        assert found.caption(images, Decoding(beam=3, max_length=6)) == expected
    assert store.load(tmp_path / "tiny.safetensors").config["facts"] == {"CIDEr": 0.5}


def test_teacher_forcing_takes_pixels_or_features():
    captioner = make()
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    tokens = torch.tensor([[[2, 5, 3]], [[2, 6, 3]]])
    with torch.inference_mode():
        torch.testing.assert_close(captioner(pixels, tokens), captioner(captioner.encode(pixels), tokens))


def test_a_captioner_of_regions_comes_back_from_its_file(images, tmp_path):
    torch.manual_seed(0)
    options = {"word": 4, "hidden": 6, "attention": 3}
    config = ModelConfig(EncoderConfig("regions", channels=5), DecoderConfig("up_down", options))
    captioner = ImageCaptioner(config, replace(VOCABULARY, tokenization="sentencepiece")).eval()
    with torch.no_grad():
        for parameter in captioner.parameters():
            parameter.mul_(4)
    rng = np.random.default_rng(0)
    regions = [Regions(rng.standard_normal((n, 5)).astype(np.float32)) for n in (3, 1, 4)]
    expected = captioner.caption(regions, Decoding(beam=2, max_length=6))
    assert len(set(expected)) > 1
    assert captioner.caption(regions, Decoding(beam=2, max_length=6), batch=1) == expected
    save(captioner, tmp_path / "x", "exact")
    found = load(tmp_path / "x")
    assert (found.config, found.vocabulary) == (config, captioner.vocabulary)
    assert found.caption(regions, Decoding(beam=2, max_length=6)) == expected
    for photos in (images, [*regions, images[0]]):
        with pytest.raises(ConfigError, match="reads region features"):
            captioner.caption(photos)
    with pytest.raises(ConfigError, match="reads photos"):
        make().caption(regions)
    with pytest.raises(ConfigError, match="not photos"):
        captioner.encode(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))


def test_a_captioner_that_reads_boxes_does_not_guess_them():
    """Nine regions are no 3 x 3 grid."""
    torch.manual_seed(0)
    options = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8}
    config = ModelConfig(EncoderConfig("regions", channels=5), DecoderConfig("object_relation", options))
    captioner = ImageCaptioner(config, VOCABULARY)
    regions = Regions(np.zeros((9, 5), np.float32))
    with pytest.raises(DataError, match=r"where regions lie: give cocobu_box_relative/<id>\.npy"):
        captioner.caption([regions])
    with pytest.raises(DataError, match="where regions lie"):
        captioner(captioner.batch([regions]), torch.tensor([[[2, 5, 3]]]))
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (9, 1))
    assert len(captioner.caption([replace(regions, boxes=boxes)])) == 1


def test_a_captioner_that_reads_no_boxes_takes_regions_with_and_without():
    torch.manual_seed(0)
    config = ModelConfig(EncoderConfig("regions", channels=5), DecoderConfig("up_down", {"word": 8, "hidden": 8}))
    captioner = ImageCaptioner(config, VOCABULARY)
    bare = Regions(np.ones((2, 5), np.float32))
    whole = replace(bare, boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (2, 1)))
    one, other = captioner.caption([bare, whole])
    assert one == other


def test_regions_are_padded_to_the_longest():
    boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)
    two, one = Regions(np.array([[1.0, 2], [3, 6]], np.float16), boxes), Regions(np.array([[5.0, 5]]), boxes[:1])
    features = stack_regions([two, one])
    assert features.grid.dtype == torch.float32
    assert features.grid.tolist() == [[[1, 2], [3, 6]], [[5, 5], [0, 0]]]
    assert features.pooled.tolist() == [[2, 4], [5, 5]]
    assert features.valid.tolist() == [[True, True], [True, False]]
    assert features.boxes.tolist() == [boxes.tolist(), [boxes[0].tolist(), [0, 0, 0, 0]]]
    assert stack_regions([two, two]).valid is None
    assert stack_regions([replace(image, boxes=None) for image in (two, one)]).boxes is None
    with pytest.raises(DataError, match="1 of 2 images have boxes"):
        stack_regions([two, replace(one, boxes=None)])


def test_loading_draws_no_weights(tmp_path, monkeypatch):
    """On the meta device a normal draw imports torch's compiler."""
    save(make(), tmp_path / "x")
    monkeypatch.setattr(torch.Tensor, "normal_", lambda *_: pytest.fail("drawn"))
    load(tmp_path / "x")


@pytest.mark.parametrize("size", [31, 2049, -1])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ConfigError, match=f"encoder size {size}"):
        ImageCaptioner(replace(CONFIG, encoder=replace(CONFIG.encoder, size=size)), VOCABULARY)


# Files that lie


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "good.safetensors"
    save(make(), path)
    return store.load(path)


def forge(packed, path, change, words=None):
    config = copy.deepcopy(packed.config)
    change(config)
    vocabulary = list(packed.vocabulary) if words is None else words
    store.save({name: packed[name] for name in packed}, path, config=config, vocabulary=vocabulary)


def decoder(**options):
    return lambda config: config["model"]["decoder"]["options"].update(options)


def encoder(**options):
    return lambda config: config["model"]["encoder"].update(options)


LIES = {
    "huge hidden": decoder(hidden=10**9),
    "hidden beyond 64 bits": decoder(hidden=2**70),
    "no hidden": decoder(hidden=0),
    "negative word": decoder(word=-5),
    "float hidden": decoder(hidden=12.5),
    "text": decoder(hidden="12"),
    "another cell": decoder(cell="lstm"),
    "unknown cell": decoder(cell="rnn"),
    "unknown option": decoder(layers=10**9),
    "dropout of text": decoder(dropout="x"),
    "options are a list": lambda config: config["model"]["decoder"].update(options=[1]),
    "unknown encoder": encoder(name="resnet"),
    "wider encoder": encoder(name="mobilenet_v1"),
    "encoder name is a list": encoder(name=["toy"]),
    "huge images": encoder(size=10**6),
    "stride of none": encoder(stride=0),
    "batch norm that is not there": encoder(norm=True),
    "unknown decoder": lambda config: config["model"]["decoder"].update(name="transformer"),
    "regions of none": encoder(name="regions", channels=0),
    "regions instead of an encoder": encoder(name="regions"),
    "unknown tokenization": lambda config: config.update(tokenization="bpe"),
    "tokenization is a list": lambda config: config.update(tokenization=["words"]),
    "no model": lambda config: config.pop("model"),
    "model is text": lambda config: config.update(model="tiny"),
    "model is a list": lambda config: config.update(model=[]),
    "another kind": lambda config: config.update(kind="classifier"),
    "no kind": lambda config: config.pop("kind"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_configuration_is_refused_quickly_and_cheaply(lie, packed, tmp_path):
    path = tmp_path / "lie.safetensors"
    forge(packed, path, LIES[lie])
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(FormatError, match=r"lie\.safetensors: ") as raised:
        load(path)
    assert time.perf_counter() - started < 2
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert "\n" not in str(raised.value)


WORDS = list(VOCABULARY.words)


@pytest.mark.parametrize(
    "words",
    [
        WORDS[:-1],
        [*WORDS, "more"],
        [],
        WORDS[4:],
        [*WORDS[:-1], WORDS[4]],
        [*WORDS[:-1], "two words"],
        [*WORDS[:-1], "\x1b[31m"],
        [*WORDS, *map(str, range(200_000))],
    ],
    ids=["short", "long", "none", "no specials", "twice", "spaces", "escape", "huge"],
)
def test_a_wrong_vocabulary_is_refused(words, packed, tmp_path):
    forge(packed, tmp_path / "lie.safetensors", lambda _: None, words)
    with pytest.raises(FormatError, match=r"lie\.safetensors: "):
        load(tmp_path / "lie.safetensors")


def test_weights_without_a_vocabulary_are_no_captioner(packed, tmp_path):
    weights = {name: packed[name] for name in packed}
    store.save(weights, tmp_path / "bare.safetensors", config=packed.config)
    with pytest.raises(FormatError, match=r"bare\.safetensors: holds weights but no image captioner"):
        load(tmp_path / "bare.safetensors")


def test_a_tensor_of_another_shape_is_refused(packed, tmp_path):
    weights = {name: packed[name] for name in packed}
    name = "decoder.key.weight"
    weights[name] = weights[name][:, :-1]
    path = tmp_path / "lie.safetensors"
    store.save(weights, path, config=packed.config, vocabulary=packed.vocabulary)
    with pytest.raises(FormatError, match=name):
        load(path)


# Search


def threads(captioner: ImageCaptioner, images: list[np.ndarray], decoding: Decoding) -> list[list[str]]:
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(captioner.caption, images, decoding, batch) for batch in (1, 2, 3, 5, 1, 2, 3, 5)]
        return [job.result() for job in jobs]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_any_number_of_threads_may_search(masked, training, images):
    captioner, decoding = make(), Decoding(beam=2, max_length=6)
    if masked:
        Pruner(captioner, Supermask(0.5, init=0.5), steps=10)
        with torch.no_grad():
            for name, gates in captioner.named_parameters():
                if name.endswith("gates"):
                    gates.copy_(torch.randn_like(gates) + 1)
    captioner.train(training)
    (alone,) = {tuple(captioner.caption(images, decoding)) for _ in range(2)}
    assert len(set(alone)) > 1
    assert {tuple(found) for found in threads(captioner, images, decoding)} == {alone}
    assert all(module.training == training for module in captioner.modules() if "Mask" not in type(module).__name__)
    if masked:  # and a step of training goes on as if nobody had searched
        captioner.train()(
            torch.zeros(2, 32, 32, 3, dtype=torch.uint8), torch.tensor([[[2, 5, 3]]] * 2)
        ).sum().backward()


@pytest.mark.parametrize(
    ("positions", "boxes", "size", "expected"),
    [(196, False, 224, [64]), (100, True, 224, [64]), (1024, True, 224, [1] * 64), (1024, False, 224, [4] * 16)],
)
def test_features_are_searched_a_few_at_a_time_where_they_are_large(positions, boxes, size, expected):
    where = torch.zeros(64, positions, 4) if boxes else None
    features = Features(torch.zeros(64, positions, 1), torch.zeros(64, 1), where)
    assert [len(some) for some in a_few_at_a_time(features, size)] == expected


def test_large_images_are_encoded_a_few_at_a_time():
    pixels = torch.zeros(7, 1, 1, 3, dtype=torch.uint8)
    assert [len(some) for some in a_few_at_a_time(pixels, 1024)] == [3, 3, 1]
    assert [len(some) for some in a_few_at_a_time(pixels, 224)] == [7]


def test_captions_do_not_depend_on_how_many_images_are_searched_at_once(images, monkeypatch):
    captioner, decoding = make(), Decoding(beam=2, max_length=6)
    together = captioner.caption(images, decoding)
    monkeypatch.setattr("laconic.captioner.image_captioner.ENCODED", 2)
    assert captioner.caption(images, decoding) == together
    assert captioner.search(torch.zeros(0, 32, 32, 3, dtype=torch.uint8), decoding) == []


def test_photos_are_in_memory_one_at_a_time_and_many_regions_in_small_batches(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((1000, 1000, 3), np.uint8)).save(tmp_path / "a.png")
    captioner = make()
    tracemalloc.start()
    try:
        captioner.batch([tmp_path / "a.png"] * 8)
        assert tracemalloc.get_traced_memory()[1] < 15e6  # one of 3 MB, and what reading it takes
    finally:
        tracemalloc.stop()
    options = {"word": 4, "hidden": 4, "attention": 4}
    reader = ImageCaptioner(
        ModelConfig(EncoderConfig("regions", channels=5), DecoderConfig("up_down", options)), VOCABULARY
    )
    monkeypatch.setattr("laconic.data.regions.MAX_PAIRS", 2 * 9)
    batch, seen = reader.batch, []
    monkeypatch.setattr(reader, "batch", lambda some: seen.append(len(some)) or batch(some))
    assert len(reader.caption([Regions(np.ones((3, 5), np.float32))] * 5)) == 5
    assert seen == [2, 2, 1]
