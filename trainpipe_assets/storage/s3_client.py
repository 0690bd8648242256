"""The S3 server as botocore finds it (environment, profiles, roles), told to the other libraries; and what its refusals ask of a person.

Used through `s3.py`. What is stored is not known here; whether a server can hold a lake at all is `conditional_puts.py`'s question.
"""

import errno
import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp  # s3fs hands on what it raises while an answer is being read
import botocore.session
import polars as pl
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    InvalidConfigError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from deltalake.exceptions import DeltaError

from trainpipe_assets.storage.s3_problems import S3Problem, S3Unreachable
from trainpipe_assets.storage.uris import bucket_and_key

DEFAULT_REGION = "us-east-1"
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 10, 3  # a server that takes connections and never answers is given up after half a minute
# Of delta-rs and Polars, which move data: 30 s a request, and no new try of it after a minute.
_PATIENCE = {"connect_timeout": f"{CONNECT_SECONDS}s", "timeout": "30s", "retry_timeout": "60s"}
FAULTS = (OSError, DeltaError, pl.exceptions.ComputeError, BotoCoreError, ClientError, aiohttp.ClientError)
"""What the libraries raise when S3 fails them."""

# How botocore calls the ways to credentials that delta-rs and Polars know, and renew, by themselves.
_NATIVE = ("env", "iam-role", "container-role", "assume-role-with-web-identity")
_BAD_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired", "InvalidClientTokenId")
_DENIED = ("AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403")
_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301")
_PASSING = ("InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "ThrottlingException", "503", "500")
_WORDS = (
    "Generic S3 error",
    "HTTP error",
    "error sending request",
    "Server returned",
    "retry_timeout",
    *_PASSING[:4],
)  # of delta-rs, Polars
_NO_KEYS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError, UnauthorizedSSOTokenError)
_NO_ANSWER = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError)
_PLACES = "TRAINPIPE_LAKE, TRAINPIPE_LANDING or source.uri"


_regions: dict[str, str] = {}  # of the buckets that this process has access to


@functools.cache
def _session() -> Any:
    return botocore.session.Session()


@functools.cache
def client(attempts: int = ATTEMPTS) -> Any:
    """A botocore client that tries each request `attempts` times. One for the process: its creation takes 0.2 s.

    Raises:
        S3Problem: the AWS configuration names a profile or a value that is not there.
    """
    config = Config(
        connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"mode": "standard", "total_max_attempts": attempts}
    )
    try:
        return _session().create_client("s3", config=config)
    except (ProfileNotFound, InvalidConfigError, ValueError, *_NO_KEYS) as error:
        raise S3Problem(f"the AWS configuration cannot be used: {error}. Correct AWS_PROFILE, AWS_ENDPOINT_URL or ~/.aws/config") from error


def forget_configuration() -> None:
    """Read the AWS configuration anew at the next use: for a process whose environment changed."""
    _session.cache_clear()
    client.cache_clear()
    _regions.clear()


def endpoint() -> str:
    """URL of the S3 server."""
    return str(client().meta.endpoint_url)


def storage_options(uri: str) -> dict[str, str]:
    """Storage options for delta-rs and Polars.

    They name what these libraries would not find as botocore does: the endpoint and region of a profile, permission for plain http,
    and credentials that come neither from the environment nor from the machine. Commits are conditional puts whatever the environment says.

    Raises:
        S3Problem: there is no such bucket, no access to it, or no server.
    """
    found = {
        "AWS_REGION": require_access(uri),
        "AWS_CONDITIONAL_PUT": "etag",
        "AWS_S3_ALLOW_UNSAFE_RENAME": "false",
        **_PATIENCE,
    }
    url = endpoint()
    if not str(urlsplit(url).hostname).endswith((".amazonaws.com", ".amazonaws.com.cn")):
        found["AWS_ENDPOINT_URL"] = url
    if url.startswith("http://"):
        found["AWS_ALLOW_HTTP"] = "true"
    return {**found, **_keys()}


def _keys() -> dict[str, str]:
    """Credentials as they are now; none where delta-rs and Polars find and renew them by themselves."""
    credentials = _session().get_credentials()
    if credentials is None or credentials.method in _NATIVE:
        return {}
    frozen = credentials.get_frozen_credentials()
    token = {"AWS_SESSION_TOKEN": frozen.token} if frozen.token else {}
    return {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key, **token}


def credentials_source() -> str | None:
    """Where the credentials come from, in botocore's words (env, shared-credentials-file, iam-role, ...); None where there are none.

    Raises:
        S3Problem: they cannot be had.
    """
    try:
        credentials = _session().get_credentials()
    except BotoCoreError as error:
        raise S3Problem(f"AWS credentials cannot be had: {error}") from error
    return None if credentials is None else str(credentials.method)


def require_access(uri: str) -> str:
    """List an object at `uri`, once for its bucket, so that a wrong set-up fails in seconds and not after retries; the bucket's region.

    Raises:
        S3Problem: there is no such bucket, no access to it, or no server.
    """
    bucket, key = bucket_and_key(uri)
    try:
        if bucket not in _regions:
            _regions[bucket] = _look_up(bucket, key and f"{key.rstrip('/')}/")
        return _regions[bucket]
    except (BotoCoreError, ClientError) as error:
        raise _problem(uri, error) or _failing(uri, error) from error


