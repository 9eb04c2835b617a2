"""Caption statistics: by hand, and as published for a real result file."""

import json
from pathlib import Path

import pytest

from laconic.errors import DataError
from laconic.metrics import CaptionQuality, caption_quality, load_results


def test_by_hand() -> None:
    captions = ["A dog runs.", "a dog runs", "a man on a", ""]
    assert caption_quality(captions, training=["A dog runs!", "a cat"]) == CaptionQuality(
        captions=4,
        distinct=3,
        distinct_share=0.75,
        novel_share=0.5,
        mean_words=2.5,
        broken_share=0.25,
    )
    assert caption_quality(captions).novel_share is None
    with pytest.raises(DataError, match="no captions"):
        caption_quality([])


def test_golden_statistics(shared: Path) -> None:
    results = shared / "data" / "coco_karpathy" / "results" / "updown_tiny3_test_beam2.json"
    table = json.loads((shared / "golden" / "smp" / "g_caption_quality_stats.json").read_text())
    expected = table["files"]["TINY3 XE test beam 2"]
    quality = caption_quality(list(load_results(results).values()))
    assert quality.captions == expected["n"]
    assert quality.distinct_share == pytest.approx(expected["unique"])
    assert quality.mean_words == pytest.approx(expected["mean_words"], abs=5e-4)
    assert quality.broken_share == pytest.approx(expected["ends_with_function_word"])
