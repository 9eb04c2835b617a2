"""Conversion: the authors' checkpoint gives their captions and numbers; damaged and hostile folders are refused."""

import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from laconic.captioner.image_captioner import ImageCaptioner, stack_regions
from laconic.captioner.packing import load
from laconic.cli import main
from laconic.data.regions import FEATURES, RegionFolder
from laconic.decode.search import Decoding
from laconic.errors import FormatError
from laconic.exchange.smp import UP_DOWN_NAMES, convert, read_vocabulary
from laconic.models.layers import Features
from laconic.models.up_down import Recurrence, UpDown
from laconic.spec.captioners import UpDownConfig
from laconic.text import EOS, pad

IMAGES = ("184613", "384029", "391895", "522418", "57870")
CHECKPOINT = "model_best_pruned_sparse.pth"

# The published checkpoint


@pytest.fixture(scope="module")
def tiny3(shared: Path) -> ImageCaptioner:
    return convert(shared / "data/updown_tiny3")


@pytest.fixture(scope="module")
def regions(shared: Path) -> RegionFolder:
    return RegionFolder(shared / "data/coco_sample/bu", 2048)


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "golden/smp/a_updown_tiny3_decode.json").read_text())["xe"]["images"]


def batch(regions: RegionFolder, *images: str) -> Features:
    return stack_regions([regions[image] for image in images])


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_published_captions_ids_and_log_probabilities(beam, tiny3, regions, published):
    decoding = Decoding(beam, max_length=16, allow_unknown=True)
    together = tiny3.search(batch(regions, *IMAGES), decoding)
    for image, in_batch in zip(IMAGES, together, strict=True):
        (alone,) = tiny3.search(batch(regions, image), decoding)
        expected = published[image]["beams"][str(beam)]
        for found in (alone, in_batch):
            for mine, theirs in zip(found, expected, strict=True):
                length = theirs["length_with_eos"]
                assert [*mine.tokens, EOS][:length] == theirs["ids"][:length]
                assert tiny3.vocabulary.decode(mine.tokens) == theirs["caption"]
                assert mine.score == pytest.approx(theirs["score"], abs=1e-4)
                np.testing.assert_allclose(mine.log_probs, theirs["token_logprobs"][:length], atol=1e-4)


def test_published_teacher_forcing(tiny3, regions, published):
    for image in IMAGES:
        forced = published[image]["teacher_forcing"]
        tokens = torch.from_numpy(pad(forced["ids"]))[None]
        wanted = tokens[:, :, 1:][tokens[:, :, 1:] != 0]
        with torch.inference_mode():
            found = F.log_softmax(tiny3(batch(regions, image), tokens), -1).gather(1, wanted[:, None])
        np.testing.assert_allclose(found[:, 0], np.concatenate(forced["token_logprobs"]), atol=1e-4)


def test_published_gradients(tiny3, regions, shared):
    golden = json.loads((shared / "golden/smp/a_updown_tiny3_grads.json").read_text())
    tokens = torch.tensor(golden["seqs"]).view(2, 5, -1)
    logits = tiny3(batch(regions, *map(str, golden["images"])), tokens)
    loss = F.cross_entropy(logits, tokens[:, :, 1:][tokens[:, :, 1:] != 0])
    assert loss.item() == pytest.approx(golden["xe_loss"], rel=1e-5)
    parameters = dict(tiny3.decoder.named_parameters())
    grads = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    for name, theirs in golden["grads"].items():
        module, _, leaf = name.rpartition(".")
        ours = f"{UP_DOWN_NAMES[module]}.{leaf}"
        grad, kept = grads.pop(ours), parameters[ours] != 0
        if ours == "score.bias":  # a softmax does not see it: rounding only
            assert grad.abs().max() < 1e-7
            continue
        assert grad.norm().item() == pytest.approx(theirs["l2"], rel=1e-4), name
        assert grad.abs().max().item() == pytest.approx(theirs["max_abs"], rel=1e-4), name
        assert (grad * kept).norm().item() == pytest.approx(theirs["l2_on_kept_weights"], rel=1e-4), name
    assert not grads


