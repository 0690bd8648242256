"""What is wrong with the set-up of S3 is said in one line that a person can act on, by the storage and by the commands."""

import errno
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from trainpipe_assets.cli import main
from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.pipeline.resources import Lake, lake_from_environment
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage import delta, s3, s3_client
from trainpipe_assets.storage.artifacts import publish, read_manifest, seal
from trainpipe_assets.storage.s3_problems import S3Problem, S3Unreachable
from trainpipe_tests.conftest import aws_environment
from trainpipe_tests.s3_server import S3Server

UNREACHABLE = "http://127.0.0.1:1"

READERS: dict[str, Callable[[str], object]] = {
    "table": lambda uri: delta.find(f"{uri}/lake/tables/raw_data"),
    "model": lambda uri: read_manifest(f"{uri}/lake/models/m/f"),
    "landing": lambda uri: list_landed(f"{uri}/landing", SourceSettings()),
}

PROBLEMS: dict[str, tuple[str, Mapping[str, str | None], str, str]] = {
    "missing bucket": ("s3://no-such-bucket-here", {}, "there is no bucket 'no-such-bucket-here' at http://", "Create it, or correct"),
    "wrong secret": (
        "",
        {"AWS_SECRET_ACCESS_KEY": "wrong"},
        "does not accept the AWS credentials found in env (SignatureDoesNotMatch",
        "Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "wrong key": ("", {"AWS_ACCESS_KEY_ID": "nobody"}, "(InvalidAccessKeyId", "Correct AWS_ACCESS_KEY_ID"),
    "no credentials": ("", {"AWS_ACCESS_KEY_ID": None}, "no AWS credentials were found", "Set AWS_ACCESS_KEY_ID"),
    "unreachable": ("", {"AWS_ENDPOINT_URL": UNREACHABLE}, f"no S3 server answers at {UNREACHABLE}", "correct AWS_ENDPOINT_URL"),
    "no such profile": ("", {"AWS_PROFILE": "nobody"}, "profile (nobody) could not be found", "Correct AWS_PROFILE"),
    "no URL": ("", {"AWS_ENDPOINT_URL": "localhost:9000"}, "Invalid endpoint: localhost:9000", "AWS_ENDPOINT_URL"),
    "no name": ("s3://Not_a_Bucket!", {}, "'Not_a_Bucket!' is not a name that a bucket can have", "TRAINPIPE_LAKE"),
}


def environment(server: S3Server, changes: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**server.environment, **changes}.items() if value is not None}


@pytest.mark.parametrize("place", READERS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_one_clear_message(bucket: str, s3_server: S3Server, problem: str, place: str) -> None:
    root, changes, found, remedy = PROBLEMS[problem]
    with aws_environment(environment(s3_server, changes)), pytest.raises(S3Problem) as raised:
        READERS[place](root or bucket)
    message = str(raised.value)
    assert found in message
    assert remedy in message
    assert "\n" not in message
    assert "a-secret-for-loopback-only" not in message
    assert isinstance(raised.value, S3Unreachable) == (problem == "unreachable")


def test_a_commit_and_a_publication_say_it_too(bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    import polars as pl

    (tmp_path / "model").mkdir()
    seal(tmp_path / "model", {"fingerprint": "f", "labels": []})
    with aws_environment(environment(s3_server, {"AWS_SECRET_ACCESS_KEY": "wrong"})):
        with pytest.raises(S3Problem, match="does not accept"):
            delta.commit(f"{bucket}/tables/t", None, pl.LazyFrame({"row_id": ["a"]}), None, fingerprint=1, upstream=0, note={})
        with pytest.raises(S3Problem, match="does not accept"):
            publish(tmp_path / "model", f"{bucket}/models/m/f")


def test_what_is_allowed_is_not_mistaken_for_what_is_not(bucket: str) -> None:
    denied = OSError("The operation lacked the necessary privileges to complete for path lake/tables/x: 403 Forbidden AccessDenied")
    problem = s3_client.diagnose(f"{bucket}/lake/tables/x", denied)
    assert "access denied" in str(problem)
    assert "s3:PutObject" in str(problem)
    assert isinstance(s3_client.diagnose(f"{bucket}/lake", OSError("Generic S3 error: 503 SlowDown")), S3Unreachable)
    assert s3_client.diagnose(f"{bucket}/lake", OSError(errno.ENOSPC, "No space left on device")) is None
    assert s3_client.diagnose(f"{bucket}/lake", FileNotFoundError("no such object")) is None


def test_commands_end_with_the_message_alone(bucket: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("text,label\nfine,pos\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINPIPE_LAKE", "s3://no-such-bucket-here/lake")
    monkeypatch.setenv("TRAINPIPE_LANDING", "s3://no-such-bucket-here/landing")
    for command in (["status"], ["land", "a.csv"]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 2
        assert done.stderr.startswith("trainpipe: s3://no-such-bucket-here/")
        assert len(done.stderr.splitlines()) == 1
    monkeypatch.setenv("TRAINPIPE_LAKE", f"{bucket}/lake")
    monkeypatch.setenv("TRAINPIPE_LANDING", f"{bucket}/landing")
    landed = CliRunner().invoke(main, ["land", "a.csv", "--json"])
    assert json.loads(landed.stdout) == {"landed": [f"{bucket}/landing/reviews/a.csv"]}
    status = json.loads(CliRunner().invoke(main, ["status", "--json"]).stdout)
    assert status["pipelines"]["reviews"]["pending_files"] == ["a.csv"]


@pytest.mark.parametrize("value", ["true", "1", "yes"])
def test_unsafe_renames_are_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", value)
    monkeypatch.setenv("TRAINPIPE_LAKE", "s3://bucket/lake")
    with pytest.raises(ValueError, match=r"AWS_S3_ALLOW_UNSAFE_RENAME is .* Remove it"):
        lake_from_environment()
    monkeypatch.setenv("TRAINPIPE_LAKE", "data/lake")
    assert lake_from_environment().root == "data/lake"


def test_places_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ValueError, match="neither a local folder nor an s3:// URI"):
        Lake(root="gs://bucket/lake")
    with pytest.raises(ValueError, match="/srv/50%off holds a %, which the Delta Lake library takes for"):
        Lake(root="/srv/50%off")
    with pytest.raises(ValueError, match="base models are read from local disk"):
        Lake(models="s3://bucket/models")


def test_one_variable_for_the_region_is_enough(bucket: str, s3_server: S3Server) -> None:
    with aws_environment(environment(s3_server, {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": None})):
        lake_from_environment()
        assert (s3.options(bucket) or {})["AWS_REGION"] == "eu-west-1"
