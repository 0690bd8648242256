"""`trainpipe doctor` on a local installation and on one on a real S3 server: what is right, and each thing that may be wrong."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from trainpipe_assets.pipeline import doctor
from trainpipe_assets.pipeline.doctor import Finding
from trainpipe_tests.conftest import aws_environment
from trainpipe_tests.pipelines import write_stand_in
from trainpipe_tests.programs import Installation
from trainpipe_tests.s3.careless_server import careless_server
from trainpipe_tests.s3_server import S3Server
from trainpipe_tests.unprivileged import as_nobody, folder_for_everyone

CHECKS = [
    "python",
    "libraries",
    "pipelines",
    "lake",
    "disk for lake",
    "landing of reviews",
    "base model of reviews",
    "compute",
    "scratch",
    "disk for scratch",
    "DAGSTER_HOME",
]


@pytest.fixture
def place(tmp_path: Path) -> Installation:
    write_stand_in(tmp_path / "models")
    installation = Installation(tmp_path, tmp_path / "models")
    installation.land("a.csv", b"text,label\nfine,positive\n")
    return installation


def examine(place: Installation) -> tuple[int, dict[str, dict[str, Any]]]:
    done = place.run("trainpipe", "doctor", "--json")
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0)
    assert done.stderr == ""
    return done.returncode, {check["check"]: check for check in report["checks"]}


def finding(place: Installation, check: str, monkeypatch: pytest.MonkeyPatch) -> Finding:
    """What comes of one check, in this process: the command makes every check, most of the time of which goes into importing torch."""
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    with aws_environment({name: value for name, value in place.environment.items() if name.startswith("AWS_")}):
        return next(found for found in doctor.examine() if found.check == check)


def verdicts(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: check["verdict"] for name, check in checks.items() if check["verdict"] != "ok"}


def test_a_local_installation_is_well(place: Installation) -> None:
    code, checks = examine(place)
    assert (code, verdicts(checks), list(checks)) == (0, {}, CHECKS)
    assert checks["landing of reviews"]["found"].endswith("1 file(s), writable")
    assert "cpu" in checks["compute"]["found"]
    assert not (place.root / "lake").exists(), "a look at an installation made its lake"
    text = place.run("trainpipe", "doctor")
    assert text.returncode == 0
    assert [line.split()[0] for line in text.stdout.splitlines()] == ["ok"] * len(CHECKS)


def test_an_installation_on_s3_is_well(bucket: str, s3_server: S3Server, place: Installation) -> None:
    place.environment |= {**s3_server.environment, "TRAINPIPE_LAKE": f"{bucket}/lake", "TRAINPIPE_LANDING": f"{bucket}/landing"}
    code, checks = examine(place)
    assert (code, verdicts(checks)) == (0, {})
    assert checks["credentials"]["found"] == f"found in env, for {s3_server.endpoint}"
    assert checks["conditional puts"]["found"].startswith(f"honoured by {s3_server.endpoint}, proven ")
    assert "a-secret-for-loopback-only" not in json.dumps(checks)


def test_what_is_wrong_is_named_with_its_remedy(place: Installation) -> None:
    (place.root / "dagster_home" / "dagster.yaml").write_text("telemetry: {enabled: perhaps}\n")
    (place.root / "lake").write_text("a file")
    place.environment |= {"TRAINPIPE_MODELS": str(place.root / "none"), "TRAINPIPE_DEVICE": "mps"}
    code, checks = examine(place)
    assert code == 1
    assert verdicts(checks) == dict.fromkeys(("lake", "base model of reviews", "compute", "DAGSTER_HOME"), "fail")
    assert checks["lake"]["found"] == f"{place.root}/lake is not a folder"
    assert checks["base model of reviews"]["remedy"] == "run: trainpipe samples"
    assert "compute.device is 'mps'" in checks["compute"]["found"]
    assert "telemetry" in checks["DAGSTER_HOME"]["found"]


def test_a_folder_within_the_lake_that_another_user_made_is_named() -> None:
    with folder_for_everyone() as lake:
        lake.chmod(0o777)
        (lake / "tables" / "raw_data" / "_delta_log").mkdir(parents=True)
        found = as_nobody(lambda: doctor.check_lake("lake", str(lake)))
        if os.geteuid() == 0:
            assert (found.verdict, found.found) == ("fail", f"{lake}/tables: this user may not write there")
        (lake / "tables").chmod(0)
        assert as_nobody(lambda: doctor.check_lake("lake", str(lake))).verdict == "fail"
        (lake / "tables").chmod(0o755)


def test_a_bad_variable_stops_no_other_check(place: Installation) -> None:
    place.environment |= {"TRAINPIPE_PROCESSES": "0", "TRAINPIPE_LAKE": "gs://bucket/lake"}
    del place.environment["DAGSTER_HOME"]
    code, checks = examine(place)
    assert code == 1
    assert verdicts(checks) == {"settings": "fail", "DAGSTER_HOME": "warn"}


@pytest.mark.parametrize(
    ("changes", "check", "found"),
    [
        ({"TRAINPIPE_LAKE": "s3://no-such-bucket-here/lake"}, "lake", "there is no bucket"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "lake", "does not accept the AWS credentials"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "lake", "no S3 server answers"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials", "no AWS credentials were found"),
        ({"AWS_S3_ALLOW_UNSAFE_RENAME": "true"}, "settings", "AWS_S3_ALLOW_UNSAFE_RENAME"),
    ],
)
def test_what_is_wrong_with_s3_is_named(
    bucket: str,
    s3_server: S3Server,
    place: Installation,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    check: str,
    found: str,
) -> None:
    place.environment |= {**s3_server.environment, "TRAINPIPE_LAKE": f"{bucket}/lake", **changes}
    told = finding(place, check, monkeypatch)
    assert told.verdict == "fail"
    assert found in told.found


def test_a_server_that_loses_commits_is_refused(s3_server: S3Server, place: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    with careless_server("ignores") as (endpoint, _):
        place.environment |= {**s3_server.environment, "AWS_ENDPOINT_URL": endpoint, "TRAINPIPE_LAKE": "s3://lake/here"}
        told = finding(place, "conditional puts", monkeypatch)
    assert told.verdict == "fail"
    assert "does not honour conditional puts" in told.found
