"""The command line: every verb end to end on tiny models, and every mistake as one line with exit code 2."""

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console

from laconic import data, metrics, store
from laconic.captioner.captioning import evaluate as evaluate_images
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load, save
from laconic.cli import VERBS, main
from laconic.cli import progress as progress_module
from laconic.cli.progress import Lines, watching
from laconic.cli.study import showing
from laconic.config import read_toml
from laconic.data import Example, Scenes, write_karpathy
from laconic.data.regions import Regions, write_regions
from laconic.decode.search import Decoding
from laconic.errors import LaconicWarning, MissingError
from laconic.machine.cores import cores
from laconic.metrics import METRICS, Metric
from laconic.recipes import kinds
from laconic.recipes import recipe as recipes
from laconic.recipes.processes import Outcome
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import Vocabulary
from laconic.training.evaluation import evaluate
from laconic.training.features import PixelCache
from laconic.training.given import Progress

RECIPE = """
[data]
name = "scenes"
min_count = 1
train = 64
val = 8
[encoder]
name = "toy"
size = 64
stride = 16
norm = true
[decoder.options]
word = 16
hidden = 32
[pruning]
method = "supermask"
where = "all"
options.sparsity = 0.8
[training]
epochs = 1
batch = 16
encoder_learning_rate = 0.001
precision = "float32"
mirror = false
"""

CAPTIONS = {1: ["a dog runs", "the dog is running"], 2: ["a red boat", "a boat on the sea"]}


@pytest.fixture(scope="module")
def captioner() -> ImageCaptioner:
    torch.manual_seed(0)
    config = ModelConfig(EncoderConfig("toy", 64, 16), DecoderConfig(options={"word": 8, "hidden": 16}))
    words = Vocabulary.build([c for some in CAPTIONS.values() for c in some], 1)
    return ImageCaptioner(config, words)


