"""The files that an operator starts from: the instance's configuration, the workspace, the container image and its entrypoint."""

import json
import os
import pwd
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml

from trainpipe_tests import dockerfile
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import write_stand_in
from trainpipe_tests.programs import BIN, REPOSITORY, Installation, wait_until
from trainpipe_tests.system_programs import require_postgres

ASSETS = {"raw_data", "cleaned_features", "rejected_rows", "drift_report", "tokenized_dataset", "fine_tuned_model", "eval_report"}
ENTRYPOINT = REPOSITORY / "docker-entrypoint.sh"
COMMAND_SECONDS = 400  # a bound, not a wish: it is met by a machine ten times slower than a laptop
ROWS = 300


def run(command: list[str], cwd: Path, environment: Mapping[str, str], expect: int | None = 0) -> str:
    """Everything that a command prints; `expect` is its exit code, None for any but 0."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == expect if expect is not None else done.returncode, f"exit code {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation with a tiny base model in the place of the sample one, and words landed."""
    root = tmp_path_factory.mktemp("instance")
    write_stand_in(root / "models")
    installation = Installation(root, root / "models", {"VIRTUAL_ENV": str(BIN.parent)})
    installation.land("words.csv", as_csv(examples(ROWS, seed=5)))
    return installation


# --- dagster.yaml, dagster.postgres.yaml ---


def instance_info(home: Path, environment: Mapping[str, str] | None = None, expect: int | None = 0) -> str:
    """`dagster instance info` for a home folder, as a container of the image would see it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_")}
    return run([str(BIN / "dagster"), "instance", "info"], home, {**kept, **(environment or {}), "DAGSTER_HOME": str(home)}, expect)


def test_the_instance_takes_every_setting_of_dagster_yaml(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    told = instance_info(tmp_path)
    assert "SqliteRunStorage" in told
    settings = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
    shown = told[told.index("$DAGSTER_HOME") :].splitlines()
    assert {f"{section}:" for section in settings} - {"nux:"} <= set(shown)  # nux is for the webserver; the command does not list it
    assert {"  max_concurrent_runs: 4", "  purge_after_days: 90"} & {line.removeprefix("  ") for line in shown}


def test_a_misspelt_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text().replace("run_retries:", "run_retry:"))
    assert "run_retry" in instance_info(tmp_path, expect=None)


@dataclass(frozen=True)
class Postgres:
    """A running server, which trusts everybody on its own loopback address."""

    host: str

    @property
    def environment(self) -> dict[str, str]:
        """What dagster.postgres.yaml reads."""
        return {f"DAGSTER_POSTGRES_{name}": value for name, value in
                (("HOST", self.host), ("USER", "trainpipe"), ("PASSWORD", "p@ss:word/"), ("DB", "postgres"))}  # fmt: skip


def some_loopback_address() -> str:
    """An address of this machine whose port 5432 nobody uses: the whole of 127.0.0.0/8 is the loopback on Linux."""
    return f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(2, 254)}"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A Postgres server of its own."""
    programs = require_postgres()
    user = "postgres" if os.geteuid() == 0 else None  # Postgres refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
    address = some_loopback_address()
    subprocess.run([programs / "initdb", "--pgdata", folder / "data", "--username", "trainpipe", "--auth", "trust", "--no-sync"],
                   user=user, cwd=folder, check=True, capture_output=True, timeout=COMMAND_SECONDS)  # fmt: skip
    options = {"listen_addresses": address, "unix_socket_directories": str(folder), "fsync": "off"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([programs / "postgres", "-D", folder / "data", *(f"--{name}={value}" for name, value in options.items())],
                                  user=user, cwd=folder, stdout=log, stderr=log, start_new_session=True)  # fmt: skip
    try:
        ready = [str(programs / "pg_isready"), "--quiet", f"--host={address}"]
        wait_until(lambda: subprocess.run(ready, check=False, timeout=30).returncode == 0, 180, "Postgres accepts connections")
        yield Postgres(address)
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder)


