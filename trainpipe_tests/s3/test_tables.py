"""Delta tables on a real S3 server: commits, changes between versions, and writers that meet."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import polars as pl
import pytest

from trainpipe_assets.storage import delta, s3
from trainpipe_assets.storage.differences import difference
from trainpipe_assets.storage.maintenance import discard_abandoned, maintain
from trainpipe_assets.storage.s3_client import client
from trainpipe_assets.storage.uris import bucket_and_key, open_filesystem
from trainpipe_tests.conftest import aws_environment
from trainpipe_tests.s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server

NOTHING = pl.DataFrame(schema={"row_id": pl.String})


def rows(*keys: int, text: str = "some text") -> pl.LazyFrame:
    return pl.LazyFrame({"row_id": [f"{key:03}" for key in keys], "text": [text] * len(keys), "ids": [[key, key + 1] for key in keys]})


def commit(uri: str, base: delta.Table | None, added: pl.LazyFrame, removed: pl.DataFrame | None) -> delta.Commit:
    return delta.commit(uri, base, added, removed, fingerprint=7, upstream=3, note={"run_id": "test"})


def keys(frame: pl.LazyFrame) -> list[str]:
    return sorted(frame.select("row_id").collect()["row_id"])


@pytest.mark.parametrize("prefix", ["lake", "the team's lake, größer"])
def test_an_increment_is_one_commit_and_its_difference_can_be_read(bucket: str, prefix: str) -> None:
    uri = f"{bucket}/{prefix}/tables/raw_data"
    assert delta.find(uri) is None
    first = commit(uri, None, rows(1, 2, 3), None)
    second = commit(uri, first.table, rows(4), NOTHING)
    third = commit(uri, second.table, rows(5, 6), pl.DataFrame({"row_id": ["002", "004"]}))
    assert (third.added, third.removed, third.table.rows, third.table.version) == (2, 2, 4, 3)
    assert (third.table.fingerprint, third.table.upstream, third.table.content) == (7, 3, 3)
    assert third.table.uri == uri
    assert keys(third.table.scan()) == ["001", "003", "005", "006"]
    assert keys(delta.scan(uri, 1)) == ["001", "002", "003"]
    changes = difference(third.table, first.table.version)
    assert changes is not None
    assert (keys(changes.added), keys(changes.removed.lazy())) == (["005", "006"], ["002"])
    rebuilt = commit(uri, third.table, rows(9), None)
    assert keys(rebuilt.table.scan()) == ["009"]


def test_of_two_writers_with_one_base_one_wins(bucket: str) -> None:
    uri = f"{bucket}/lake/tables/raw_data"
    base = commit(uri, None, rows(0), None).table

    def write(key: int) -> delta.Commit | delta.ConcurrentWrite:
        try:
            return commit(uri, base, rows(key), NOTHING)
        except delta.ConcurrentWrite as lost:
            return lost

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(write, [1, 2, 3, 4]))
    winners = [outcome for outcome in outcomes if isinstance(outcome, delta.Commit)]
    assert len(winners) == 1
    assert [type(outcome) for outcome in outcomes].count(delta.ConcurrentWrite) == 3
    table = delta.find(uri)
    assert table is not None
    assert (table.version, table.rows) == (base.version + 1, 2)


def test_a_version_that_is_not_there_is_told_from_a_table_that_is_not(bucket: str) -> None:
    uri = f"{bucket}/lake/tables/raw_data"
    table = commit(uri, None, rows(1), None).table
    with pytest.raises(delta.MissingTable, match="version 12"):
        delta.find(uri, 12)
    with pytest.raises(delta.MissingTable, match="no Delta table"):
        delta.scan(f"{bucket}/lake/tables/nothing", 1)
    assert table.version == 1


def test_after_a_vacuum_the_difference_is_unknown(bucket: str) -> None:
    uri = f"{bucket}/lake/tables/raw_data"
    first = commit(uri, None, rows(1, 2), None)
    second = commit(uri, first.table, rows(3), None)
    (gone,) = first.table.file_uris() - second.table.file_uris()
    name, key = bucket_and_key(gone)
    client().delete_object(Bucket=name, Key=key)
    assert difference(second.table, first.table.version) is None


def test_credentials_and_endpoint_of_a_profile_are_enough(bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    uri = f"{bucket}/lake/tables/raw_data"
    first = commit(uri, None, rows(1, 2), None)
    config, secrets = tmp_path / "config", tmp_path / "credentials"
    config.write_text(f"[profile lake]\nregion = {REGION}\nendpoint_url = {s3_server.endpoint}\n")
    secrets.write_text(f"[lake]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
    profile = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(secrets), "AWS_PROFILE": "lake"}
    with aws_environment(profile):
        second = commit(uri, delta.find(uri), rows(3), pl.DataFrame({"row_id": ["001"]}))
        changes = difference(second.table, first.table.version)
        assert changes is not None
        assert (keys(second.table.scan()), keys(changes.added), keys(changes.removed.lazy())) == (["002", "003"], ["003"], ["001"])
        assert boto3.Session().profile_name == "lake"


def test_options_are_for_s3_alone_and_never_ask_for_unsafe_commits(bucket: str) -> None:
    assert s3.options("/data/lake") is None
    options = s3.options(f"{bucket}/lake") or {}
    assert options["AWS_ALLOW_HTTP"] == "true"
    assert options["AWS_S3_ALLOW_UNSAFE_RENAME"] == "false"
    assert options["AWS_CONDITIONAL_PUT"] == "etag"
    assert not any("SECRET" in name for name in options), "keys of the environment are left there"


def test_maintenance_keeps_rows_and_pinned_versions(bucket: str) -> None:
    uri = f"{bucket}/lake/tables/raw_data"
    table = commit(uri, None, rows(1), None).table
    for key in (2, 3):
        table = commit(uri, table, rows(key), NOTHING).table
    done = maintain(uri, {2}, retention_hours=0)
    assert done is not None
    assert (done.files_merged, done.files_written) == (3, 1)
    after = delta.find(uri)
    assert after is not None
    assert (keys(after.scan()), after.data_version) == (["001", "002", "003"], table.data_version)
    assert keys(delta.scan(uri, 2)) == ["001", "002"]
    with pytest.raises(delta.MissingTable, match="vacuumed"):
        delta.scan(uri, 3)


def test_checkpoints_of_trainings_that_nobody_went_on_with_are_removed(bucket: str) -> None:
    root = f"{bucket}/lake/checkpoints/fine_tuned_model"
    filesystem, path = open_filesystem(root)
    for name in ("a" * 32, "mine"):
        filesystem.pipe_file(f"{path}/{name}/step-1/state.pt", b"weights")
    assert discard_abandoned(root, time.time() - 3600) == []
    assert discard_abandoned(root, time.time() + 3600) == ["a" * 32]
    assert filesystem.find(path) == [f"{path}/mine/step-1/state.pt"]
    assert discard_abandoned(f"{bucket}/lake/nothing", time.time()) == []