def test_published_inner_values(tiny3, regions, published, shared):
    golden = np.load(shared / "golden/smp/a_updown_tiny3_xe_internals.npz")
    model = tiny3.decoder
    with torch.inference_mode():
        for image in IMAGES:
            features, ids = batch(regions, image), published[image]["beams"]["1"][0]["ids"]
            state = model.start(features)
            near = {"rtol": 0, "atol": 1e-5}
            np.testing.assert_allclose(F.relu(model.pooled(features.pooled))[0], golden[f"{image}_fc_embed"], **near)
            np.testing.assert_allclose(state.memory.values[0, :2], golden[f"{image}_att_embed_first2"], **near)
            np.testing.assert_allclose(state.memory.keys[0, :2], golden[f"{image}_ctx2att_first2"], **near)
            for t, (h, c) in enumerate(zip(golden[f"{image}_h"], golden[f"{image}_c"], strict=True)):
                values, order, state = model.step(state, np.array([2, *ids][t : t + 1]), 3000)
                if t < 2:
                    expected = golden[f"{image}_greedy_logprobs"][t]
                    np.testing.assert_allclose(values[0], expected[order[0]], rtol=0, atol=1e-4)
                if t == 0:
                    attend = Recurrence(model, state.memory, model._attention_inputs()).attend
                    weights = attend(state.attention.hidden)[0]
                    np.testing.assert_allclose(weights, golden[f"{image}_step0_attention"], **near)
                for i, found in enumerate((state.attention, state.language)):
                    np.testing.assert_allclose(found.hidden[0], h[i], **near)
                    np.testing.assert_allclose(found.cell[0], c[i], **near)


def test_published_tokenizer(shared):
    vocabulary = read_vocabulary(shared / "data/updown_tiny3/word.vocab")
    pieces = json.loads((shared / "golden/smp/a_tiny3_vocab.json").read_text())
    assert list(vocabulary.words) == [piece.removeprefix("\u2581") for piece in pieces]
    cases = json.loads((shared / "golden/smp/a_tokenizer_cases.json").read_text())
    for case in cases["encode"]:
        assert vocabulary.encode(case["text"], 99) == case["ids_bos_eos"], case
        assert vocabulary.decode(case["ids_bos_eos"]) == case["decoded"]
    for case in cases["decode"]:
        assert vocabulary.decode(case["ids"]) == case["text"], case


def test_from_checkpoint_to_captions_on_the_command_line(shared, published, tmp_path, capsys):
    packed = tmp_path / "tiny3.safetensors"
    assert main(["convert", str(shared / "data/updown_tiny3"), "-o", str(packed)]) == 0
    assert packed.stat().st_size < 310_000  # the checkpoint has 978,639
    capsys.readouterr()
    folder = shared / "data/coco_sample/bu" / FEATURES
    words = ["caption", str(packed), *(str(folder / f"{image}.npy") for image in IMAGES)]
    assert main([*words, "--beam", "5", "--max-length", "16", "--allow-unknown", "--json", "-"]) == 0
    found = {Path(row["image"]).stem: row["caption"] for row in json.loads(capsys.readouterr().out)}
    assert found == {image: published[image]["beams"]["5"][0]["caption"] for image in IMAGES}


# A made-up run


CONFIG = {
    "caption_model": "up_down_lstm",
    "tokenizer": "word",
    "logit_layers": 1,
    "pad_token_id": 0,
    "unk_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "att_feat_size": 6,
    "fc_feat_size": 6,
    "input_encoding_size": 4,
    "rnn_size": 5,
    "att_hid_size": 3,
    "drop_prob_lm": 0.1,
}
WORDS = ["dog", "Dog", "runs", "."]