def test_the_instance_lives_in_postgres(tmp_path: Path, postgres: Postgres) -> None:
    home = tmp_path / "home"
    run(["sh", str(ENTRYPOINT), "true"], tmp_path, {**os.environ, **postgres.environment, "DAGSTER_HOME": str(home)})
    told = instance_info(home, postgres.environment)
    assert "PostgresRunStorage" in told
    assert "PostgresEventLogStorage" in told
    assert "PostgresScheduleStorage" in told
    assert "max_concurrent_runs: 4" in told
    assert "p@ss" not in told


def test_without_its_server_the_postgres_instance_says_so(tmp_path: Path) -> None:
    unreachable = Postgres(some_loopback_address())
    (tmp_path / "dagster.yaml").write_text("".join((REPOSITORY / f"dagster{part}.yaml").read_text() for part in (".postgres", "")))
    told = instance_info(tmp_path, unreachable.environment, expect=None)
    assert unreachable.host in told
    assert "Connection refused" in told


# --- docker-entrypoint.sh ---


def test_the_entrypoint_becomes_its_command(tmp_path: Path) -> None:
    home = tmp_path / "not yet" / "there"
    environment = {"PATH": os.environ["PATH"], "DAGSTER_HOME": str(home)}
    program = "import os, sys; print(os.getpid(), sys.argv[1:]); sys.exit(7)"
    command = ["sh", str(ENTRYPOINT), sys.executable, "-c", program, "two words", "*"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=COMMAND_SECONDS)
    assert output.split(" ", 1) == [str(process.pid), "['two words', '*']\n"]
    assert process.returncode == 7
    assert (home / "dagster.yaml").read_text() == (REPOSITORY / "dagster.yaml").read_text()


def test_the_entrypoint_chooses_the_storage_anew_at_each_start(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "DAGSTER_HOME": str(tmp_path)}
    for host, storage in (("db.example.com", True), ("", False), ("db.example.com", True)):
        run(["sh", str(ENTRYPOINT), "true"], tmp_path, {**environment, "DAGSTER_POSTGRES_HOST": host})
        written = yaml.safe_load((tmp_path / "dagster.yaml").read_text())
        assert ("storage" in written) is storage
        assert written["telemetry"] == {"enabled": False}
    assert set(written["storage"]["postgres"]["postgres_db"]) >= {"hostname", "username", "password", "db_name"}


def test_the_entrypoint_needs_a_home(tmp_path: Path) -> None:
    assert "DAGSTER_HOME" in run(["sh", str(ENTRYPOINT), "true"], tmp_path, {"PATH": os.environ["PATH"]}, expect=None)


# --- Dockerfile, .dockerignore ---


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert run([str(BIN / "hadolint"), "Dockerfile"], REPOSITORY, os.environ) == ""


def test_the_build_context_is_what_the_dockerfile_copies() -> None:
    files = dockerfile.repository_files()
    sources = {source for stage in (0, 1) for source, _ in dockerfile.copied(stage)}
    needed = {path for path in files if any(path == source or path.startswith(f"{source}/") for source in sources)}
    assert {path for path in files if dockerfile.let_through(path)} == needed
    assert all((REPOSITORY / source).exists() for source in sources)
    kept_out = (".env", ".git/config", ".venv/bin/python", "data/lake/tables/x", ".dagster/dagster.yaml", "trainpipe.egg-info/PKG-INFO",
                "trainpipe_assets/__pycache__/cli.pyc", "trainpipe_assets/data/__pycache__/sources.pyc")  # fmt: skip
    assert not [path for path in kept_out if dockerfile.let_through(path)]


def test_the_container_is_not_root_and_keeps_its_data() -> None:
    user, _, group = dockerfile.last("USER").value.partition(":")
    assert user.isdigit(), "a name is not enough for Kubernetes' runAsNonRoot"
    assert int(user) > 0
    assert int(group) > 0
    (account,) = (each.value for each in dockerfile.instructions("RUN") if "useradd" in each.value)
    assert f"--uid {user}" in account
    assert dockerfile.last("VOLUME").value == "/data"
    folders = [value for value in dockerfile.environment(Path("/data")).values() if value.startswith("/")]
    outside = [folder for folder in folders if not folder.startswith("/data/")]
    assert folders
    assert not outside, "what is written outside the volume is lost, and the user may not write there"


