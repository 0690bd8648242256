"""A server proves that it honours conditional puts before it holds a lake: a real one does, careless ones are refused."""

import json

import polars as pl
import pytest

from trainpipe_assets.storage import delta
from trainpipe_assets.storage.conditional_puts import MARKER, forget_proofs, prove, require_conditional_puts
from trainpipe_assets.storage.s3_client import client
from trainpipe_assets.storage.s3_problems import UnsafeServer
from trainpipe_assets.storage.uris import bucket_and_key, lake_of
from trainpipe_tests.conftest import aws_environment
from trainpipe_tests.s3.careless_server import careless_server
from trainpipe_tests.s3_server import S3Server


def keys(uri: str) -> list[str]:
    name, prefix = bucket_and_key(uri)
    return sorted(entry["Key"] for entry in client().list_objects_v2(Bucket=name, Prefix=prefix).get("Contents", []))


def test_a_real_server_proves_it_once_and_the_lake_remembers(bucket: str, s3_server: S3Server) -> None:
    root = f"{bucket}/team/lake"
    proof = require_conditional_puts(root)
    assert proof is not None
    assert proof.endpoint == s3_server.endpoint
    assert keys(bucket) == [f"team/lake/{MARKER}"], "the objects of the proof were left behind"
    name, prefix = bucket_and_key(root)
    marker = json.loads(client().get_object(Bucket=name, Key=f"{prefix}/{MARKER}")["Body"].read())
    assert marker == {"endpoint": s3_server.endpoint, "proven_at": proof.proven_at}
    forget_proofs()
    assert require_conditional_puts(root) == proof, "proven again, though the lake says when it was"


@pytest.mark.parametrize("content", [b'{"endpoint": "https://elsewhere.example", "proven_at": "then"}', b"no json", b"[]"])
def test_a_marker_of_another_endpoint_or_of_no_use_proves_nothing(bucket: str, s3_server: S3Server, content: bytes) -> None:
    name, _ = bucket_and_key(bucket)
    client().put_object(Bucket=name, Key=f"lake/{MARKER}", Body=content)
    proof = require_conditional_puts(f"{bucket}/lake")
    assert proof is not None
    assert proof.endpoint == s3_server.endpoint


def test_the_first_commit_proves_it(bucket: str) -> None:
    rows = pl.LazyFrame({"row_id": ["a"]})
    delta.commit(f"{bucket}/lake/tables/reviews/raw_data", None, rows, None, fingerprint=1, upstream=0, note={})
    assert f"lake/{MARKER}" in keys(bucket)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("ignores", "a second put of the same object was answered 200"),
        ("slow to notice", "of 4 puts of one object at the same moment 4 succeeded"),
        ("refuses", "it refused to create an object that was not there (501 NotImplemented)"),
    ],
)
def test_a_careless_server_is_refused_and_nothing_is_written(s3_server: S3Server, kind: str, found: str) -> None:
    rows = pl.LazyFrame({"row_id": ["a"]})
    with careless_server(kind) as (endpoint, seen), aws_environment({**s3_server.environment, "AWS_ENDPOINT_URL": endpoint}):
        with pytest.raises(UnsafeServer) as refusal:
            delta.commit("s3://lake/here/tables/raw_data", None, rows, None, fingerprint=1, upstream=0, note={})
        with pytest.raises(UnsafeServer):
            require_conditional_puts("s3://lake/here")
    message = str(refusal.value)
    assert found in message
    assert message.startswith(f"s3://lake/here: the S3 server at {endpoint} does not honour conditional puts")
    assert "\n" not in message
    puts = {line.split()[1].partition("?")[0] for line in seen if line.startswith("PUT")}
    assert puts
    assert all("/_conditional_puts-" in put for put in puts), "something else was written"
    assert puts <= {line.split()[1].partition("?")[0] for line in seen if line.startswith("DELETE")}, "something was left behind"


def test_racing_writers_have_one_winner_every_time(bucket: str) -> None:
    for _ in range(5):
        assert prove(f"{bucket}/lake")


def test_the_lake_of_a_table() -> None:
    assert lake_of("s3://bucket/prefix/tables/a/b") == "s3://bucket/prefix"
    assert lake_of("s3://bucket/tables/raw") == "s3://bucket"
    assert lake_of("s3://bucket/some/table") is None