def make_run(
    folder: Path, change: Callable[[dict[str, Any]], Any] = lambda state: state, **config: Any
) -> dict[str, torch.Tensor]:
    """A run of their code: small, random, half of each matrix zero; what is saved is `change` of its weights."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    pieces = ["<pad>", "<unk>", "<bos>", "<eos>", *("\u2581" + word for word in WORDS)]
    (folder / "word.vocab").write_text("".join(f"{piece}\t-1.5\n" for piece in pieces))
    torch.manual_seed(0)
    theirs = {ours: name for name, ours in UP_DOWN_NAMES.items()}
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in UpDown(UpDownConfig(8, 6, 6, word=4, hidden=5, attention=3)).state_dict().items():
        module, _, leaf = name.rpartition(".")
        if tensor.ndim > 1:
            tensor = (tensor * (torch.rand_like(tensor) < 0.5)).to_sparse()
        weights[f"{theirs[module]}.{leaf}"] = tensor
    torch.save(change(weights), folder / CHECKPOINT)
    return weights


@pytest.mark.parametrize("kind", ["sparse", "half", "dense"])
def test_sparse_half_and_dense_checkpoints_convert(kind, tmp_path):
    change = {
        "sparse": lambda state: state,
        "half": lambda state: {name: tensor.half() for name, tensor in state.items()},
        "dense": lambda state: {name: tensor.to_dense() for name, tensor in state.items()},
    }[kind]
    weights = make_run(tmp_path / "run", change)
    assert main(["convert", str(tmp_path / "run"), "-o", str(tmp_path / "x")]) == 0
    found = load(tmp_path / "x")
    assert found.vocabulary == read_vocabulary(tmp_path / "run/word.vocab")
    assert found.vocabulary.tokenization == "sentencepiece"
    assert found.decoder.config.dropout == 0.1
    for name, tensor in weights.items():
        module, _, leaf = name.rpartition(".")
        expected = (tensor.half() if kind == "half" else tensor).to_dense().float()
        assert torch.equal(found.decoder.state_dict()[f"{UP_DOWN_NAMES[module]}.{leaf}"], expected)


OUTPUT = "logit.weight"


def coo(indices: list[list[int]], shape: tuple[int, ...]) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor(indices), torch.ones(len(indices[0])), shape, check_invariants=False)


def csr(shape: tuple[int, int]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in beta, says torch
        return torch.ones(shape).to_sparse_csr()


def many(entries: int, shape: tuple[int, ...]) -> torch.Tensor:
    """One stored entry that claims to be many."""
    indices, values = torch.zeros(2, 1, dtype=torch.int64).expand(2, entries), torch.ones(1).expand(entries)
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False)


def nested() -> torch.Tensor:
    """Rows of unequal length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it a prototype
        return torch.nested.nested_tensor([torch.ones(5), torch.ones(4)])


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: {**s, OUTPUT: coo([[10**12], [0]], (8, 5))}, "index 1000000000000"),
        (lambda s: {**s, OUTPUT: coo([[0], [-5]], (8, 5))}, "negative index"),
        (lambda s: {**s, OUTPUT: coo([[0], [0]], (2**31, 2**31))}, r"output\.weight is .*\(8, 5\)"),
        (lambda s: {**s, OUTPUT: many(10**12, (8, 5))}, "'logit.weight' has more entries than places"),
        (lambda s: {**s, OUTPUT: torch.empty(8, 5, device="meta")}, "'logit.weight' is no tensor of numbers"),
        (lambda s: {**s, OUTPUT: nested()}, "'logit.weight' is no tensor of numbers"),
        (lambda s: {**s, OUTPUT: csr((8, 5))}, "only dense and COO are read"),
        (lambda s: {**s, OUTPUT: torch.ones(8, 5, dtype=torch.int64)}, "torch.int64"),
        (lambda s: {**s, OUTPUT: torch.full((8, 5), torch.nan)}, "output.weight holds values that are not"),
        (lambda s: {name: s[name] for name in s if name != OUTPUT}, "'output.weight' is missing"),
        (lambda s: {**s, "logit.weight_pruning_mask": torch.ones(8, 5)}, "weight_pruning_mask' is not part"),
        (lambda s: {**s, OUTPUT: [1.0]}, "something other than named tensors"),
        (lambda s: [torch.ones(1)], "something other than named tensors"),
        (lambda s: {**s, OUTPUT: Attack()}, "more than tensors"),
    ],
    ids=[
        "beyond",
        "before",
        "huge",
        "many",
        "meta",
        "nested",
        "csr",
        "int",
        "nan",
        "missing",
        "mask",
        "list",
        "no names",
        "code",
    ],
)
def test_hostile_weights_are_refused(change, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run", change)
    with pytest.raises(FormatError, match=rf"{CHECKPOINT}: .*{says}") as raised:
        convert(tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"caption_model": "relation_transformer"}, "caption_model is 'relation_transformer'"),
        ({"tokenizer": "unigram"}, "tokenizer is 'unigram'"),
        ({"logit_layers": 2}, "logit_layers is 2"),
        ({"eos_token_id": 4}, "eos_token_id is 4"),
        ({"rnn_size": "big"}, "rnn_size is 'big'"),
        ({"rnn_size": 0}, "hidden = 0"),
        ({"rnn_size": 2**70}, "empty"),
        ({"rnn_size": 4.5}, "hidden = 4.5"),
        ({"att_feat_size": 10**6, "fc_feat_size": 10**6}, "channels 1000000"),
        ({"fc_feat_size": 7}, "fc_feat_size"),
        ({"drop_prob_lm": 1.5}, "dropout = 1.5"),
        ({"caption_model": ["up_down_lstm"]}, "caption_model is"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be_converted(config, says, tmp_path):
    make_run(tmp_path / "run", **config)
    with pytest.raises(FormatError, match=rf"config\.json: .*{says}") as raised:
        convert(tmp_path / "run")
    assert "\n" not in str(raised.value)


def test_sizes_that_the_weights_do_not_have_are_refused(tmp_path):
    make_run(tmp_path / "run", rnn_size=10**3)
    with pytest.raises(FormatError, match=rf"{CHECKPOINT}: .* by its configuration"):
        convert(tmp_path / "run")


def test_sizes_beyond_all_memory_are_refused(tmp_path):
    make_run(tmp_path / "run", rnn_size=10**6)
    with pytest.raises(FormatError, match=r"config\.json: the captioner has .* weights, the limit is"):
        convert(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("config.json", b"{", "not JSON"),
        ("config.json", b"[]", "not a JSON object"),
        ("config.json", b"\xff", "cannot be read"),
        ("config.json", b"[" * 100_000, "not JSON"),
        ("config.json", None, "no such file"),
        ("word.vocab", b"a\t0\n", "another kind of vocabulary"),
        ("word.vocab", b"<pad>\n<unk>\n<bos>\n<eos>\nab\n", "'ab' is no whole word"),
        ("word.vocab", "<pad>\n<unk>\n<bos>\n<eos>\n\u2581a\n\u2581a\n".encode(), "'a' twice"),
        ("word.vocab", b"x" * (2**23 + 1), "larger than"),
        (CHECKPOINT, None, "no checkpoint in it"),
        (CHECKPOINT, b"PK\x03\x04", "not a sound PyTorch checkpoint"),
        (CHECKPOINT, pickle.dumps({"a": 1}), "not a sound PyTorch checkpoint"),
    ],
)
def test_damaged_files_are_named(name, data, says, tmp_path):
    make_run(tmp_path / "run")
    path = tmp_path / "run" / name
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(FormatError, match=says) as raised:
        convert(tmp_path / "run")
    assert str(path if name != CHECKPOINT or data else path.parent) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_one_flipped_bit_of_a_weight_is_noticed(tmp_path):
    make_run(tmp_path / "run")
    path = tmp_path / "run" / CHECKPOINT
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    data = bytearray(path.read_bytes())
    header = entry.header_offset
    lengths = (int.from_bytes(data[header + at : header + at + 2], "little") for at in (26, 28))
    data[header + 30 + sum(lengths) + entry.file_size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=rf"{CHECKPOINT}: .*the checksum of .* is wrong"):
        convert(tmp_path / "run")