@dataclass(frozen=True)
class Image:
    """The image's file system outside Docker: /app, and the virtual environment, which takes its libraries from this one."""

    app: Path
    python: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Both stages of the Dockerfile, done step by step; only the installation of the libraries is left out."""
    root = tmp_path_factory.mktemp("image")
    app, python = root / "app", root / "venv" / "bin" / "python"
    dockerfile.copy_stage(0, app)
    venv.create(root / "venv", with_pip=False)
    libraries = sysconfig.get_path("purelib", vars={"base": str(root / "venv"), "platbase": str(root / "venv")})
    (Path(libraries) / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    environment = {"PATH": f"{python.parent}:{os.environ['PATH']}", **dockerfile.environment(root / "data")}
    (step,) = (each.value for each in dockerfile.instructions("RUN") if " pip install " in each.value)
    install = step.partition(" -m pip install ")[2].split()
    run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", *install], app, environment)
    shutil.rmtree(app)  # the second stage starts without it
    dockerfile.copy_stage(1, app)
    run(["sh", str(app / "docker-entrypoint.sh"), "true"], app, environment)
    return Image(app, python, environment)


def test_the_image_loads_its_workspace(image: Image) -> None:
    workspace = dockerfile.last("CMD").words[dockerfile.last("CMD").words.index("--workspace") + 1]
    told = run([str(image.python), "-m", "dagster", "definitions", "validate", "--workspace", workspace], image.app, image.environment)
    assert "All code locations passed validation" in told


def test_the_image_s_command_line_uses_the_one_copy_of_the_package(image: Image, tmp_path: Path) -> None:
    where = "import trainpipe_assets.definitions as module; print(module.__file__)"
    told = run([str(image.python), "-P", "-c", where], tmp_path, image.environment)
    assert told.strip() == str(image.app / "trainpipe_assets" / "definitions.py")
    status = json.loads(run([str(image.python.parent / "trainpipe"), "status", "--json"], tmp_path, image.environment))
    assert status["pipelines"]["reviews"]["landing"] == f"{image.environment['TRAINPIPE_LANDING']}/reviews"


# --- workspace.yaml and dg, from the repository root ---


def test_the_workspace_loads(place: Installation) -> None:
    done = place.run("dagster", "definitions", "validate", "--workspace", "workspace.yaml")
    assert done.returncode == 0, done.stderr
    assert "location trainpipe" in done.stdout + done.stderr


def test_dg_checks_and_lists_the_definitions(place: Installation) -> None:
    checked = place.run("dg", "check", "defs")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = place.run("dg", "list", "defs", "--json")
    assert listed.returncode == 0, listed.stderr
    found = json.loads(listed.stdout)
    assert {asset["asset_key"] for asset in found["assets"]} == ASSETS
    assert {each["name"] for each in found["sensors"]} == {"reviews_new_data", "run_failure_alert"}
    assert {each["name"] for each in found["schedules"]} == {"reviews_nightly", "reviews_maintenance_schedule"}


def test_dg_launches_every_asset_on_an_instance_in_postgres(
    place: Installation, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**place.environment, **postgres.environment}
    run(["sh", str(ENTRYPOINT), "true"], REPOSITORY, environment)
    run([str(BIN / "dg"), "launch", "--assets", "*"], REPOSITORY, environment)
    assert place.status()["tables"]["raw_data"]["rows"] == ROWS
    assert len(list((place.root / "lake" / "models" / "fine_tuned_model").glob("*/manifest.json"))) == 1
    for name in ("DAGSTER_HOME", *postgres.environment):
        monkeypatch.setenv(name, environment[name])
    with dg.DagsterInstance.get() as instance:
        assert [launched.status for launched in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
