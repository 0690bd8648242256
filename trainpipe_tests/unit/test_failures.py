"""What a person has to mend is one message and is not retried; everything else passes as it came."""

import errno
import shutil
from pathlib import Path

import dagster as dg
import pytest

from trainpipe_assets.data.sources import FileChangedWhileReading
from trainpipe_assets.pipeline.failures import explained
from trainpipe_assets.pipeline.io_managers import _require_lake
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


def test_only_a_file_of_a_table_is_made_anew_by_deleting_its_folder() -> None:
    missing = refused_by_disk(FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere/scratch"))
    assert missing == "[Errno 2] No such file or directory: '/nowhere/scratch'. Make it, or correct the setting or variable that names it"
    on_disk = LibraryError("No such file or directory (os error 2): /lake/tables/raw_data/part-1.parquet")
    on_s3 = FileNotFoundError(
        "part-1.parquet not found: Error performing GET http://s3/tables/raw_data/part-1.parquet - Server returned <?xml"
    )
    for lost in (refused_by_disk(on_disk), refused_by_disk(on_s3)):
        assert (lost or "").endswith(
            "part-1.parquet. A table has lost a file that was there: delete the folder of that table, and the next run makes it anew"
        )


@pytest.mark.parametrize("error", [OSError("the server closed the connection"), ConnectionError(errno.ECONNRESET, "reset"), KeyError("x")])
def test_other_faults_pass_as_they_came(error: Exception) -> None:
    assert refused_by_disk(error) is None
    with pytest.raises(type(error)) as caught, explained():
        raise error
    assert caught.value is error


def test_of_a_folder_that_the_disk_does_not_take_the_first_reason_is_told() -> None:
    reasons = [("a/x", "b/x", "[Errno 28] No space left on device: 'b/x'"), ("a/y", "b/y", "[Errno 28] No space left on device: 'b/y'")]
    told = refused_by_disk(shutil.Error(reasons))
    assert told is not None
    assert told.startswith("[Errno 28] No space left on device: 'b/x'. The disk is full: free some space and run again")


def test_no_model_is_published_into_a_lake_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="/lake/tables/tokenized_dataset, which the model was trained on, is not there any more"):
        _require_lake({"lake": {"tokenized_dataset": {"uri": str(tmp_path / "lake" / "tables" / "tokenized_dataset")}}})
