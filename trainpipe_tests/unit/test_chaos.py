"""The short version of `make chaos`: some kills at random instants, no row lost. On S3 the same is done in `s3/test_chaos.py`."""

from pathlib import Path

from trainpipe_tests.chaos import bombard


def test_no_row_is_lost_doubled_or_changed_by_kills_at_random_instants(tmp_path: Path) -> None:
    chaos = bombard(tmp_path, kills=16, seed=1)
    assert chaos.checks == 3
    assert chaos.fell.total() == 16
