"""The short version of `make chaos` on S3: tables and landing folder on a real server, some kills, no row lost."""

from pathlib import Path

from trainpipe_tests.chaos import bombard
from trainpipe_tests.conftest import aws_environment
from trainpipe_tests.s3_server import S3Server


def test_no_row_on_s3_is_lost_doubled_or_changed_by_kills_at_random_instants(s3_server: S3Server, tmp_path: Path) -> None:
    with aws_environment(s3_server.environment):
        chaos = bombard(tmp_path, kills=10, seed=2, server=s3_server)
    assert chaos.checks == 3
    assert chaos.fell.total() == 10
