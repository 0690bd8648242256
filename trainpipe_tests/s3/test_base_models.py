"""A base model in a folder on a real S3 server: copied once, anew when it changes there, and trained from like any other."""

from pathlib import Path

import fsspec
import pytest

from trainpipe_assets.storage import base_models
from trainpipe_assets.storage.model_cache import cache_folder
from trainpipe_assets.storage.s3_client import client
from trainpipe_assets.storage.uris import bucket_and_key
from trainpipe_assets.training.model import load_classifier
from trainpipe_tests.unit.training_fixtures import write_tiny_base


def upload(folder: Path, uri: str) -> None:
    """Put the files of `folder` below `uri`, and two that are of no use."""
    bucket, prefix = bucket_and_key(uri)
    for file in folder.iterdir():
        client().put_object(Bucket=bucket, Key=f"{prefix}/{file.name}", Body=file.read_bytes())
    client().put_object(Bucket=bucket, Key=f"{prefix}/README.md", Body=b"of no use")
    client().put_object(Bucket=bucket, Key=f"{prefix}/deep/model.safetensors", Body=b"of another model")


@pytest.fixture
def uploaded(bucket: str, tmp_path: Path) -> str:
    upload(write_tiny_base(tmp_path / "base"), f"{bucket}/models/tiny")
    return f"{bucket}/models/tiny"


def test_a_folder_on_s3_is_a_base_model(uploaded: str, tmp_path: Path) -> None:
    base, local = base_models.resolve(uploaded, "unused"), base_models.resolve(str(tmp_path / "base"), "unused")
    assert Path(base.folder).is_relative_to(cache_folder())
    assert base.digest == local.digest, "the same files are another model"
    assert {path.name for path in Path(base.folder).iterdir()} <= {path.name for path in (tmp_path / "base").iterdir()}
    assert load_classifier(base.folder, ("a", "b"), 0).config.hidden_size == 32


def test_it_is_fetched_once_and_anew_when_it_changes(uploaded: str, tmp_path: Path) -> None:
    first = base_models.resolve(uploaded, "unused")
    stamp = (Path(first.folder) / "model.safetensors").stat().st_mtime_ns
    assert base_models.resolve(uploaded, "unused") == first
    assert (Path(first.folder) / "model.safetensors").stat().st_mtime_ns == stamp, "was fetched again"
    upload(write_tiny_base(tmp_path / "base", dropout=0.2), uploaded)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # another process, which has not listed the folder before
    second = base_models.resolve(uploaded, "unused")
    assert second.folder != first.folder
    assert second.digest != first.digest


def test_a_folder_without_a_model_is_named(bucket: str) -> None:
    with pytest.raises(ValueError, match=r"is no folder on S3 with a model in it"):
        base_models.resolve(f"{bucket}/nothing/here", "unused")
