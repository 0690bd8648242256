"""S3 behind a network that fails: a run ends right, or whole and clean with one message; once the fault is gone, as if it had never been.

`faulty_proxy.py` stands between the pipeline and a real server. What it does is drawn with a seed; how often a library tries again is not.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from deltalake import DeltaTable

from trainpipe_assets.data.reading.readers import read_file
from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.pipeline.failures import explained
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage import delta, s3, s3_client
from trainpipe_assets.storage.artifacts import Artifact, list_artifacts, publish, read_manifest, seal, verify
from trainpipe_assets.storage.conditional_puts import require_conditional_puts
from trainpipe_assets.storage.objects import PART_BYTES
from trainpipe_assets.storage.s3_problems import S3Unreachable
from trainpipe_assets.storage.uris import open_filesystem
from trainpipe_tests.conftest import aws_environment
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.data_plane import TABLES, DataPlane
from trainpipe_tests.pipelines import read_words
from trainpipe_tests.s3.faulty_proxy import NONE, Fault, Faults, FaultyProxy, faulty_proxy
from trainpipe_tests.s3_server import S3Server
from trainpipe_tests.unit.training_fixtures import write_tiny_base

QUICK: tuple[Fault, ...] = ("500", "503", "slow down", "cut", "cut answer", "lost answer", "lost behind 500")  # all but silence
LOST: tuple[Fault, ...] = ("cut answer", "lost answer", "lost behind 500")
NOTHING = pl.DataFrame(schema={"row_id": pl.String})


@pytest.fixture
def proxy(bucket: str, s3_server: S3Server) -> Iterator[FaultyProxy]:
    """Everything in this process reaches the server through it; the server has proven that it can hold a lake."""
    with faulty_proxy(s3_server.endpoint) as made, aws_environment({**s3_server.environment, "AWS_ENDPOINT_URL": made.endpoint}):
        require_conditional_puts(f"{bucket}/lake")
        yield made


@pytest.fixture
def plane(bucket: str, tmp_path: Path) -> DataPlane:
    """Tables and landing folder on S3, with one file landed."""
    read_words(write_tiny_base(tmp_path / "base"))
    made = DataPlane(f"{bucket}/lake", f"{bucket}/landing", tmp_path / "base")
    land(made, 0)
    return made


def land(plane: DataPlane, number: int) -> None:
    filesystem, folder = open_filesystem(str(plane.landing))
    filesystem.pipe_file(f"{folder}/{number}.csv", as_csv([*examples(40, seed=number), ("w5", "neutral")]))


def run(plane: DataPlane) -> bool:
    """Whether a run ended right; if not, then with one message, and worth another try."""
    try:
        plane.run()
    except S3Unreachable as error:
        check_message(str(error))
        return False
    return True


def check_message(said: str) -> None:
    """One line that names the place."""
    assert said.startswith("s3://")
    assert "\n" not in said
    assert "\x1b" not in said


def check_as_if_nothing_had_happened(plane: DataPlane, folder: Path) -> None:
    plane.check_conservation()
    clean = plane.elsewhere(str(folder / f"clean-{time.monotonic_ns()}"))
    clean.run()
    plane.check_equal(clean)


@pytest.mark.parametrize("kind", LOST)
def test_a_commit_whose_answer_is_lost_is_known_as_ones_own(proxy: FaultyProxy, bucket: str, kind: Fault) -> None:
    uri, base = f"{bucket}/lake/tables/t", None
    for step, removed in enumerate([None, NOTHING, pl.DataFrame({"row_id": ["0"]})]):  # an overwrite, an append, a merge
        proxy.fail(Faults((kind,), times=1, only="commits"))
        added = pl.LazyFrame({"row_id": [str(step)], "text": ["a text"]})
        done = delta.commit(uri, base, added, removed, fingerprint=7, upstream=step, note={"run_id": "test"})
        base = done.table
        assert sum(proxy.fail().values()) == 1, "nothing was lost: this shows nothing"
        assert (done.added, base.upstream) == (1, step)
    assert base is not None
    assert base.version == 3, "the table's creation and three commits, none made twice"
    assert sorted(base.scan().collect()["row_id"]) == ["1", "2"]


def test_a_commit_of_another_is_not_mistaken_for_ones_own(proxy: FaultyProxy, bucket: str) -> None:
    uri = f"{bucket}/lake/tables/t"
    base = delta.commit(uri, None, pl.LazyFrame({"row_id": ["0"]}), None, fingerprint=7, upstream=0, note={}).table
    delta.commit(uri, base, pl.LazyFrame({"row_id": ["1"]}), NOTHING, fingerprint=7, upstream=0, note={})
    with pytest.raises(delta.ConcurrentWrite, match="nothing was written here"):
        delta.commit(uri, base, pl.LazyFrame({"row_id": ["2"]}), NOTHING, fingerprint=7, upstream=0, note={})


def test_runs_under_random_faults_end_right_or_with_one_message(proxy: FaultyProxy, plane: DataPlane, tmp_path: Path) -> None:
    ends: Counter[bool] = Counter()
    met: Counter[str] = Counter()
    for number in range(6):
        land(plane, number)
        proxy.fail(Faults(QUICK, probability=random.Random(number).choice([0.02, 0.05, 0.1]), seed=number))
        ends[run(plane)] += 1
        met += proxy.fail()
        if number % 3 == 2:
            assert run(plane)
            check_as_if_nothing_had_happened(plane, tmp_path)
    assert len(met) >= 5, f"only {met}"
    assert ends[True], "no run ever got through"
    for name in TABLES:
        log = DeltaTable(f"{plane.lake}/{name}", storage_options=s3.options(plane.lake)).history()
        assert [entry["version"] for entry in log] == list(range(len(log) - 1, -1, -1))


@pytest.mark.parametrize("kind", ["500", "slow down", "cut", "lost answer"])
def test_a_fault_that_stays_is_one_message_in_bounded_time(proxy: FaultyProxy, plane: DataPlane, tmp_path: Path, kind: Fault) -> None:
    plane.run()
    land(plane, 1)
    proxy.fail(Faults((kind,), only="commits"))
    began = time.monotonic()
    right = run(plane)
    assert time.monotonic() - began < 1200
    assert right == (kind == "lost answer"), "a lost answer does not undo a commit; any other fault of every commit stops the run"
    proxy.fail(NONE)
    assert run(plane)
    check_as_if_nothing_had_happened(plane, tmp_path)


def test_a_query_that_meets_a_fault_far_from_its_table_is_one_message_and_tried_again(proxy: FaultyProxy, bucket: str) -> None:
    uri = f"{bucket}/lake/tables/t"
    table = delta.commit(uri, None, pl.LazyFrame({"row_id": ["0"]}), None, fingerprint=7, upstream=0, note={}).table
    rows = table.scan()
    proxy.fail(Faults(("503",), only="reads"))
    with pytest.raises(dg.Failure) as caught, explained():
        rows.collect()
    check_message(caught.value.description or "")
    assert "fails, or its answers do not arrive" in (caught.value.description or "")
    assert caught.value.allow_retries


@pytest.mark.parametrize("kind", ["500", "cut answer"])
def test_a_landed_file_whose_reading_fails_is_not_taken_for_a_damaged_one(
    proxy: FaultyProxy, plane: DataPlane, tmp_path: Path, kind: Fault
) -> None:
    local = plane.elsewhere(str(tmp_path / "lake"))  # tables on local disk: nothing but the reading can fail
    (landed,) = list_landed(str(plane.landing), SourceSettings())
    proxy.fail(Faults((kind,), only="reads"))
    with pytest.raises(S3Unreachable):
        list(read_file(landed, SourceSettings(), datetime.now(UTC)))
    assert not run(local)
    proxy.fail(NONE)
    assert run(local)
    assert local.rows("raw_data")["problem"].null_count() == 41


def test_a_server_that_never_answers_is_given_up(
    proxy: FaultyProxy, plane: DataPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "READ_SECONDS", 1)  # the first look at the bucket decides
    s3_client.forget_configuration()
    proxy.fail(Faults(("no answer",)))
    began = time.monotonic()
    assert not run(plane)
    assert time.monotonic() - began < 120
    proxy.fail(NONE)
    assert run(plane)
    check_as_if_nothing_had_happened(plane, tmp_path)


def test_a_model_is_published_whole_or_not_at_all(proxy: FaultyProxy, bucket: str, tmp_path: Path) -> None:
    folder, uri = tmp_path / "model", f"{bucket}/lake/models/m/{'f' * 32}"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(random.Random(0).randbytes(2 * PART_BYTES + 100))  # three parts
    seal(folder, {"fingerprint": "f" * 32, "labels": ["a", "b"]})
    published: Artifact | None = None
    messages = 0
    for seed in range(20):
        proxy.fail(Faults(QUICK, probability=0.3 if seed > 1 else 0.9, seed=seed))
        try:
            published = publish(folder, uri)
            break
        except S3Unreachable as error:
            check_message(str(error))
            messages += 1
        proxy.fail(NONE)
        seen = read_manifest(uri)
        if seen is not None:  # the answer to the last put was lost
            verify(seen)
    assert published is not None
    assert messages, "nothing failed: this shows nothing"
    proxy.fail(NONE)
    verify(published)
    assert [found.uri for found in list_artifacts(f"{bucket}/lake/models/m")] == [uri]
