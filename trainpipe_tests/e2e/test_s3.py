"""The real commands with lake and landing folder on a real S3 server: the same tables and the same model as on local disk."""

import json
from pathlib import Path

import dagster as dg
import pytest

from trainpipe_assets.storage.artifacts import list_artifacts, local_copy
from trainpipe_assets.storage.uris import open_filesystem
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import write_stand_in
from trainpipe_tests.programs import TABLES, Installation
from trainpipe_tests.s3_server import S3Server

CONFIG = ("--config-json", json.dumps({"ops": {"fine_tuned_model": {"config": {"epochs": 2, "batch_tokens": 64}}}}))
FIRST = as_csv([*examples(300, seed=5), ("w4 w5", "neutral")])
SECOND = as_csv(examples(100, seed=6))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    write_stand_in(folder)
    return folder


def installation_on(bucket: str, server: S3Server, root: Path, models: Path) -> Installation:
    """The same as any other, but for two variables and what AWS needs."""
    places = {"TRAINPIPE_LAKE": f"{bucket}/team/lake", "TRAINPIPE_LANDING": f"{bucket}/team/landing"}
    return Installation(root, models, {**places, **server.environment, "XDG_CACHE_HOME": str(root / "cache")})


def land(place: Installation, folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    done = place.run("trainpipe", "land", str(folder / name))
    assert done.returncode == 0, done.stderr


def versions(place: Installation) -> dict[str, int]:
    return {table: place.table(table).version for table in TABLES}


@pytest.mark.timeout(1800)
def test_everything_on_s3_as_on_local_disk(bucket: str, s3_server: S3Server, tmp_path: Path, models: Path) -> None:
    remote, local = installation_on(bucket, s3_server, tmp_path / "remote", models), Installation(tmp_path / "local", models)
    land(remote, tmp_path / "files", "first.csv", FIRST)
    local.land("first.csv", FIRST)
    assert remote.status()["pending_files"] == ["first.csv"]
    output = remote.materialize(*CONFIG)
    assert f"is on {remote.lake.root}/checkpoints/fine_tuned_model/" in output
    filesystem, checkpoints = open_filesystem(f"{remote.lake.root}/checkpoints")
    assert not [path for path in filesystem.find(checkpoints) if "/step-" in path], "checkpoints are left of a model that is published"
    first = versions(remote)
    assert not (tmp_path / "remote" / "lake").exists()

    output = remote.materialize(*CONFIG)
    assert versions(remote) == first, "a run with nothing new made versions"
    assert "this very training made" in output

    land(remote, tmp_path / "files", "second.csv", SECOND)
    local.land("second.csv", SECOND)
    remote.materialize(*CONFIG)
    local.materialize(*CONFIG)
    for table in TABLES[:-1]:
        assert remote.rows(table).equals(local.rows(table)), f"{table} differs from the local one"
    assert versions(remote)["raw_data"] == first["raw_data"] + 1
    _same_model_and_report(remote, local)


def _same_model_and_report(remote: Installation, local: Installation) -> None:
    status = remote.status()
    listed = remote.run("trainpipe", "models")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count(f"{remote.lake.root}/models/fine_tuned_model/") == 2
    assert listed.stdout.index(status["latest"]["uri"]) < listed.stdout.index("examples.train was ")
    assert status["pending_files"] == []
    assert status["latest"]["uri"].startswith(remote.lake.root)
    assert status["latest"]["fingerprint"] == local.status()["latest"]["fingerprint"]
    filesystem, report = open_filesystem(status["latest"]["report"])
    assert b"<html" in filesystem.cat_file(report)[:200]
    assert filesystem.exists(report.removesuffix(".html") + ".predictions.parquet")
    key = dg.AssetKey("fine_tuned_model")
    newest = next(found for found in list_artifacts(remote.lake.models_uri(key)) if found.uri == status["latest"]["uri"])
    (other,) = [found for found in list_artifacts(local.lake.models_uri(key)) if found.fingerprint == newest.fingerprint]
    weights = "model.safetensors"
    assert newest.manifest["files"][weights] == other.manifest["files"][weights], "the same training gave other weights"
    assert (local_copy(newest) / weights).is_file()


def test_a_failure_of_s3_is_one_message_and_no_stack(bucket: str, s3_server: S3Server, tmp_path: Path, models: Path) -> None:
    place = installation_on(bucket, s3_server, tmp_path / "remote", models)
    land(place, tmp_path / "files", "first.csv", FIRST)
    place.environment["TRAINPIPE_LAKE"] = "s3://no-such-bucket-here/lake"
    done = place.run("dagster", "asset", "materialize", "-m", "trainpipe_assets.definitions", "--select", "raw_data")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "there is no bucket 'no-such-bucket-here'" in said
    assert "Traceback" not in said
    assert "RETRY" not in said
