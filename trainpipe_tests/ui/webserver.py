"""`dagster dev` as the container image runs it: by the entrypoint, on a loopback port, and stopped by the image's own signal."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainpipe_tests.programs import BIN, REPOSITORY, Installation

START_SECONDS, STOP_SECONDS = 120.0, 60.0
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
RUN_QUERY = "{ runsOrError { ... on Runs { results { runId status assetSelection { path } } } } }"


@dataclass
class Webserver:
    """The services of one installation, in a process group of their own; what they print is in `log`."""

    place: Installation
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """Where the UI answers."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, query: str) -> Any:
        """The data of a GraphQL answer."""
        request = urllib.request.Request(
            f"{self.url}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            body = json.load(answer)
        assert "errors" not in body, body["errors"]
        return body["data"]

    def runs(self) -> list[dict[str, Any]]:
        """All runs, the newest first."""
        found: list[dict[str, Any]] = self.ask(RUN_QUERY)["runsOrError"]["results"]
        return found

    def is_healthy(self) -> bool:
        """The verdict of the image's own health check."""
        probe = re.search(r"HEALTHCHECK .*?CMD (\[.*?\])\n", DOCKERFILE, re.DOTALL)
        assert probe is not None, "the Dockerfile has no HEALTHCHECK in exec form"
        command = [str(BIN / "python"), *json.loads(probe[1].replace(":3000/", f":{self.port}/"))[1:]]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0

    def wait_until_healthy(self) -> None:
        """Until the health check passes.

        Raises:
            AssertionError: the services ended, or did not come up in time; with the end of their log.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.is_healthy():
            assert self.process.poll() is None, f"dagster dev ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"no UI after {START_SECONDS:.0f} s:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.5)

    def stop(self) -> int:
        """Stop the services as `docker stop` does; the exit code."""
        os.kill(self.process.pid, stop_signal())
        return self.process.wait(timeout=STOP_SECONDS)

    def kill(self) -> None:
        """End whatever is left of the process group."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(timeout=30)


def start_webserver(place: Installation, log: Path) -> Webserver:
    """Start the image's command by its entrypoint, on this machine and another port."""
    port = free_port()
    words = {"0.0.0.0": "127.0.0.1", "3000": str(port), "dagster": str(BIN / "dagster")}
    command = [words.get(word, word) for word in exec_form("CMD")]
    entrypoint = [str(REPOSITORY / word.rsplit("/", 1)[1]) if word.endswith(".sh") else word for word in exec_form("ENTRYPOINT")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _WITH_DEFAULT_SIGNALS, *entrypoint, *command],
            cwd=REPOSITORY,
            env=place.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Webserver(place, port, process, log)


# A container starts its command with no signal ignored; a test may run below a shell that ignores some.
_WITH_DEFAULT_SIGNALS = (
    "import os, signal, sys; [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGINT, signal.SIGTERM)]; os.execvp(sys.argv[1], sys.argv[1:])"
)


def exec_form(instruction: str) -> list[str]:
    """The words of the Dockerfile's last `instruction`, which stands in exec form."""
    found = re.findall(rf"^{instruction} (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found, f"the Dockerfile has no {instruction} in exec form"
    words: list[str] = json.loads(found[-1])
    return words


def stop_signal() -> signal.Signals:
    """The signal that the image is stopped by."""
    found = re.findall(r"^STOPSIGNAL (\w+)$", DOCKERFILE, re.MULTILINE)
    return signal.Signals[found[-1]] if found else signal.SIGTERM


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
