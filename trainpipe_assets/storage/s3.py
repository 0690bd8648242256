"""What the rest of storage asks of S3: options for delta-rs and Polars, safe commits, and one clear message when a person has to act.

For what is not on S3 every answer is "nothing to do", at no cost: botocore, a quarter of a second to import, is met in `s3_client.py` only.
"""

from collections.abc import Iterator
from contextlib import contextmanager

SCHEME = "s3://"


class S3Problem(ValueError):
    """S3 refuses, for a reason that a person has to remove."""


class S3Unreachable(S3Problem):
    """No S3 server answers, or it fails again and again. That may pass, so it is worth another try."""


class UnsafeServer(S3Problem):
    """An S3 server that would lose commits."""


def is_s3(uri: str) -> bool:
    """Whether `uri` is on S3."""
    return uri.startswith(SCHEME)


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI."""
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    return bucket, key


def options(uri: str) -> dict[str, str] | None:
    """Storage options for delta-rs and Polars; None for what is not on S3.

    Raises:
        S3Problem: there is no such bucket, no access to it, or no server.
    """
    if not is_s3(uri):
        return None
    from trainpipe_assets.storage import s3_client

    return s3_client.storage_options(uri)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn a failure of S3 inside, after the libraries' own retries, into one clear message; a look at the bucket tells why.

    Others (an object that is not there, damaged data) pass as they are: they are for the caller.

    Raises:
        S3Problem: a person has to do something.
    """
    if not is_s3(uri):
        yield
        return
    from trainpipe_assets.storage import s3_client

    s3_client.require_access(uri)
    try:
        yield
    except s3_client.FAULTS as error:
        problem = s3_client.diagnose(uri, error)
        if problem is None:
            raise
        raise problem from error


def require_safe_commits(table_uri: str) -> None:
    """Make sure that the server of a table does not lose commits: proven once for each lake on S3.

    Raises:
        UnsafeServer: it would.
        S3Problem: the lake cannot be reached or written to.
    """
    if is_s3(table_uri):
        from trainpipe_assets.storage.conditional_puts import lake_of, require_conditional_puts

        require_conditional_puts(lake_of(table_uri))
