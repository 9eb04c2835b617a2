"""Published checkpoints: the converted model computes what the published program does, dense and pruned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from tests.exchange.originals import published as of
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerFast

from laconic import hf
from laconic.cli import main
from laconic.errors import FormatError
from laconic.exchange.originals.models import read_original
from laconic.hf.pixels import read_normalization
from laconic.hf.tokens import read_tokenizer

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
WORDS = torch.tensor([[38, 5, 7, 9, 39], [38, 6, 39, 0, 0]])
SLIM = {"head": 24, "hidden": 100}


def blip(kind: str, head: int = 64) -> of.Shapes:
    """The tensors of a BLIP for a task, with the momentum copies and queues that its training keeps."""
    width = 64 if kind == "vqa" else 128  # transformers has one width for both decoders' cross-attention there
    yield from of.vit("visual_encoder.", width, head=head)
    if kind in ("vqa", "retrieval", "nlvr2"):
        yield from of.bert("text_encoder.", width, head=head, twin=kind == "nlvr2")
    if kind in ("caption", "vqa"):
        yield from of.bert("text_decoder.bert.", width, head=head)
        yield from of.bert_head("text_decoder.cls.")
    if kind == "nlvr2":
        yield from of.linear("cls_head.0", 64, 64)
        yield from of.linear("cls_head.2", 2, 64)
    if kind == "retrieval":
        for copy in ("", "_m"):
            yield from of.linear(f"vision_proj{copy}", 32, 128)
            yield from of.linear(f"text_proj{copy}", 32, 64)
        yield from of.vit("visual_encoder_m.", head=head)
        yield from of.linear("itm_head", 2, 64)
        yield from (("temp", ()), ("image_queue", (32, 8)), ("text_queue", (32, 8)), ("ptr_queue", (1,)))


def write(state: of.State, path: Path, **beside: Any) -> Path:
    torch.save({"model": state, **beside}, path)
    return path


@pytest.mark.parametrize("slim", [{}, SLIM])
def test_deit(slim, tmp_path):
    state = of.random_state(of.deit(**slim))
    found = read_original(write(state, tmp_path / "x.pth", epoch=3, optimizer={}))
    assert type(found.net).__name__ == "ViTForImageClassification"
    assert not found.left_out
    near(found.net(pixel_values=IMAGES).logits, of.run_deit(state, IMAGES))


@pytest.mark.parametrize("slim", [{}, SLIM])
def test_segmenter(slim, tmp_path):
    state = of.random_state(of.segmenter(**slim))
    found = read_original(write(state, tmp_path / "x.pth"))
    assert found.left_out == ("encoder.head.weight", "encoder.head.bias")
    near(found.net(IMAGES), of.run_segmenter(state, IMAGES))


@pytest.mark.parametrize("slim", [{}, SLIM])
def test_clip(slim, tmp_path):
    state = of.random_state(of.clip(**slim))
    found = read_original(write(state, tmp_path / "x.pth"))
    with torch.no_grad():
        mine = found.net(pixel_values=IMAGES, input_ids=WORDS, attention_mask=(WORDS > 0).long())
    for embedding, theirs in zip((mine.image_embeds, mine.text_embeds), of.run_clip(state, IMAGES, WORDS), strict=True):
        near(embedding, torch.nn.functional.normalize(theirs, dim=-1))


@pytest.mark.parametrize("head", [64, 24])
def test_blip_for_captioning(head, tmp_path):
    state = of.tied(of.random_state(blip("caption", head)))
    found = read_original(write(state, tmp_path / "x.pth"))
    with torch.no_grad():
        seen = found.net.vision_model(IMAGES).last_hidden_state
        near(seen, of.run_vit(state, "visual_encoder.", IMAGES, 1e-6))
        mine = found.net.text_decoder(WORDS[:1], encoder_hidden_states=seen[:1]).logits
        near(mine, of.run_cross_decoder(state, WORDS[:1], seen[:1]))
    assert (found.words, found.first) == ("BERT", "[CLS]")


@pytest.mark.parametrize(
    ("kind", "name", "first"),
    [
        ("vqa", "BlipForQuestionAnswering", "[ENC]"),
        ("nlvr2", "BlipForVisualReasoning", "[ENC]"),
        ("retrieval", "BlipForImageTextRetrieval", "[CLS]"),
        ("caption", "BlipForConditionalGeneration", "[CLS]"),
    ],
)
@pytest.mark.parametrize("head", [64, 24])
def test_the_blips_are_told_apart_and_survive_a_folder(kind, name, first, head, tmp_path):
    state = of.tied(of.random_state(blip(kind, head)))
    found = read_original(write(state, tmp_path / "x.pth"))
    assert (type(found.net).__name__, found.first) == (name, first)
    hf.save_pretrained(found.net, tmp_path / "folder")
    again = hf.from_pretrained(tmp_path / "folder").state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in found.net.state_dict().items())
    if kind == "retrieval":
        assert {"temp", "image_queue", "vision_proj_m.bias", "visual_encoder_m.cls_token"} <= set(found.left_out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shapes", "parameters"),
    [  # upop.md, 4.1
        (lambda: of.deit(1000, width=384, layers=12, side=14, patch=16), 22.0507),
        (lambda: of.segmenter(150, width=384, layers=12, side=32, patch=16), 26.034),
    ],
)
def test_published_sizes(shapes: Callable[[], of.Shapes], parameters, tmp_path):
    found = read_original(write(of.random_state(shapes()), tmp_path / "x.pth"))
    assert sum(each.numel() for each in found.net.parameters()) / 1e6 == pytest.approx(parameters, abs=6e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("blocks.1.attn.qkv.bias"), "k_proj.bias' is missing"),
        (lambda state: state.pop("patch_embed.proj.weight"), "patch_embed.proj.weight is missing"),
        (lambda state: state.update({"dist_token": torch.zeros(1, 1, 128)}), "'dist_token' is no tensor of DeiT"),
        (lambda state: state.update({"head.bias": torch.zeros(7)}), "classifier.bias has the shape"),
        (lambda state: state.update({"norm.bias": torch.full((128,), torch.nan)}), "not finite"),
        (lambda state: state.update({"blocks.0.attn.qkv.weight": torch.zeros(391, 128)}), "not query, key and value"),
        (lambda state: state.update({"blocks.0.attn.qkv.weight": torch.zeros(387, 128)}), "has 129 rows"),
        (lambda state: state.update({"pos_embed": torch.zeros(1, 16, 128)}), "16 positions are not"),
        (lambda state: state.update({"patch_embed.proj.weight": torch.zeros(100, 3, 8, 8)}), "a width of 100"),
        (lambda state: state.pop("cls_token"), "under their published names"),
    ],
)
def test_what_does_not_fit_is_named(change, says, tmp_path):
    state = of.random_state(of.deit())
    change(state)
    path = write(state, tmp_path / "x.pth")
    with pytest.raises(FormatError, match=says) as raised:
        read_original(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_embeddings_and_output_that_differ_are_refused(tmp_path):
    path = write(of.random_state(blip("caption")), tmp_path / "x.pth")
    with pytest.raises(FormatError, match="shares its values"):
        read_original(path)


def near(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    assert mine.shape == theirs.shape
    assert (mine - theirs).abs().max() < 2e-5 * max(1, float(theirs.abs().max()))


# The command


def bert_folder(path: Path, count: int = 40) -> Path:
    """A tokenizer as bert-base-uncased has it, without BLIP's two tokens."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "runs"]
    words += [f"w{number}" for number in range(count - len(words))]
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(path)
    return path


