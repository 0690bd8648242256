"""Model folders on a real S3 server: whole or not at all, sent once, verified, and copied to local disk."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainpipe_assets.storage import model_cache, objects
from trainpipe_assets.storage.artifacts import (
    MANIFEST,
    Artifact,
    DamagedArtifact,
    list_artifacts,
    local_copy,
    publish,
    read_manifest,
    seal,
    verify,
)
from trainpipe_assets.storage.s3_client import client
from trainpipe_assets.storage.uris import bucket_and_key

WEIGHTS = 2 * objects.PART_BYTES + 12_345  # bytes: three parts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed model folder with a file large enough to be sent in parts, and a file in a subfolder."""
    made = tmp_path / "model"
    (made / "deep").mkdir(parents=True)
    (made / "config.json").write_text('{"a": 1}')
    (made / "deep" / "odd name.txt").write_text("text")
    (made / "model.safetensors").write_bytes(os.urandom(WEIGHTS))
    seal(made, {"fingerprint": "f" * 32, "labels": ["a", "b"]})
    return made


def put(uri: str, content: bytes) -> None:
    name, key = bucket_and_key(uri)
    client().put_object(Bucket=name, Key=key, Body=content)


def written(uri: str) -> dict[str, str]:
    """ETag and time of each object below `uri`."""
    name, key = bucket_and_key(uri)
    found = client().list_objects_v2(Bucket=name, Prefix=key).get("Contents", [])
    return {entry["Key"].removeprefix(f"{key}/"): f"{entry['ETag']} {entry['LastModified']}" for entry in found}


def test_a_model_is_published_verified_and_copied(bucket: str, folder: Path) -> None:
    uri = f"{bucket}/lake/models/m/{'f' * 32}"
    assert read_manifest(uri) is None
    artifact = publish(folder, uri)
    verify(artifact)
    assert [found.uri for found in list_artifacts(f"{bucket}/lake/models/m")] == [uri]
    assert list_artifacts(f"{bucket}/lake/models/none") == []
    assert written(uri)["model.safetensors"].split('"')[1].endswith("-3"), "not sent in three parts"
    copy = local_copy(artifact)
    assert copy.is_relative_to(model_cache.cache_folder())
    for name in (*artifact.manifest["files"], MANIFEST):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
    assert local_copy(artifact) == copy
    assert publish(folder, uri) == artifact


def test_an_interrupted_publication_is_invisible_and_goes_on(bucket: str, folder: Path) -> None:
    uri = f"{bucket}/lake/models/m/{'f' * 32}"
    manifest = json.loads((folder / MANIFEST).read_text())
    for name in ("model.safetensors", "config.json"):
        assert objects.send(folder / name, f"{uri}/{name}", manifest["files"][name]["sha256"])
    put(f"{uri}/config.json", b"of another attempt")
    assert read_manifest(uri) is None
    assert list_artifacts(f"{bucket}/lake/models/m") == []
    before = written(uri)
    publish(folder, uri)
    after = written(uri)
    assert after["model.safetensors"] == before["model.safetensors"], "was sent again"
    assert after["config.json"] != before["config.json"]


@pytest.mark.parametrize("remote_only", [True, False])
def test_a_damaged_or_missing_file_is_named(bucket: str, folder: Path, remote_only: bool) -> None:
    artifact = publish(folder, f"{bucket}/lake/models/m/{'f' * 32}")
    check = verify if remote_only else local_copy
    put(f"{artifact.uri}/config.json", b'{"a": 2}')
    with pytest.raises(DamagedArtifact, match=r"config\.json has SHA-256"):
        check(artifact)
    name, key = bucket_and_key(f"{artifact.uri}/config.json")
    client().delete_object(Bucket=name, Key=key)
    with pytest.raises(DamagedArtifact, match=r"config\.json is missing"):
        check(artifact)
    assert not model_cache.cache_folder().exists() or not list(model_cache.cache_folder().iterdir())


def test_objects_that_say_no_hash_are_read(bucket: str, folder: Path) -> None:
    artifact = publish(folder, f"{bucket}/lake/models/m/{'f' * 32}")
    put(f"{artifact.uri}/config.json", b'{"a": 1}')  # the same content, copied there by a tool that keeps no metadata
    verify(artifact)


def test_a_copy_is_made_anew_when_it_was_damaged(bucket: str, folder: Path) -> None:
    artifact = publish(folder, f"{bucket}/lake/models/m/{'f' * 32}")
    (local_copy(artifact) / "config.json").write_text("damaged on local disk")
    assert (local_copy(artifact) / "config.json").read_text() == '{"a": 1}'


def test_copies_made_at_once_do_not_disturb_each_other(bucket: str, folder: Path) -> None:
    artifact = publish(folder, f"{bucket}/lake/models/m/{'f' * 32}")
    with ThreadPoolExecutor(3) as pool:
        copies = list(pool.map(local_copy, [artifact] * 3))
    assert len(set(copies)) == 1
    verify(Artifact(str(copies[0]), artifact.manifest))
    assert [path.name for path in model_cache.cache_folder().iterdir()] == [copies[0].name]


def test_the_cache_is_bounded(bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = publish(folder, f"{bucket}/lake/models/m/{'f' * 32}")
    first = local_copy(artifact)
    abandoned = model_cache.cache_folder() / ".killed.12345678"
    abandoned.mkdir()
    long_ago = first.stat().st_mtime - 2 * model_cache.ABANDONED_SECONDS
    for path in (first, abandoned):
        os.utime(path, (long_ago, long_ago))
    monkeypatch.setattr(model_cache, "CACHE_BYTES", WEIGHTS + 10_000)
    (folder / "config.json").write_text('{"a": 3}')
    seal(folder, {"fingerprint": "e" * 32, "labels": ["a", "b"]})
    second = local_copy(publish(folder, f"{bucket}/lake/models/m/{'e' * 32}"))
    assert [path.name for path in model_cache.cache_folder().iterdir()] == [second.name]
