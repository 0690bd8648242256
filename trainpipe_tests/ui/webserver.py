"""`dagster dev` as the container image runs it: by the entrypoint, on a loopback port, and stopped by the image's own signal."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainpipe_tests.dockerfile import health_check, last, stop_signal
from trainpipe_tests.programs import BIN, REPOSITORY, Installation

START_SECONDS, STOP_SECONDS = 300.0, 60.0
RUN_QUERY = "{ runsOrError { ... on Runs { results { runId status assetSelection { path } } } } }"

# A container starts its command with no signal ignored; a test may run below a shell that ignores some.
WITH_DEFAULT_SIGNALS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


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
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def runs(self) -> list[dict[str, Any]]:
        """All runs, the newest first."""
        found: list[dict[str, Any]] = self.ask(RUN_QUERY)["runsOrError"]["results"]
        return found

    def launch(self, job: str, config: dict[str, Any]) -> str:
        """Launch a job as the Launchpad does; the id of the run."""
        selector = f'{{repositoryName: "__repository__", repositoryLocationName: "trainpipe", jobName: "{job}"}}'
        quoted = json.dumps(json.dumps(config))
        params = f"{{selector: {selector}, runConfigData: {quoted}}}"
        answer = self.ask(
            f"mutation {{ launchRun(executionParams: {params}) {{ __typename ... on LaunchRunSuccess {{ run {{ runId }} }} }} }}"
        )
        assert answer["launchRun"]["__typename"] == "LaunchRunSuccess", answer
        run_id: str = answer["launchRun"]["run"]["runId"]
        return run_id

    def cancel(self, run_id: str) -> None:
        """Ask for the end of a run as the button in the UI does."""
        answer = self.ask(f'mutation {{ terminateRun(runId: "{run_id}") {{ __typename }} }}')
        assert answer["terminateRun"]["__typename"] == "TerminateRunSuccess", answer

    def stop_sensors(self) -> None:
        """Switch off the sensor that would launch runs of its own."""
        selector = '{repositoryName: "__repository__", repositoryLocationName: "trainpipe", sensorName: "reviews_new_data"}'
        found = self.ask(f"{{ sensorOrError(sensorSelector: {selector}) {{ __typename ... on Sensor {{ id }} }} }}")["sensorOrError"]
        answer = self.ask(f'mutation {{ stopSensor(id: "{found["id"]}") {{ __typename }} }}')
        assert answer["stopSensor"]["__typename"] == "StopSensorMutationResult", answer

    def is_healthy(self) -> bool:
        """The verdict of the image's own health check."""
        return subprocess.run(health_check(sys.executable, self.port), capture_output=True, timeout=30, check=False).returncode == 0

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

    def is_gone(self) -> bool:
        """Whether no process of the group is left."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def kill(self) -> None:
        """End whatever is left of the process group."""
        if not self.is_gone():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=30)


def start_webserver(place: Installation, log: Path) -> Webserver:
    """Start the image's command by its entrypoint, with the repository in the place of /app and another port."""
    port = free_port()
    here = {"0.0.0.0": "127.0.0.1", "3000": str(port), "dagster": str(BIN / "dagster")}
    words = [*last("ENTRYPOINT").words, *last("CMD").words]
    command = [here.get(word, word.replace("/app/", f"{REPOSITORY}/")) for word in words]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", WITH_DEFAULT_SIGNALS, *command],
            cwd=REPOSITORY,
            env=place.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Webserver(place, port, process, log)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