@pytest.fixture(scope="module")
def packed(captioner: ImageCaptioner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "tiny.safetensors"
    save(captioner, path, scores={"CIDEr": 0.5})
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def coco(folder: Path, results: dict[int, str]) -> list[str]:
    """Arguments of `score` for CAPTIONS and these results."""
    rows = [{"image_id": i, "caption": c} for i, some in CAPTIONS.items() for c in some]
    (folder / "refs.json").write_text(json.dumps({"annotations": rows}))
    (folder / "res.json").write_text(json.dumps([{"image_id": i, "caption": c} for i, c in results.items()]))
    return ["--references", str(folder / "refs.json"), "--results", str(folder / "res.json")]


# Help and start


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_ends_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith(f"  laconic {verb}")


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(f"\n  {verb} " in overview for verb in VERBS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("laconic 0.")
    assert main([]) == 2


HELP_NEEDS_TORCH = ("demo", "train")  # their options are those of a recipe
TORCH_FREE = (
    "inspect MODEL --json inspection.json",
    "--help",
    *(f"{verb} --help" for verb in VERBS if verb not in HELP_NEEDS_TORCH),
    "score --references refs.json --results res.json",
    "unpack MODEL -o dense.safetensors",
    "diff MODEL MODEL",
)


def test_what_needs_no_torch_never_imports_it(here: Path, packed: Path) -> None:
    coco(here, {1: "a dog", 2: "a boat"})
    lines = [[str(packed) if word == "MODEL" else word for word in line.split()] for line in TORCH_FREE]
    program = f"""
import sys
from laconic.__main__ import main
for words in {lines!r}:
    sys.argv[1:] = words
    assert main() == 0, words
    assert "torch" not in sys.modules, words
    assert words[0] != "inspect" or "--help" in words or "typeguard" not in sys.modules  # a quarter of its start
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, timeout=60)


def test_caption_starts_without_typeguard() -> None:
    program = """
import sys
from laconic.cli import VERBS
from laconic.cli.arguments import parse
options = parse("caption", VERBS["caption"], ["a.safetensors", "b.jpg", "c d.jpg", "--beam", "2"])
assert list(map(str, options.images)) == ["b.jpg", "c d.jpg"] and options.beam == 2 and options.folder is None
assert "typeguard" not in sys.modules  # a sixth of its start
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_process_fails_with_one_line_and_code_2(tmp_path: Path) -> None:
    program = "import sys; from laconic.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "inspect", "nowhere.safetensors"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("laconic: nowhere.safetensors: ")
    assert done.stderr.count("\n") == 1


# Mistakes


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evalute x", "did you mean 'evaluate'?"),
        ("inspect", "FILE"),
        ("inspect a b", "unrecognized options: b"),
        ("inspect MODEL --jsn -", "did you mean --json?"),
        ("inspect nowhere", "nowhere: "),
        ("inspect pickle.pt", "pickle.pt: "),
        ("inspect photo.png", "photo.png: "),
        ("inspect empty", "no model.safetensors in it"),
        ("inspect run", "unfinished run"),
        ("inspect gone", "its model.safetensors is gone; delete the folder"),
        ("inspect MODEL --json nowhere/x.json", "no folder nowhere"),
        ("inspect MODEL --json empty", "is a folder"),
        ("score --references list.json --results list.json", "list.json: expected"),
        ("score --references nowhere.json --results list.json", "nowhere.json: cannot be read"),
        ("score --references broken.json --results list.json", "broken.json: is not JSON"),
        ("score --references broken.json", "RES.json"),
        ("score --references a --results b --metrics BLEURT", "invalid choice 'BLEURT'"),
        ("pack nowhere -o x.safetensors", "nowhere: "),
        ("pack MODEL -o nowhere/x.safetensors", "no folder nowhere"),
        ("pack MODEL -o MODEL", "is the file to read"),
        ("unpack MODEL -o MODEL", "is the file to read"),
        ("unpack nowhere -o x", "nowhere: "),
        ("diff MODEL nowhere", "nowhere: "),
        ("diff MODEL", "B"),
        ("pack MODEL -o empty", "is a folder"),
        ("pack MODEL -o x --values tiny", "invalid choice 'tiny'"),
        ("pack run -o x", "unfinished run"),
        ("caption MODEL", "no image given"),
        ("caption MODEL empty", "empty: holds no image"),
        ("caption MODEL list.json", "list.json: not a JPEG"),
        ("caption pickle.pt photo.png", "pickle.pt: "),
        ("caption MODEL photo.png --beam 0", "beam is 0"),
        ("caption MODEL photo.png --beam two", "'two'"),
        ("evaluate MODEL --data flickr8k", "give its folder as root"),
        ("evaluate MODEL --data flickr9k", "'flickr9k'"),
        ("evaluate MODEL --data flickr8k --root empty", "dataset_flickr8k.json"),
        ("evaluate MODEL --data scenes --split dev", "no split 'dev'"),
        ("evaluate MODEL --data scenes --limit -1", "--limit -1"),
        ("evaluate MODEL --data folder --root pictures", "no image has captions"),
        ("evaluate MODEL --data scenes --length-penalty 11", "length_penalty is 11"),
        ("train nowhere.toml", "nowhere.toml: no such file"),
        ("train empty.toml", "empty.toml: cannot be read"),
        ("train broken.json", "broken.json: give the path of a recipe (.toml)"),
        ("train broken.toml", "broken.toml: not valid TOML"),
        ("train unknown.toml", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("train recipe.toml --training.epoch 3", "did you mean --training.epochs?"),
        ("train recipe.toml --training.epochs many", "'many'"),
        ("train recipe.toml --training.epochs", "--training.epochs"),
        ("train recipe.toml --pruning.method magic", "'magic'"),
        ("train recipe.toml --pruning.sparsity 0.5", "--pruning.sparsity is now --pruning.options.sparsity"),
        ("train recipe.toml --pruning.learning-rate=5", "now --pruning.options.learning_rate"),
        ("train recipe.toml --pruning.interval 5", "now --pruning.options.schedule.interval"),
        ("train --pruning.method gradual recipe.toml --pruning.options.init 2", "--pruning.options.init"),
        ("train recipe.toml --pruning.method lottery", "--pruning.options.ticket"),
        ("train recipe.toml --pruning.options.scope blind", "--pruning.options.scope"),
        ("train recipe.toml --threads -1", "--threads -1"),
        ("train recipe.toml --out run", "run: "),
        ("train recipe.toml --out list.json", "list.json: is a file"),
        ("train recipe.toml --decoder.options.cell rnn", "'rnn'"),
        ("train recipe.toml --data.name flickr8k --data.root empty", "dataset_flickr8k.json"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    here: Path, packed: Path, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    (here / "empty").mkdir()
    (here / "empty.toml").mkdir()
    for name in ("run", "gone"):
        (here / name).mkdir()
        (here / name / "recipe.json").write_text("{}")
    (here / "gone/result.json").write_text("{}")
    (here / "run/log.jsonl").touch()
    (here / "pictures").mkdir()
    picture(here / "pictures/a.png")
    picture(here / "photo.png")
    (here / "pickle.pt").write_bytes(pickle.dumps({"a": 1}))
    (here / "list.json").write_text("[]")
    (here / "broken.json").write_text('{"a": ')
    (here / "recipe.toml").write_text(RECIPE)
    (here / "broken.toml").write_text('{"a": ')
    (here / "unknown.toml").write_text("[training]\nepoch = 3\n")
    assert main([str(packed) if word == "MODEL" else word for word in line.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("laconic: ")
    assert said.err.count("\n") == 1
    assert says in said.err


def test_an_unwritable_place_is_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert main(["inspect", str(packed), "--json", "x.json"]) == 2
    assert capsys.readouterr().err == "laconic: x.json: No space left on device\n"


def test_a_bug_keeps_its_traceback(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "inspect", lambda path, gzip: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["inspect", str(packed)])


def test_too_little_memory_is_one_line(
    packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hungry(path: Path, gzip: bool) -> None:
        raise MemoryError

    monkeypatch.setattr(store, "inspect", hungry)
    assert main(["inspect", str(packed)]) == 2
    assert capsys.readouterr().err.startswith("laconic: too little memory is free for this")


# score


def test_score_writes_exactly_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {1: "a dog runs", 2: "a boat in the sea"}
    assert main(["score", *coco(tmp_path, results), "--json", "-"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert list(found) == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    assert found == dict(metrics.evaluate(CAPTIONS, results))
    assert "BLEU-1" in said.err


def test_score_of_some_images_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "scores.json"
    assert main(["score", *coco(tmp_path, {1: "a dog runs"}), "--json", str(target)]) == 0
    said = capsys.readouterr()
    assert "1 of 2 images" in said.err
    assert "CIDEr" in said.out
    with pytest.warns(LaconicWarning, match="single image"):
        expected = metrics.evaluate(CAPTIONS, {1: "a dog runs"}, subset=True)
    assert json.loads(target.read_text()) == dict(expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["refs.json", "res.json", "scores.json"]


def test_score_reads_karpathy_files_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    val = Scenes(3, split="val")
    path = write_karpathy(tmp_path, "x", {"train": Scenes(2), "val": val})
    rows = [{"image_id": 2 + i, "caption": val[i].captions[0]} for i in range(3)]
    (tmp_path / "res.json").write_text(json.dumps(rows))
    words = ["score", "--references", str(path), "--results", str(tmp_path / "res.json"), "--json", "-"]
    for split in ([], ["--split", "val"]):
        assert main([*words, *split]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["Bleu_1"] == pytest.approx(1)
        assert ("3 of 5 images" in said.err) == (not split)
    lines = [f"{i}.jpg#0\t一只狗在草地上奔跑" for i in range(3)]
    (tmp_path / "captions.txt").write_text("\n".join(lines))
    (tmp_path / "res.json").write_text(json.dumps([{"image_id": "1.jpg", "caption": "x"}]))
    words[2] = str(tmp_path / "captions.txt")
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "a whole sentence as one word" in said
    assert "laconic: note: CIDEr of a single image is 0 whatever its caption" in said


def test_a_missing_metric_is_named_and_never_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")  # no Java, whether or not pycocoevalcap is there
    words = ["score", *coco(tmp_path, {1: "a", 2: "b"}), "--metrics", "METEOR", "--json", "-"]
    assert main(words) == 2
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert "METEOR" not in found
    assert "install" in found["unavailable"]["METEOR"]
    assert "METEOR" in said.err
    assert "not available: " in said.err
    assert "not computed: METEOR; the other scores are complete" in said.err


def test_one_metric_of_several_that_is_missing_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: object) -> list[float]:
        raise MissingError("Gone: install it")

    monkeypatch.setitem(METRICS, "There", Metric(("There",), lambda *_: [0.5]))
    monkeypatch.setitem(METRICS, "Gone", Metric(("Gone",), gone))
    assert main(["score", *coco(tmp_path, {1: "a", 2: "b"}), "--metrics", "There", "Gone", "--json", "-"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["There"] == 0.5
    assert "not computed: Gone; the other scores are complete" in said.err


# pack, inspect, unpack, diff, caption


def test_pack_keeps_weights_and_facts(here: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(packed), "-o", "exact.safetensors", "--values", "exact"]) == 0
    inspection = store.inspect(here / "exact.safetensors")
    said = capsys.readouterr().out
    assert f"{inspection.file_bytes:,} bytes" in said
    assert f"{inspection.dense_bytes:,} bytes" in said
    assert inspection.file_bytes > packed.stat().st_size
    assert inspection.config["facts"] == {"scores": {"CIDEr": 0.5}}
    before, after = load(packed).state_dict(), load(here / "exact.safetensors").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_inspect_as_json_and_as_table(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(packed), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(store.inspect(packed, gzip=True).as_dict()))
    assert main(["inspect", str(packed)]) == 0
    table = capsys.readouterr().out
    assert all(tensor["name"] in table for tensor in found["tensors"])
    assert f"{found['non_zeros']:,}" in table
    assert all(f"{found[key]:,.0f} bytes" in table for key in ("bound_bytes", "coo_bytes", "gzip_bytes"))


def test_unpack_gives_the_weights_back(here: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unpack", str(packed), "-o", "dense.safetensors"]) == 0
    assert f"{(here / 'dense.safetensors').stat().st_size:,} bytes" in capsys.readouterr().out
    found = safetensors.torch.load_file(here / "dense.safetensors")
    wanted = load(packed).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_diff_tells_what_rounding_changed(here: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(packed), str(packed)]) == 0
    assert "0 are not" in capsys.readouterr().out
    assert main(["pack", str(packed), "-o", "compact.safetensors", "--values", "compact", "--calibrate", "0"]) == 0
    capsys.readouterr()
    assert main(["diff", str(packed), "compact.safetensors", "--json", "-"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["same"]
    assert 0.01 < found["error"] < 0.1
    assert main(["diff", str(packed), "compact.safetensors"]) == 1
    table = capsys.readouterr().out
    assert all(change["name"] in table for change in found["changed"])
    assert "one file is exact" not in table
    assert main(["pack", str(packed), "-o", "exact.safetensors", "--values", "exact"]) == 0
    main(["diff", "exact.safetensors", "compact.safetensors"])
    assert "one file is exact" in capsys.readouterr().out


def test_caption_goes_on_past_bad_images(
    here: Path, packed: Path, captioner: ImageCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "[more]").mkdir()  # not markup
    paths = [picture(here / "a.png", 1), picture(here / "[more]/b.jpg", 2)]
    (here / "cut.jpg").write_bytes(paths[1].read_bytes()[:300])
    words = ["caption", str(packed), "a.png", "cut.jpg", "nowhere.png", "[more]", "--beam", "2"]
    assert main(words) == 0
    said = capsys.readouterr()
    wanted = load(packed).caption(paths, Decoding(beam=2))
    assert said.out.splitlines() == [f"a.png: {wanted[0]}", f"[more]/b.jpg: {wanted[1]}"]
    assert [line.split(": ")[1] for line in said.err.splitlines()] == ["cut.jpg", "nowhere.png"]
    assert main([*words, "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == [
        {"image": "a.png", "caption": wanted[0]},
        {"image": "[more]/b.jpg", "caption": wanted[1]},
    ]


def test_caption_names_what_it_leaves_out_of_a_folder(
    here: Path, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "more").mkdir()
    for name, kind in {"1.jpg": "JPEG", "2.jfif": "JPEG", "x.tif": "TIFF"}.items():
        Image.new("RGB", (64, 64)).save(here / "more" / name, kind)
    (here / "more" / "notes.txt").touch()
    whole = (here / "more" / "1.jpg").read_bytes()
    (here / "more" / "cut.jpg").write_bytes(whole.removesuffix(b"\xff\xd9"))
    assert main(["caption", str(packed), "more"]) == 0
    said = capsys.readouterr()
    assert [line.split(": ")[0] for line in said.out.splitlines()] == [
        f"more/{name}" for name in ("1.jpg", "2.jfif", "cut.jpg", "x.tif")
    ]
    assert said.err.splitlines() == [
        "laconic: note: more/cut.jpg: has no end mark; its pixels are all there and are read",
        "laconic: more/notes.txt: not an image of a kind that is read",
    ]


# evaluate


def test_evaluate_lists_unreadable_images(here: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    examples = [Example(i, rng.integers(0, 256, (30, 30, 3), np.uint8), ("a dog runs", "a dog")) for i in range(4)]
    write_karpathy(here / "set", "flickr8k", {"train": examples[:1], "val": examples[1:]})
    (here / "set/images/val_000001.png").write_bytes(b"\x89PNG\r\n\x1a\ncut")
    words = ["evaluate", str(packed), "--root", "set", "--beam", "1", "--captions", "caps.json"]
    assert main([*words, "--json", "-"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [Path(image["name"]).name for image in found["skipped"]] == ["val_000001.png"]
    assert "1 images skipped" not in said.out
    assert "val_000001.png" in said.err
    captions = metrics.load_results(here / "caps.json")
    assert list(captions) == [1, 3]
    references = {image: ["a dog runs", "a dog"] for image in captions}
    assert found["scores"] == dict(metrics.evaluate(references, captions))
    assert found["quality"]["novel_share"] is not None


def test_reading_as_it_goes_equals_the_cache(captioner: ImageCaptioner) -> None:
    examples = [data.load("scenes", None, "val", count=40)[i] for i in range(40)]
    slow, captions = evaluate(captioner, PixelCache.read(examples, 64), examples, Decoding(beam=2))
    seen: list[tuple[int, int]] = []
    fast, streamed, skipped = evaluate_images(
        captioner, examples, Decoding(beam=2), progress=lambda *at: seen.append(at)
    )
    assert (streamed, dict(fast), skipped) == (captions, dict(slow), [])
    assert seen[-1] == (40, 40)


def test_caption_reads_regions_in_all_their_layouts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    options = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8}
    config = ModelConfig(EncoderConfig("regions", channels=6), DecoderConfig("object_relation", options))
    save(ImageCaptioner(config, Vocabulary.build(["a dog runs"], 1)), here / "reader.safetensors")
    boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)
    found = {str(i): Regions(np.random.default_rng(i).normal(size=(2, 6)).astype(np.float16), boxes) for i in range(3)}
    for image, regions in found.items():
        for folder, array in (("cocobu_att", regions.features), ("cocobu_box_relative", boxes)):
            (here / "bu" / folder).mkdir(parents=True, exist_ok=True)
            np.save(here / "bu" / folder / f"{image}.npy", array)
    write_regions(here / "all.safetensors", found.items())
    said = []
    for given in ("bu", "bu/cocobu_att", "all.safetensors"):
        assert main(["caption", "reader.safetensors", given]) == 0
        said.append([line.split(": ")[1] for line in capsys.readouterr().out.splitlines()])
    assert said[0] == said[1] == said[2]
    assert len(said[0]) == 3
    (here / "bu" / "cocobu_box_relative" / "1.npy").unlink()
    assert main(["caption", "reader.safetensors", "bu"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "1.npy: has no boxes" in captured.err


def test_evaluate_on_region_features(here: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    words = Vocabulary.build(["a dog runs"], 1)
    config = ModelConfig(EncoderConfig("regions", channels=6), DecoderConfig(options={"word": 8, "hidden": 16}))
    save(ImageCaptioner(config, words), here / "reader.safetensors")
    found = here / "regions" / "cocobu_att"
    found.mkdir(parents=True)
    rng = np.random.default_rng(0)
    examples = [Example(i, rng.integers(0, 256, (8, 8, 3), np.uint8), ("a dog runs", "a dog")) for i in range(4)]
    write_karpathy(here / "set", "flickr8k", {"train": examples[:1], "val": examples[1:]})
    for image in (1, 3):
        np.save(found / f"{image}.npy", rng.normal(size=(2, 6)).astype(np.float32))
    arguments = ["evaluate", "reader.safetensors", "--root", "set", "--json", "-"]
    assert main([*arguments, "--regions", "regions"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["scores"].keys() >= {"CIDEr"}
    assert [image["reason"] for image in scored["skipped"]] == ["2: no region features"]
    assert main(arguments) == 2
    assert "give --regions" in capsys.readouterr().err
    assert main(["evaluate", str(packed), "--root", "set", "--regions", "regions"]) == 2
    assert "reads photos" in capsys.readouterr().err


# train


def test_from_recipe_to_captions(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "small.toml").write_text(RECIPE)
    assert main(["train", "small.toml"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "training: 4 of 4",
        "sparsity",
        "scoring: 8 of 8",
        "CIDEr",
        "decoder non-zeros",
        "laconic pack",
    ):
        assert text in shown
    result = json.loads((here / "runs/small/result.json").read_text())
    assert f"{result['non_zeros']['decoder']:,}" in shown
    assert main(["train", "small.toml"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["train", "small.toml", "--training.epochs", "2"]) == 2
    assert "training.epochs: 1 -> 2" in capsys.readouterr().err
    next_commands = [line.split()[1:] for line in shown.splitlines() if line.startswith("  laconic")]
    pack, score, caption = next_commands
    assert main(pack) == 0
    assert main(["inspect", pack[-1]]) == 0
    assert main([*score, "--limit", "8", "--json", "scores.json"]) == 0
    # The run scored float32 weights, the packed file holds float16: close, not equal.
    scores = json.loads((here / "scores.json").read_text())["scores"]
    assert scores["Bleu_1"] == pytest.approx(result["scores"]["Bleu_1"], abs=0.1)
    picture(here / caption[-1])
    capsys.readouterr()
    assert main(caption) == 0
    assert capsys.readouterr().out.startswith("photo.jpg: ")
    (here / "runs/small/model.safetensors").unlink()
    assert main(["train", "small.toml"]) == 0
    assert "model.safetensors is gone; to have it again delete the folder" in capsys.readouterr().out
    assert main(pack) == 2
    assert "its model.safetensors is gone" in capsys.readouterr().err


def watch_run(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[recipes.Recipe, Path, Path, bool]]:
    calls: list[tuple[recipes.Recipe, Path, Path, bool]] = []

    def run_recipe(recipe: recipes.Recipe, folder: Path, cache: Path, *, resume: bool, watch: Any) -> Any:
        calls.append((recipe, folder, cache, resume))
        if isinstance(answer, BaseException):
            raise answer
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").touch()
        return answer

    monkeypatch.setattr(kinds, "run_recipe", run_recipe)
    return calls


RESULT = {
    "scores": {"CIDEr": 0.441, "Bleu_4": 0.2, "ROUGE_L": 0.4},
    "non_zeros": {"encoder": 9, "encoder_weights": 9, "decoder": 1, "decoder_weights": 20},
    "bytes": 1234,
    "seconds": {"features": 3.0, "training": 90.0, "scoring": 1.0},
    "skipped": ["[x].jpg: truncated"],
}


def test_every_key_of_a_recipe_is_an_option(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "small.toml").write_text(RECIPE)
    calls = watch_run(monkeypatch, RESULT)
    words = "train --training.epochs 7 small.toml --decoder.options.cell gru --data.root r -o o --resume"
    assert main(words.split()) == 0
    recipe, folder, cache, resume = calls[0]
    assert (recipe.training.epochs, recipe.data.root, recipe.pruning.options) == (7, "r", {"sparsity": 0.8})
    # Defaults stay unsaid, so that the run is the same one whoever starts it.
    assert recipe.decoder.options == {"word": 16, "hidden": 32, "cell": "gru"}
    assert (folder, cache, resume) == (Path("o"), Path("cache"), True)
    shown = capsys.readouterr().out
    for text in ("44.10", "1 of 20 (5.0%)", "1,234 bytes", "1.5 min", "[x].jpg: truncated", "--root r"):
        assert text in shown
    assert main(["train", "small.toml"]) == 0
    assert calls[1][0] == read_toml(here / "small.toml", recipes.Recipe)


PRUNED = '[pruning]\nmethod = "supermask"\noptions.sparsity = 0.9\n'
NO_WEIGHT = {"sparsity": 0.9, "weight": None}


@pytest.mark.parametrize(
    ("recipe", "words", "key", "value"),
    [
        (PRUNED, "--pruning.method gradual", "pruning.method", "gradual"),
        (PRUNED, "--pruning.method gradual", "pruning.options", {"sparsity": 0.9}),
        (PRUNED, "--pruning.method none", "pruning.options", {}),
        (PRUNED, "--pruning.options.sparsity 0.8", "pruning.options", {"sparsity": 0.8}),
        (PRUNED, "--pruning.options.weight 3", "pruning.options", {"sparsity": 0.9, "weight": 3.0}),
        (PRUNED + "options.weight = 3.0", "--pruning.options.weight None", "pruning.options", NO_WEIGHT),
        (PRUNED + "options.init = 5.0", "", "pruning.options", {"sparsity": 0.9, "init": 5.0}),
        (
            PRUNED,
            "--pruning.method fisher --pruning.options.schedule.start 4",
            "pruning.options",
            {"sparsity": 0.9, "schedule": {"start": 4}},
        ),
        ("", "--pruning.method snip --pruning.options.sparsity=0.5", "pruning.options", {"sparsity": 0.5}),
        ('[decoder]\nname = "object_relation"', "--decoder.options.layers 1", "decoder.options", {"layers": 1}),
        *(
            ("", words, "decoder.options", {"attention_dropout": 0.3})
            for words in ("--decoder.options.attention_dropout 0.3", "--decoder.options.attention-dropout=0.3")
        ),
        (RECIPE, "--decoder.name up_down --decoder.options.dropout 0.2", "decoder.options", {"dropout": 0.2}),
        ('initial = "x.safetensors"', "--objective scst", "objective", "scst"),
        (
            "[training]\nencoder_learning_rate = 1e-3",
            "--training.learning-rate 0",
            "training.learning_rate",
            0.0,
        ),
    ],
)
def test_options_are_judged_with_the_recipe_that_they_change(
    here: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, words: str, key: str, value: object
) -> None:
    (here / "own.toml").write_text(recipe)
    calls = watch_run(monkeypatch, RESULT)
    assert main(["train", "own.toml", *words.split()]) == 0
    table, name = key.split(".") if "." in key else (None, key)
    found = calls[0][0] if table is None else getattr(calls[0][0], table)
    assert getattr(found, name) == value
    assert main(["train", *words.split(), "--out", "other.toml", "own.toml"]) == 0
    assert calls[1][0] == calls[0][0]


def test_ctrl_c_says_how_to_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "my recipe.toml").write_text(RECIPE)
    watch_run(monkeypatch, KeyboardInterrupt())
    assert main(["train", "my recipe.toml", "--threads", "1"]) == 130
    assert capsys.readouterr().err == (
        "laconic: stopped; continue with: laconic train 'my recipe.toml' --threads 1 --resume\n"
    )


def test_more_threads_than_cores_are_not_started(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "small.toml").write_text(RECIPE)
    watch_run(monkeypatch, RESULT)
    settled: list[int] = []
    monkeypatch.setattr("laconic.machine.process.settle_in", settled.append)
    assert main(["train", "small.toml", "--threads", "100000"]) == 0
    said = capsys.readouterr().err
    assert said == f"laconic: --threads 100000: there are {cores()} processor cores, so {cores()} threads are used\n"
    assert main(["train", "small.toml", "--threads", str(cores())]) == 0
    assert settled == [cores(), cores()]
    assert not capsys.readouterr().err
    for verb in ("study", "train"):
        assert main([verb, "small.toml", "--threads", "-1"]) == 2
        assert "--threads -1: give 0 for all" in capsys.readouterr().err


# How a run is shown


AT = Progress(20, 40, 3, 2.31, {"lr": 5e-4, "sparsity": 0.421, "penalty": 1.0, "CIDEr": 0.412}, ("CIDEr", 41.2))
FACTS = "epoch 3  loss 2.310  sparsity 42.1%  rate 5.0e-04  CIDEr 41.2"


def test_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with watching(Console(file=out, width=120)) as watch:
        for done in range(1, 101):
            watch.stage("val features", done, 100)
        watch.progress(AT)
        watch.say("[bold]said")
    assert out.getvalue().splitlines() == [
        "val features: 1 of 100",
        "val features: 100 of 100",
        f"training: 20 of 40  {FACTS}",
        "[bold]said",
    ]


def test_lines_tell_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    out, clock = io.StringIO(), iter((0.0, 60.0, 61.0, 6000.0))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    lines = Lines(Console(file=out, width=120))
    for done in (10, 40, 45, 100):
        lines.show("a  training", done, 100, "loss 2")
    assert out.getvalue().splitlines() == [
        "a  training: 10 of 100  loss 2",
        "a  training: 40 of 100  loss 2  2 min left",
        "a  training: 100 of 100  loss 2",
    ]


def test_a_study_shows_its_runs_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with showing(Console(file=out, width=120), 2) as watch:
        watch.stage("a", "val features", 1, 100)
        watch.progress("a", AT)
        watch.ended(Outcome("a", "failed", reason="broken"))
    assert out.getvalue().splitlines() == [
        "a  val features: 1 of 100",
        f"a  training: 20 of 40  {FACTS}",
        "1 of 2  a  failed: broken",
    ]


def test_bars_in_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    with watching(console) as watch:
        watch.stage("val features", 50, 100)
        watch.progress(AT)
    shown = out.getvalue()
    assert "val features" in shown
    assert " 50%" in shown
    assert FACTS in shown
    assert max(map(len, shown.splitlines())) <= 90  # 80 and control codes: nothing wraps
