"""What a person has to mend is one message and is not retried; everything else passes as it came."""

import errno
import shutil

import dagster as dg
import pytest

from trainpipe_assets.data.sources import FileChangedWhileReading
from trainpipe_assets.pipeline.failures import explained
from trainpipe_assets.storage.disk import refused_by_disk


class LibraryError(Exception):
    """As native libraries raise them: the number of the error stands in the words."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. The disk is full: free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/lake/x"), "'/lake/x'. Let whoever runs the pipeline read and write there"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), "The disk is full: free some space"),
        (LibraryError("cannot write: Read-only file system (os error 30)"), "os error 30). The disk is mounted so that nothing"),
        (
            OSError("Permission denied (os error 13): ...ta.parquet (set POLARS_VERBOSE=1 to see full path)"),
            "...ta.parquet. Let whoever runs",
        ),
    ],
)
def test_what_the_disk_refuses_is_one_message_and_not_retried(error: Exception, said: str) -> None:
    with pytest.raises(dg.Failure) as caught, explained():
        raise error
    assert said in (caught.value.description or "")
    assert "POLARS" not in (caught.value.description or "")
    assert not caught.value.allow_retries


def test_a_file_that_changes_while_it_is_read_is_one_message_and_read_again() -> None:
    with pytest.raises(dg.Failure) as caught, explained():
        raise FileChangedWhileReading("landing/a.csv changed while it was being read")
    assert caught.value.description == "landing/a.csv changed while it was being read"
    assert caught.value.allow_retries


@pytest.mark.parametrize("error", [OSError("the server closed the connection"), ConnectionError(errno.ECONNRESET, "reset"), KeyError("x")])
def test_other_faults_pass_as_they_came(error: Exception) -> None:
    assert refused_by_disk(error) is None
    with pytest.raises(type(error)) as caught, explained():
        raise error
    assert caught.value is error
