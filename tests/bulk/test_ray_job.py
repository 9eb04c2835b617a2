"""The same work on a local Ray; skipped where Ray is not installed or does not start."""

from pathlib import Path

import pytest
from stub import Stub, draw, request

from laconic.bulk import ray_job
from laconic.bulk.job import joined
from laconic.bulk.worker import caption_folder, caption_shards
from laconic.decode.search import Decoding
from laconic.errors import MissingError


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    draw(tmp_path / "photos", 1)
    with pytest.raises(MissingError, match=r"pip install 'laconic\[cluster\]'"):
        ray_job.caption_on_cluster(request(tmp_path / "photos", tmp_path / "out.csv"), Decoding(), Stub)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(300)
def test_a_local_ray(tmp_path: Path) -> None:
    """It goes on where other processes have stopped, and its output is theirs."""
    ray = pytest.importorskip("ray")
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    except Exception as error:
        pytest.skip(f"Ray does not start here: {error}")
    try:
        draw(tmp_path / "photos", 40)
        expected, out = tmp_path / "expected.jsonl", tmp_path / "out.jsonl"
        caption_folder(request(tmp_path / "photos", expected), Decoding(), Stub)
        with joined(request(tmp_path / "photos", out)) as job:
            claim = job.claims.take("0000003")
            assert claim is not None
            caption_shards(job, [(3, claim)], Decoding(), Stub())
        shown: list[int] = []

        def nobody() -> Stub:
            raise AssertionError("the actors have left something")

        counts = ray_job.caption_on_cluster(
            request(tmp_path / "photos", out), Decoding(), Stub, lambda done, of: shown.append(done)
        )
        assert counts == {"images": 40, "captions": 40, "skipped": 0}
        assert out.read_bytes() == expected.read_bytes()
        assert shown[-1] == 40
        assert caption_folder(request(tmp_path / "photos", out), Decoding(), nobody) == counts
    finally:
        ray.shutdown()
