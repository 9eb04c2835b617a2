"""Questions and pairs on generated scenes: what is learned, how answers are ranked, options, and whole recipes."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

pytest.importorskip("transformers")

from laconic import hf
from laconic.errors import ConfigError, DataError
from laconic.recipes.slimming import run_slim
from laconic.tasks import nlvr2, vqa
from laconic.tasks.settings import ModelRecipe, Search, Slim, SlimData, SlimRecipe, Stage, TaskOptions, Tower
from laconic.training.settings import Training

TOWER = Tower(width=16, layers=2, heads=2)
MODEL = ModelRecipe(image=32, patch=16, vision=TOWER, text=TOWER, vocabulary=200)
DATA = SlimData(name="scenes", train=12, val=6)
TRAINING = Training(epochs=1, batch=4, precision="float32", mirror=False, warmup=1)


def recipe(task: Any, **options: Any) -> SlimRecipe:
    return SlimRecipe(task, MODEL, DATA, training=TRAINING, options=TaskOptions(**options))


def answering(folder: Path, **options: Any) -> vqa.QuestionAnswering:
    return vqa.open_task(recipe("vqa", **options), folder, lambda *_: None)


def reasoning(folder: Path) -> nlvr2.VisualReasoning:
    return nlvr2.open_task(recipe("nlvr2"), folder, lambda *_: None)


def falls(task: Any, batch: Any) -> bool:
    """Whether the loss of one batch falls while it is learned."""
    learner = task.learner(task.net, None, 0.5, 1.0).train()
    optimizer = torch.optim.AdamW(learner.parameters(), 5e-3)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        losses.append(learner(batch))
        losses[-1].backward()
        optimizer.step()
    return bool(losses[-1] < 0.6 * losses[0])


# Question answering


def test_questions_in_a_batch_hear_what_each_would_alone(tmp_path: Path) -> None:
    task = answering(tmp_path)
    net = task.net.eval()
    batch = task.train.batch(task.train.rows[:3])
    together = task.outputs(net, batch)
    alone = []
    for at in range(len(batch.words)):
        length, said = int(batch.mask[at].sum()), batch.answers[at]
        said = said[said != task.net.config.text_config.pad_token_id]
        image = int(batch.image_of[at])
        pixels = batch.pixels[image : image + 1]
        seen = net.vision_model(pixels).last_hidden_state
        heard = net.text_encoder(batch.words[at : at + 1, :length], encoder_hidden_states=seen).last_hidden_state
        alone.append(net.text_decoder(said[None, :-1], encoder_hidden_states=heard).logits[0])
    assert len(batch.words) > batch.count == 3
    assert len({int(length) for length in batch.mask.sum(1)}) > 1
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_answers_weigh_as_many_people_as_gave_them(vqav2: Path, tmp_path: Path) -> None:
    task = vqa.open_task(real(recipe("vqa"), "vqav2", vqav2), tmp_path, lambda *_: None)
    batch = task.train.batch(task.train.rows[:1])
    assert sorted(batch.weights.tolist()) == pytest.approx([0.3, 0.7])
    outputs = task.outputs(task.net.eval(), batch)
    said = batch.answers[:, 1:]
    spoken = said != 0
    each = F.cross_entropy(outputs, said[spoken], reduction="none").split(spoken.sum(1).tolist())
    expected = sum(weight * loss.sum() for weight, loss in zip(batch.weights, each, strict=True))
    torch.testing.assert_close(task.loss(outputs, batch), expected)


def test_ranking_all_candidates_finds_the_answer_of_the_highest_likelihood(tmp_path: Path, monkeypatch: Any) -> None:
    task = answering(tmp_path)
    net = task.net.eval()
    for parameter in net.parameters():  # a fresh net finds all answers alike
        parameter.data *= 3
    batch = task.val.batch(task.val.rows[:2])
    answers = task._listed
    with torch.no_grad():
        heard = vqa._ask(net, batch)
        expected = []
        for at in range(len(batch.words)):
            likelihoods = []
            for said in answers:
                said = said[said != 0]
                logits = net.text_decoder(
                    said[None, :-1],
                    encoder_hidden_states=heard[at : at + 1],
                    encoder_attention_mask=batch.mask[at : at + 1],
                ).logits[0]
                likelihoods.append(float(logits.log_softmax(-1)[torch.arange(len(said) - 1), said[1:]].sum()))
            expected.append(int(np.argmax(likelihoods)))
        monkeypatch.setattr(vqa, "RANKED", 7)
        assert task._rank(net, batch, answers).tolist() == expected
        task._candidates = 1
        first = net.text_decoder(
            answers[:1, :1].expand(len(batch.words), 1),
            encoder_hidden_states=heard,
            encoder_attention_mask=batch.mask,
        ).logits[:, 0]
        assert task._rank(net, batch, answers).tolist() == first[:, answers[:, 1]].argmax(-1).tolist()


def test_answers_are_listed_by_frequency_in_training(tmp_path: Path) -> None:
    task = answering(tmp_path)
    counts = Counter(vqa.normalise(text) for item in task.train.items for text in item.answers)
    assert Counter(task._answers) == Counter(list(counts))
    assert [counts[text] for text in task._answers] == sorted(counts.values(), reverse=True)


def test_what_is_ranked_is_spelled_as_it_was_learned(tmp_path: Path) -> None:
    task = answering(tmp_path)
    learned = {tuple(row) for row in task.train.batch(task.train.rows).answers.tolist()}
    assert {tuple(row) for row in task._listed.tolist()} == learned
    assert not any(task.train.words.tokenizer.unk_token_id in row for row in learned)


def test_accuracy_rises_on_what_is_learned(tmp_path: Path) -> None:
    task = answering(tmp_path)
    task.val = replace(task.train, questions=task.train.questions.first(2))
    with torch.no_grad():
        before = task.validate(task.net.eval())["accuracy"]
    assert falls(task, task.val.batch(task.val.rows))
    with torch.no_grad():
        assert before < task.validate(task.net.eval())["accuracy"] == 100


def test_the_baseline_knows_the_question_and_no_image(tmp_path: Path) -> None:
    task = answering(tmp_path)
    task.val = task.train
    worded: dict[str, Counter[str]] = {}
    for item in task.train.items:
        worded.setdefault(item.text, Counter()).update(item.answers)
    right = sum(max(counts.values()) for counts in worded.values())
    assert task.baselines()["no image"] == pytest.approx(100 * right / len(task.train.items))
    assert task.baselines()["one answer"] <= task.baselines()["no image"]


# Reasoning over two images


def test_two_images_encoded_once_give_each_sentence_the_decision_of_the_whole_net(tmp_path: Path) -> None:
    task = reasoning(tmp_path)
    net = task.net.eval()
    batch = task.train.batch(task.train.rows[:3])
    together = task.outputs(net, batch)
    assert len(together) == len(batch.words) > batch.count == 3
    for at, pair in enumerate(batch.pair_of.tolist()):
        length = int(batch.mask[at].sum())
        alone = net(batch.words[at : at + 1, :length], None, batch.pixels[pair : pair + 1])
        torch.testing.assert_close(alone[0], together[at], atol=1e-5, rtol=1e-4)


def test_left_and_right_are_told_apart(tmp_path: Path) -> None:
    task = reasoning(tmp_path)
    batch = task.train.batch(task.train.rows[:1])
    pair = task.train.about[0][0]
    left = task.train.images.batch(np.array([pair.left]))[0]
    torch.testing.assert_close(batch.pixels[0, 0], left)
    swapped = replace(batch, pixels=batch.pixels.flip(1))
    assert not torch.allclose(task.outputs(task.net.eval(), batch), task.outputs(task.net.eval(), swapped), atol=1e-7)


def test_a_model_of_one_image_twice_the_same_reads_what_it_read(tmp_path: Path) -> None:
    """Both twins look as the one did, and what they see is averaged: of equal images that is what the one saw."""
    single = answering(tmp_path).net.eval()
    twins = hf.with_two_images(single).eval()
    words, mask = torch.tensor([[2, 9, 11, 3], [2, 7, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        seen = single.vision_model(torch.rand(2, 3, 32, 32)).last_hidden_state
        alone = single.text_encoder(words, attention_mask=mask, encoder_hidden_states=seen).last_hidden_state
        both = twins.text_encoder(words, attention_mask=mask, encoder_hidden_states=torch.stack([seen, seen], 1))
    torch.testing.assert_close(both.last_hidden_state[0], alone[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(both.last_hidden_state[1, :3], alone[1, :3], rtol=0, atol=1e-5)


def test_pairs_begin_with_a_model_that_answers_questions_but_not_with_a_slim_one(tmp_path: Path) -> None:
    for name, method in (("dense", "none"), ("slim", "upop")):
        asked = replace(recipe("vqa"), slim=Slim(method), search=Search(epochs=1))
        run_slim(asked, tmp_path / name, tmp_path / "cache")
    begun = replace(recipe("nlvr2"), model=replace(MODEL, initial=str(tmp_path / "dense/model")))
    task = nlvr2.open_task(begun, tmp_path / "cache", lambda *_: None)
    source = hf.from_pretrained(tmp_path / "dense/model")
    assert type(task.net).__name__ == "BlipForVisualReasoning"
    assert torch.equal(task.net.vision_model.embeddings.class_embedding, source.vision_model.embeddings.class_embedding)
    with pytest.raises(ConfigError, match="slim model"):
        nlvr2.open_task(replace(begun, model=replace(MODEL, initial=str(tmp_path / "slim/model"))), tmp_path, print)


def test_pairs_are_learned(tmp_path: Path) -> None:
    task = reasoning(tmp_path)
    assert falls(task, task.train.batch(task.train.rows[:3]))


def test_the_baseline_of_pairs_knows_the_sentence_alone(tmp_path: Path) -> None:
    task = reasoning(tmp_path)
    task.val = task.train
    labels: dict[str, Counter[int]] = {}
    for pair in task.train.pairs.items:
        labels.setdefault(pair.sentence, Counter())[pair.label] += 1
    right = sum(max(counts.values()) for counts in labels.values())
    assert task.baselines() == {"chance": 50.0, "no image": pytest.approx(100 * right / len(task.train.items))}


# Both


@pytest.mark.parametrize("task", ["vqa", "nlvr2"])
def test_a_recipe_from_fresh_to_slim_and_on_from_its_folder(tmp_path: Path, task: str) -> None:
    asked = replace(recipe(task), dense=Stage(1), search=Search(1), slim=Slim("upop", 0.5))
    result = run_slim(asked, tmp_path / "run", tmp_path / "cache")
    parameters = result["parameters"]
    assert parameters["dense"] - parameters["now"] == pytest.approx(parameters["prunable"] / 2, rel=0.05)
    assert result["macs"]["now"] < result["macs"]["dense"]
    assert set(result["scores"]) == {"accuracy"}
    assert "no image" in result["baselines"]
    folder = tmp_path / "run/model"
    assert json.loads((folder / "config.json").read_text())["slim_dims"]
    again = replace(recipe(task), model=replace(MODEL, initial=str(folder)))
    module = {"vqa": vqa, "nlvr2": nlvr2}[task]
    opened: Any = module.open_task(again, tmp_path / "cache", lambda *_: None)
    with torch.no_grad():
        assert opened.validate(opened.net.eval()) == result["scores"]


@pytest.mark.parametrize(
    ("task", "changes", "says"),
    [
        ("vqa", {"options": TaskOptions(mixup=0.2)}, "options.mixup"),
        ("vqa", {"options": TaskOptions(candidates=0)}, "options.candidates = 0; give at least 1"),
        ("nlvr2", {"options": TaskOptions(candidates=5)}, "options.candidates"),
        ("vqa", {"data": SlimData("flickr8k")}, "choose one of vqav2, scenes"),
        ("nlvr2", {"data": SlimData("flickr8k")}, "choose one of nlvr2, scenes"),
        ("vqa", {"data": SlimData("vqav2")}, "give its folder as data.root"),
        ("nlvr2", {"data": SlimData("nlvr2")}, "give its folder as data.root"),
        ("vqa", {"model": replace(MODEL, kind="vit")}, "model.kind = 'vit'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, task: str, changes: dict[str, Any], says: str) -> None:
    module = {"vqa": vqa, "nlvr2": nlvr2}[task]
    with pytest.raises(ConfigError, match=says):
        module.open_task(replace(recipe(task), **changes), tmp_path, lambda *_: None)


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    task = reasoning(tmp_path)
    task.save(task.net, tmp_path / "net")
    model = replace(MODEL, initial=str(tmp_path / "net"))
    with pytest.raises(
        ConfigError, match="holds a BlipForVisualReasoning; the task 'vqa' needs a BlipForQuestionAnswering"
    ):
        vqa.open_task(replace(recipe("vqa"), model=model), tmp_path, lambda *_: None)


# Published layouts


def real(asked: SlimRecipe, name: str, root: Path, count: int = 0) -> SlimRecipe:
    return replace(asked, data=SlimData(name, str(root), count, count), training=replace(TRAINING, batch=1))


def paint(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 32), (shade, 60, 200)).save(path)


@pytest.fixture
def vqav2(tmp_path: Path) -> Path:
    """Three photos with a question each, of which one cannot be read."""
    root = tmp_path / "vqav2"
    for split in ("train", "val"):
        questions = [{"question_id": n, "image_id": n, "question": f"what is number {n}?"} for n in (1, 2, 3)]
        answers = [{"answer": "a blue wall"}] * 7 + [{"answer": "sky"}] * 3
        annotations = [{"question_id": n, "answers": answers} for n in (1, 2, 3)]
        for n in (1, 2, 3):
            paint(root / f"{split}2014/COCO_{split}2014_{n:012d}.jpg", 80 * n)
        (root / f"{split}2014/COCO_{split}2014_{3:012d}.jpg").write_bytes(b"no photo")
        (root / f"v2_OpenEnded_mscoco_{split}2014_questions.json").write_text(json.dumps({"questions": questions}))
        (root / f"v2_mscoco_{split}2014_annotations.json").write_text(json.dumps({"annotations": annotations}))
    return root


def test_vqav2_leaves_out_what_cannot_be_read(vqav2: Path, tmp_path: Path) -> None:
    task = vqa.open_task(real(recipe("vqa"), "vqav2", vqav2), tmp_path, lambda *_: None)
    assert task.train.rows.tolist() == [0, 1]
    assert task._answers == ["blue wall", "sky"]
    assert task.baselines()["no image"] == 100.0
    assert set(task.validate(task.net.eval())) == {"accuracy"}
    fewer = vqa.open_task(real(recipe("vqa"), "vqav2", vqav2, count=1), tmp_path, lambda *_: None)
    assert len(fewer.train.questions.images) == 1


def test_vqav2_without_words_in_its_answers_is_refused(vqav2: Path, tmp_path: Path) -> None:
    path = vqav2 / "v2_mscoco_train2014_annotations.json"
    path.write_text(path.read_text().replace("a blue wall", "a").replace("sky", "?"))
    with pytest.raises(DataError, match="no training question has an answer"):
        vqa.open_task(real(recipe("vqa"), "vqav2", vqav2), tmp_path, lambda *_: None)


def test_nlvr2_from_its_files(tmp_path: Path) -> None:
    root = tmp_path / "nlvr2"
    for file, name, folder in (("train", "train", "images/train/5"), ("dev", "dev", "dev")):
        rows = [
            {"identifier": f"{name}-{n}-0-0", "sentence": f"{n} walls are blue", "label": str(n == 1), "directory": 5}
            for n in (1, 2)
        ]
        if file == "dev":
            rows = [{key: value for key, value in row.items() if key != "directory"} for row in rows]
        root.mkdir(exist_ok=True)
        (root / f"{file}.json").write_text("\n".join(map(json.dumps, rows)))
        for n in (1, 2):
            for side in (0, 1):
                paint(root / folder / f"{name}-{n}-0-img{side}.png", 60 * n + side)
    (root / "dev/dev-2-0-img1.png").write_bytes(b"no photo")
    task = nlvr2.open_task(real(recipe("nlvr2"), "nlvr2", root), tmp_path, lambda *_: None)
    assert (task.train.rows.tolist(), task.val.rows.tolist()) == ([0, 1], [0])
    assert set(task.validate(task.net.eval())) == {"accuracy"}
    assert isinstance(task.net, hf.BlipForVisualReasoning)
