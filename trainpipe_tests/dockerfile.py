"""The Dockerfile and .dockerignore read as Docker reads them, so that their steps can be tried without Docker."""

import fnmatch
import json
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainpipe_tests.programs import REPOSITORY


@dataclass(frozen=True)
class Instruction:
    """One instruction; `stage` counts the FROM lines before it, from 0."""

    stage: int
    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """Its words: of the exec form, or apart at spaces."""
        words: list[str] = json.loads(self.value) if self.value.startswith("[") else self.value.split()
        return words


def instructions(name: str | None = None) -> list[Instruction]:
    """The instructions of the Dockerfile, or those of one name."""
    text = re.sub(r"^#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found, stage = [], -1
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, _, value = line.partition(" ")
        stage += keyword == "FROM"
        found.append(Instruction(stage, keyword, value.strip()))
    return [each for each in found if name in (None, each.name)]


def last(name: str) -> Instruction:
    """The instruction that counts where several are allowed: the last one.

    Raises:
        AssertionError: there is none.
    """
    found = instructions(name)
    assert found, f"the Dockerfile has no {name}"
    return found[-1]


def environment(data: Path) -> dict[str, str]:
    """The image's variables, with `data` in the place of its volume and without PATH."""
    words = (word.partition("=") for each in instructions("ENV") if each.stage == last("FROM").stage for word in each.words)
    return {name: re.sub("^/data", str(data), value) for name, _, value in words if name != "PATH"}


def health_check(python: str, port: int) -> list[str]:
    """The command of HEALTHCHECK, by another interpreter and on another port."""
    words: list[str] = json.loads(last("HEALTHCHECK").value.partition("CMD ")[2])
    assert words[0] == "python"
    assert any(":3000/" in word for word in words), words
    return [python, *(word.replace(":3000/", f":{port}/") for word in words[1:])]


def stop_signal() -> signal.Signals:
    """The signal that ends a container."""
    found = instructions("STOPSIGNAL")
    return signal.Signals[found[-1].value] if found else signal.SIGTERM


def copied(stage: int) -> list[tuple[str, str]]:
    """Source and target folder of each copy from the build context in a stage."""
    copies = [each.words for each in instructions("COPY") if each.stage == stage and not each.value.startswith("--from")]
    return [(source, words[-1]) for words in copies for source in words[:-1]]


def let_through(path: str) -> bool:
    """Whether .dockerignore lets a file into the build context: the last pattern that matches it or a folder above decides."""
    taken = True
    for line in (REPOSITORY / ".dockerignore").read_text().split():
        pattern = line.removeprefix("!")
        if any(_matches(str(part), pattern) for part in (PurePosixPath(path), *PurePosixPath(path).parents)):
            taken = line.startswith("!")
    return taken


def _matches(path: str, pattern: str) -> bool:
    if path == ".":
        return False
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(PurePosixPath(path).name, pattern[3:])
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


def repository_files() -> list[str]:
    """Every file that a clone has, and those that are new and not ignored."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    return [path for path in done.stdout.splitlines() if (REPOSITORY / path).is_file()]


def copy_stage(stage: int, root: Path) -> None:
    """Do the copies of a stage from what .dockerignore lets through, with `root` in the place of /app.

    Raises:
        AssertionError: a source is not there, which would fail the build.
    """
    context = [path for path in repository_files() if let_through(path)]
    for source, target in copied(stage):
        folder = root / target
        if source in context:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / source, folder)
            continue
        inside = [path for path in context if path.startswith(f"{source}/")]
        assert inside, f"COPY {source}: nothing of that name in the build context"
        for path in inside:
            place = folder / PurePosixPath(path).relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / path, place)
