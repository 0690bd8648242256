"""Proof that an S3 server keeps two writers from overwriting each other, without which it must not hold a lake.

A Delta commit on S3 is a put that must fail where the object is there already (`If-None-Match: *`). A server that ignores the header
tells both writers "done" and keeps one: rows vanish without an error anywhere. delta-rs cannot tell; so it is tried once for each lake.
"""

import functools
import json
import threading
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from trainpipe_assets.storage.s3_client import FAULTS, client, endpoint, explained
from trainpipe_assets.storage.s3_problems import UnsafeServer
from trainpipe_assets.storage.uris import absolute, bucket_and_key, is_s3, join

MARKER = "_conditional_puts.json"
RACERS = 4
_REFUSED = (409, 412)  # 412: the object is there; 409: another request is creating it at this moment


@dataclass(frozen=True)
class Proof:
    """When the server at `endpoint` was seen to honour conditional puts, by the server's own clock."""

    endpoint: str
    proven_at: str


def require_conditional_puts(root: str) -> Proof | None:
    """Make sure that the server of the lake at `root` honours conditional puts; None for a lake that is not on S3.

    The proof is kept in the lake, so that it is done once for each endpoint that the lake is reached by.

    Raises:
        UnsafeServer: it does not. Nothing is left behind.
        S3Problem: the lake cannot be reached or written to.
    """
    if not is_s3(root):
        return None
    return _proven(absolute(root), endpoint())


@functools.cache
def _proven(root: str, at: str) -> Proof:
    with explained(root):
        known = _read(root)
        if known is not None and known.endpoint == at:
            return known
        proof = Proof(at, prove(root))
        bucket, key = bucket_and_key(join(root, MARKER))
        client().put_object(Bucket=bucket, Key=key, Body=json.dumps(proof.__dict__, indent=2).encode(), ContentType="application/json")
        return proof


def forget_proofs() -> None:
    """Read the proofs anew at the next use: for a process whose environment changed."""
    _proven.cache_clear()


def _read(root: str) -> Proof | None:
    bucket, key = bucket_and_key(join(root, MARKER))
    try:
        found = json.loads(client().get_object(Bucket=bucket, Key=key)["Body"].read())
        return Proof(endpoint=str(found["endpoint"]), proven_at=str(found["proven_at"]))
    except ClientError as error:
        if error.response["Error"].get("Code") in ("NoSuchKey", "404"):
            return None
        raise
    except (ValueError, KeyError, TypeError):  # not what this module writes: prove anew
        return None


def prove(root: str) -> str:
    """Put an object twice, and another by several writers at once; the time of the proof, by the server's clock.

    Raises:
        UnsafeServer: more than one put of an object succeeded, or the one that had to succeed did not.
    """
    bucket, prefix = bucket_and_key(join(root, f"_conditional_puts-{uuid4().hex[:12]}"))
    twice, race = f"{prefix}-twice", f"{prefix}-race"
    try:
        first = _put(bucket, twice, b"first")
        if first.status != 200:
            raise UnsafeServer(_refusal(root, f"it refused to create an object that was not there ({first.status} {first.code})"))
        second = _put(bucket, twice, b"second")
        if second.status not in _REFUSED:
            raise UnsafeServer(_refusal(root, f"a second put of the same object was answered {second.status} {second.code}, not 412"))
        winners = [answer for answer in _put_at_once(bucket, race) if answer.status == 200]
        if len(winners) != 1:
            raise UnsafeServer(_refusal(root, f"of {RACERS} puts of one object at the same moment {len(winners)} succeeded, not one"))
    finally:
        for key in (twice, race):
            client().delete_object(Bucket=bucket, Key=key)
    return first.date


@dataclass(frozen=True)
class _Answer:
    """HTTP status, error code and server's time of a put."""

    status: int
    code: str
    date: str


def _put(bucket: str, key: str, body: bytes) -> _Answer:
    """One conditional put, sent once: a retry after a lost answer would be refused because of the first."""
    try:
        answer: dict[str, Any] = client(attempts=1).put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*")
        code = ""
    except ClientError as error:
        answer, code = dict(error.response), str(error.response["Error"].get("Code"))
        if answer["ResponseMetadata"]["HTTPStatusCode"] not in (*_REFUSED, 400, 501):  # 501: "not implemented"
            raise
    said = answer["ResponseMetadata"]
    return _Answer(int(said["HTTPStatusCode"]), code, str(said["HTTPHeaders"].get("date", "")))


def _put_at_once(bucket: str, key: str) -> list[_Answer]:
    """Answers to puts of one object by several writers that start together."""
    start = threading.Barrier(RACERS)
    answers: list[_Answer] = []
    failures: list[Exception] = []

    def race(number: int) -> None:
        start.wait()
        try:
            answers.append(_put(bucket, key, f"writer {number}".encode()))
        except FAULTS as error:
            failures.append(error)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return answers


def _refusal(root: str, found: str) -> str:
    return (
        f"{root}: the S3 server at {endpoint()} does not honour conditional puts (If-None-Match: *): {found}. Two runs that commit at the "
        "same moment would both be told that they succeeded, and the rows of one would be lost. Use a server that honours them (docs/guide/"
        "s3.md names some), or keep the lake in a local folder (TRAINPIPE_LAKE). No table was written"
    )