@pytest.mark.parametrize(("kind", "first"), [("caption", "[CLS]"), ("vqa", "[ENC]")])
def test_a_checkpoint_becomes_a_folder_with_its_tokenizer(kind, first, tmp_path, capsys):
    state = of.tied(of.random_state(blip(kind)))
    out = tmp_path / "folder"
    words = bert_folder(tmp_path / "words")
    assert main(["convert", str(write(state, tmp_path / "x.pth")), "-o", str(out), "--tokenizer", str(words)]) == 0
    said = capsys.readouterr().out
    assert all(part in said for part in ("BLIP for", "M parameters", "position_ids"))
    tokenizer = read_tokenizer(out)
    assert tokenizer.convert_ids_to_tokens(tokenizer("a dog")["input_ids"]) == [first, "a", "dog", "[SEP]"]
    assert read_normalization(out).mean == pytest.approx((122.771, 116.746, 104.094), abs=1e-3)
    assert tokenizer.bos_token_id == hf.from_pretrained(out).config.text_config.bos_token_id == 40


def test_without_a_tokenizer_that_is_said_and_a_wrong_one_is_refused(tmp_path, capsys):
    path = write(of.tied(of.random_state(blip("caption"))), tmp_path / "x.pth")
    assert main(["convert", str(path), "-o", str(tmp_path / "out")]) == 0
    assert "no tokenizer: give --tokenizer" in capsys.readouterr().out
    words = bert_folder(tmp_path / "words", 30)
    assert main(["convert", str(path), "-o", str(tmp_path / "other"), "--tokenizer", str(words)]) == 2
    assert "has 32 tokens and BLIP for captioning 42" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    write(of.random_state(of.deit()), path)
    assert main(["convert", str(path), "-o", str(tmp_path / "other"), "--tokenizer", str(words)]) == 2
    assert "reads no text" in capsys.readouterr().err