# Captioning


def test_photos_and_region_features_are_told_apart(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    assert main(["convert", "run", "-o", "x"]) == 0
    capsys.readouterr()
    np.save("a.npy", np.ones((3, 6)))
    np.save("wide.npy", np.ones((3, 7)))
    (tmp_path / "empty").mkdir()
    Path("photo.jpg").write_bytes(b"\xff\xd8\xff")
    for words, says in (
        (["photo.jpg"], "photo.jpg: x captions region features (.npy, .npz, .safetensors), which this is not"),
        (["a.npy", "photo.jpg"], "photo.jpg: "),
        (["wide.npy"], "wide.npy: an array of shape (3, 7)"),
        (["empty"], "empty: holds no region features"),
        (["nowhere.npy"], "nowhere.npy: no such file"),
    ):
        assert main(["caption", "x", *words]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"laconic: {says}")
        assert said.err.count("\n") == 1
    assert main(["caption", "x", "wide.npy", "a.npy", "."]) == 0
    said = capsys.readouterr()
    assert [line.split(":")[0] for line in said.out.splitlines()] == ["a.npy", "a.npy"]
    assert said.err.count("wide.npy: ") == 2


def test_compact_is_calibrated_on_region_features(shared, tmp_path, capsys):
    folder = shared / "data/coco_sample/bu" / FEATURES
    words = ["convert", str(shared / "data/updown_tiny3"), "-o", str(tmp_path / "x")]
    assert main([*words, "--values", "compact", "--calibrate", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("calibrating on 5 images ...\n")
    assert (tmp_path / "x").stat().st_size < 70_000
    assert main([*words, "--values", "half", "--calibrate", str(folder)]) == 2
    assert "values half need none" in capsys.readouterr().err
