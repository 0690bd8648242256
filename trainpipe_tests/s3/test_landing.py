"""A landing folder on a real S3 server: listed, landed into, replaced, and watched while it is read."""

import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from trainpipe_assets.data.ingestion import ingest, pending
from trainpipe_assets.data.landing import land
from trainpipe_assets.data.reading.readers import read_file
from trainpipe_assets.data.sources import FileChangedWhileReading, check_unchanged, list_landed, wait_until_settled
from trainpipe_assets.pipeline.automation import look_for_data
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.pipeline.status import pipeline_status
from trainpipe_assets.settings import PipelineSettings, SourceSettings
from trainpipe_assets.storage.delta import find
from trainpipe_assets.storage.s3_client import client
from trainpipe_assets.storage.uris import bucket_and_key

SETTINGS = SourceSettings(settle_seconds=0)
GOOD = "text,label\nfine,pos\nbad,neg\n"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def file_in(folder: Path, name: str, content: str = GOOD) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    return folder / name


def put(uri: str, content: bytes = GOOD.encode()) -> None:
    name, key = bucket_and_key(uri)
    client().put_object(Bucket=name, Key=key, Body=content)


def test_landing_lists_replaces_and_leaves_what_is_the_same(bucket: str, tmp_path: Path) -> None:
    root = f"{bucket}/landing/reviews"
    assert list_landed(root, SETTINGS) == []
    assert land([file_in(tmp_path, "a.csv"), file_in(tmp_path, "b.csv")], root, SETTINGS) == [f"{root}/a.csv", f"{root}/b.csv"]
    first = list_landed(root, SETTINGS)
    assert [(file.path, file.size, file.problem) for file in first] == [("a.csv", 28, None), ("b.csv", 28, None)]
    land([file_in(tmp_path, "a.csv"), file_in(tmp_path, "b.csv", GOOD + "more,pos\n")], root, SETTINGS)
    second = list_landed(root, SETTINGS)
    assert second[0] == first[0], "the same bytes were sent again"
    assert second[1].version != first[1].version
    (rows,) = read_file(second[1], SETTINGS, NOW)
    assert rows["text"].to_list() == ["fine", "bad", "more"]


def test_odd_names_subfolders_and_markers(bucket: str) -> None:
    root = f"{bucket}/landing"
    for key in ("a.csv", "deep/odd name::x?#&+é%20.csv", "_SUCCESS", "_temporary/b.csv", "deep/.hidden.csv", "c.part", "d.pdf", "folder/"):
        put(f"{root}/{key}")
    put(f"{bucket}/landing-of-another/x.csv")
    files = list_landed(root, SETTINGS)
    assert [file.path for file in files] == ["a.csv", "d.pdf", "deep/odd name::x?#&+é%20.csv"]
    for file in (files[0], files[2]):
        check_unchanged(file)
        (rows,) = read_file(file, SETTINGS, NOW)
        assert rows["text"].to_list() == ["fine", "bad"]


def test_an_object_that_changes_or_goes_is_noticed(bucket: str) -> None:
    put(f"{bucket}/landing/a.csv")
    (file,) = list_landed(f"{bucket}/landing", SETTINGS)
    check_unchanged(file)
    put(f"{bucket}/landing/a.csv", GOOD.replace("fine", "fone").encode())
    with pytest.raises(FileChangedWhileReading):
        check_unchanged(file)
    name, key = bucket_and_key(file.uri)
    client().delete_object(Bucket=name, Key=key)
    with pytest.raises(FileChangedWhileReading, match="now gone"):
        check_unchanged(file)
    with pytest.raises(FileChangedWhileReading):
        list(read_file(file, SETTINGS, NOW))


def test_young_objects_are_looked_at_again(bucket: str) -> None:
    settings = SourceSettings(settle_seconds=60)
    root = f"{bucket}/landing"
    for name in ("same", "growing", "gone"):
        put(f"{root}/{name}.csv")

    def meanwhile(seconds: float) -> None:
        assert seconds == 60
        put(f"{root}/growing.csv", (GOOD + "more,pos\n").encode())
        client().delete_object(Bucket=bucket_and_key(root)[0], Key="landing/gone.csv")

    ready, growing = wait_until_settled(root, list_landed(root, settings), settings, now=time.time(), sleep=meanwhile)
    assert ([file.path for file in ready], [file.path for file in growing]) == (["same.csv"], ["growing.csv"])


def test_status_and_sensor_see_what_is_pending(bucket: str, tmp_path: Path) -> None:
    lake = Lake(root=f"{bucket}/lake", landing=f"{bucket}/landing", models=str(tmp_path))
    settings = PipelineSettings(source=SourceSettings(uri="reviews", settle_seconds=0))
    key = dg.AssetKey("raw_data")
    assert isinstance(look_for_data(settings, lake, key, now=time.time()), dg.SkipReason)
    land([file_in(tmp_path, "a.csv")], lake.landing_uri(settings.source), settings.source)
    assert isinstance(look_for_data(settings, lake, key, now=time.time() + 60), dg.RunRequest)
    assert pipeline_status(lake, "words", settings)["pending_files"] == ["a.csv"]
    uri = lake.table_uri(key)
    landed = list_landed(lake.landing_uri(settings.source), settings.source)
    ingest(uri, find(uri), landed, frozenset(), settings.source, NOW).increment.commit({})
    assert pending(landed, find(uri)) == ()
    assert pipeline_status(lake, "words", settings)["tables"]["raw_data"]["rows"] == 2
    assert isinstance(look_for_data(settings, lake, key, now=time.time() + 60), dg.SkipReason)