def _look_up(bucket: str, prefix: str) -> str:
    headers: Mapping[str, str] = client().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)["ResponseMetadata"]["HTTPHeaders"]
    region = headers.get("x-amz-bucket-region") or client().meta.region_name
    return DEFAULT_REGION if region in (None, "aws-global") else str(region)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn a failure of S3 inside into one clear message; see `s3.explained`.

    Raises:
        S3Problem: a person has to do something.
    """
    require_access(uri)
    try:
        yield
    except FAULTS as error:
        problem = diagnose(uri, error)
        if problem is None:
            raise
        raise problem from error


def diagnose(uri: str, error: BaseException) -> S3Problem | None:
    """What a person can do about `error`, which came up at `uri`; None where it is not a fault of bucket, access, network or server."""
    _regions.pop(bucket_and_key(uri)[0], None)
    try:
        require_access(uri)
    except S3Problem as problem:
        return problem
    if _says_denied(error):
        return _denied(uri, str(error))
    return _failing(uri, error) if _is_fault_of_server(error) else None


def _failing(uri: str, error: BaseException) -> S3Unreachable:
    return S3Unreachable(
        f"{uri}: the S3 server at {endpoint()} fails, or its answers do not arrive ({_short(error)}). Nothing half-written can be seen; "
        "run again, and look at the server and the network if this comes back"
    )


def _is_fault_of_server(error: BaseException) -> bool:
    """Whether it says that the server or the way to it failed, not that an object is missing, or damaged, or the local disk full."""
    if isinstance(error, ClientError):
        said = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return said >= 500 or said == 429 or error.response["Error"].get("Code") in _PASSING
    if isinstance(error, BotoCoreError | ConnectionError | TimeoutError | aiohttp.ClientError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (
            errno.EIO,
            errno.EBUSY,
            errno.EREMOTEIO,
            errno.ENETUNREACH,
            errno.EHOSTUNREACH,
        )  # how s3fs spells errors of the server
    return any(word in str(error) for word in _WORDS)


def _says_denied(error: BaseException) -> bool:
    said = str(error)
    return isinstance(error, PermissionError) or any(word in said for word in ("AccessDenied", "necessary privileges", "403 Forbidden"))


def _problem(uri: str, error: Exception) -> S3Problem | None:
    bucket, _ = bucket_and_key(uri)
    if isinstance(error, _NO_KEYS):
        return S3Problem(
            f"{uri}: no AWS credentials were found ({error}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give "
            "this machine a role"
        )
    if isinstance(error, _NO_ANSWER):
        return S3Unreachable(
            f"{uri}: no S3 server answers at {endpoint()} ({_short(error)}). Check that it runs and that this machine reaches it, or "
            "correct AWS_ENDPOINT_URL; without that variable the server is AWS"
        )
    if isinstance(error, ParamValidationError):
        return S3Problem(f"{uri}: {bucket!r} is not a name that a bucket can have; correct {_PLACES} (s3://bucket/prefix)")
    return _refusal(uri, error) if isinstance(error, ClientError) else None


def _refusal(uri: str, error: ClientError) -> S3Problem | None:
    """What the server's error code asks of a person."""
    bucket, _ = bucket_and_key(uri)
    code, said = str(error.response["Error"].get("Code")), str(error.response["Error"].get("Message"))
    if code in ("NoSuchBucket", "404"):
        return S3Problem(f"{uri}: there is no bucket {bucket!r} at {endpoint()}. Create it, or correct {_PLACES}")
    if code in _BAD_KEYS:
        return S3Problem(
            f"{uri}: {endpoint()} does not accept the AWS credentials found in {credentials_source()} ({code}: {said}). Correct "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or log in anew"
        )
    if code in _DENIED:
        return _denied(uri, f"{code}: {said}")
    if code in _ELSEWHERE:
        return S3Problem(f"{uri}: the bucket is in another region than {client().meta.region_name} ({code}: {said}). Set AWS_REGION")
    if code == "RequestTimeTooSkewed":
        return S3Problem(f"{uri}: the clock of this machine is wrong ({said}). Set it")
    if code == "InvalidBucketName":
        return S3Problem(f"{uri}: {bucket!r} is not a name that a bucket can have; correct {_PLACES} (s3://bucket/prefix)")
    return None


def _denied(uri: str, said: str) -> S3Problem:
    bucket, key = bucket_and_key(uri)
    return S3Problem(
        f"{uri}: access denied at {endpoint()} ({_short(said)}). The credentials found in {credentials_source()} need s3:ListBucket on "
        f"{bucket!r} and s3:GetObject, s3:PutObject and s3:DeleteObject on {bucket}/{key.rstrip('/')}*: docs/guide/s3.md has the policy"
    )


def _short(error: object) -> str:
    """The first words of a library's message, on one line and without the colours of a terminal."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:200]
