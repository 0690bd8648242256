"""Checkpoints on a real S3 server: sent in the background, whole or not at all, and enough for another machine to go on."""

import shutil
import signal
import time
from pathlib import Path

import dagster as dg
import pytest

from trainpipe_assets.pipeline.io_managers import ModelIOManager, TrainedModel
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.storage.artifacts import DamagedArtifact, list_artifacts, verify
from trainpipe_assets.storage.mirror import discard
from trainpipe_assets.storage.uris import open_filesystem
from trainpipe_assets.training.finished import FinishedModel
from trainpipe_assets.training.loop import Interrupted, run
from trainpipe_assets.training.progress import Progress
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_tests.conftest import aws_environment
from trainpipe_tests.s3.faulty_proxy import LATE_SECONDS, Faults, faulty_proxy
from trainpipe_tests.s3_server import S3Server
from trainpipe_tests.unit.test_training_program import start_until, write_spec
from trainpipe_tests.unit.training_fixtures import write_dataset, write_tiny_base


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_tiny_base(folder / "base")
    write_dataset(folder / "dataset")
    return folder


@pytest.fixture(scope="module")
def unkilled(root: Path) -> FinishedModel:
    return run(write_spec(root, "unkilled"), lambda _progress: None)


def on_another_machine(spec: TrainSpec, root: Path) -> TrainSpec:
    """The same training where nothing of it is on local disk."""
    shutil.rmtree(spec.work_dir)
    return spec.model_copy(update={"work_dir": str(root / "elsewhere" / "work"), "output_dir": str(root / "elsewhere" / "model")})


def sent(spec: TrainSpec) -> list[str]:
    """Names of the checkpoints on S3 that call themselves whole."""
    assert spec.checkpoints_uri is not None
    return [str(artifact.manifest["checkpoint"]) for artifact in list_artifacts(spec.checkpoints_uri)]


def complete(spec: TrainSpec) -> list[str]:
    """Names of the checkpoints on S3 that are whole."""
    assert spec.checkpoints_uri is not None
    found = list_artifacts(spec.checkpoints_uri)
    for artifact in found:
        verify(artifact)
    return [str(artifact.manifest["checkpoint"]) for artifact in found]


def test_a_machine_that_dies_loses_no_training(bucket: str, root: Path, tmp_path: Path) -> None:
    long_enough = {"training": {"epochs": 6}}  # to be met half-way, whenever this process gets its turn
    unkilled = run(write_spec(root, "not dying", **long_enough), lambda _progress: None)
    spec = write_spec(root, "dying", checkpoints_uri=f"{bucket}/lake/checkpoints/m/f", **long_enough)
    process = start_until(spec, 2)
    while not max(sent(spec), default="") >= "step-000000005":
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    assert complete(spec)
    resumed = run(on_another_machine(spec, tmp_path), lambda _progress: None)
    assert resumed.record["resumed_from_step"] >= 5
    assert resumed.weights_sha256 == unkilled.weights_sha256
    assert resumed.record["history"] == unkilled.record["history"]


def test_a_slow_server_makes_no_step_wait_and_a_stopped_training_waits_for_its_last_checkpoint(
    bucket: str, s3_server: S3Server, root: Path, tmp_path: Path, unkilled: FinishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainpipe_assets.training.loop.MIRROR_PATIENCE_SECONDS", 120.0)
    spec, times = write_spec(root, "slow", checkpoints_uri=f"{bucket}/lake/checkpoints/m/f"), list[float]()
    last = unkilled.record["history"][-1]["step"] - 1
    with faulty_proxy(s3_server.endpoint) as proxy, aws_environment({**s3_server.environment, "AWS_ENDPOINT_URL": proxy.endpoint}):
        proxy.fail(Faults(("late answer",)))
        with pytest.raises(Interrupted):
            run(spec, lambda _progress: times.append(time.monotonic()), lambda: len(times) == last)
        answers = proxy.fail()["late answer"]
    newest = max(complete(spec))
    assert newest == f"step-{last:09d}-0001"
    assert len(complete(spec)) <= 2, "those before were not removed"
    assert answers < 10 * last, "each checkpoint was sent, although newer ones were there"
    assert times[-1] - times[0] < LATE_SECONDS * 10 * last, "steps waited for checkpoints, of which each takes ten late answers and more"
    assert run(on_another_machine(spec, tmp_path), lambda _progress: None).weights_sha256 == unkilled.weights_sha256


def test_what_is_damaged_on_s3_is_passed_over(bucket: str, root: Path, tmp_path: Path, unkilled: FinishedModel) -> None:
    spec, steps = write_spec(root, "damaged", checkpoints_uri=f"{bucket}/lake/checkpoints/m/f"), list[Progress]()
    with pytest.raises(Interrupted):
        run(spec, steps.append, lambda: len(steps) == 3)
    assert spec.checkpoints_uri is not None
    filesystem, folder = open_filesystem(spec.checkpoints_uri)
    filesystem.pipe_file(f"{folder}/{max(complete(spec))}/tensors.pt", b"half")
    assert [path for path in filesystem.find(folder) if "/step-" in path]
    with pytest.raises(DamagedArtifact):
        complete(spec)
    again = run(on_another_machine(spec, tmp_path), steps.append)
    assert again.record["resumed_from_step"] == 0
    assert again.weights_sha256 == unkilled.weights_sha256
    discard(spec.checkpoints_uri)
    assert not [path for path in filesystem.find(folder) if "/step-" in path]  # the server may keep an empty folder


def test_checkpoints_go_once_the_model_is_published(bucket: str, tmp_path: Path) -> None:
    lake, key = Lake(root=f"{bucket}/lake"), dg.AssetKey("m")
    uri = lake.checkpoints_uri(key, "f" * 32)
    assert uri == f"{bucket}/lake/checkpoints/m/{'f' * 32}"
    assert Lake(root=str(tmp_path)).checkpoints_uri(key, "f" * 32) is None
    filesystem, folder = open_filesystem(uri)
    filesystem.pipe_file(f"{folder}/step-000000001-0000/tensors.pt", b"bytes")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    model = TrainedModel(tmp_path / "model", {"fingerprint": "f" * 32, "labels": [], "lake": {}}, scratch=tmp_path / "model")
    ModelIOManager(lake=lake).handle_output(dg.build_output_context(asset_key=key), model)
    assert [artifact.fingerprint for artifact in list_artifacts(lake.models_uri(key))] == ["f" * 32]
    assert not [path for path in filesystem.find(folder) if "/step-" in path]


def test_a_server_that_fails_costs_the_copy_and_not_the_training(
    bucket: str, s3_server: S3Server, root: Path, unkilled: FinishedModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainpipe_assets.training.loop.MIRROR_PATIENCE_SECONDS", 0.5)
    spec = write_spec(root, "failing", checkpoints_uri=f"{bucket}/lake/checkpoints/m/f")
    with faulty_proxy(s3_server.endpoint) as proxy, aws_environment({**s3_server.environment, "AWS_ENDPOINT_URL": proxy.endpoint}):

        def fail(progress: Progress) -> None:
            if progress.record.step == 2:
                proxy.fail(Faults(("no answer",)))

        finished = run(spec, fail)
    assert finished.weights_sha256 == unkilled.weights_sha256
    assert "did not reach" in caplog.text
