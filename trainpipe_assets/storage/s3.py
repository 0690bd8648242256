"""What the rest of storage asks of S3: options for delta-rs and Polars, safe commits, and one clear message when a person has to act.

For what is not on S3 every answer is "nothing to do", at no cost: botocore, a quarter of a second to import, is met in `s3_client.py` only.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from trainpipe_assets.storage.s3_problems import S3Problem
from trainpipe_assets.storage.uris import is_s3, lake_of


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

    with s3_client.explained(uri):
        yield


def problem_of(error: Exception) -> S3Problem | None:
    """What S3 refuses, where a query fails far from whoever knows the place of its table: Polars names it. None for any other error."""
    place = re.search(r"Generic S3 error.*\(path: (s3://[^\s)]+)", str(error), re.DOTALL)
    if place is None or isinstance(error, ValueError):
        return None
    from trainpipe_assets.storage import s3_client

    return s3_client.diagnose(place[1], error)


def require_safe_commits(table_uri: str) -> None:
    """Make sure that the server of a table does not lose commits: proven once for each lake on S3.

    Raises:
        UnsafeServer: it would.
        S3Problem: the lake cannot be reached or written to.
    """
    if is_s3(table_uri):
        from trainpipe_assets.storage.conditional_puts import require_conditional_puts

        require_conditional_puts(lake_of(table_uri) or table_uri.rpartition("/")[0])
