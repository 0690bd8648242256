"""Sealed folders of local disk, kept on an object store as well by a thread: nobody waits for it, and at most one transfer is under way.

What the folders are, and which of them matter, is the caller's.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from trainpipe_assets.storage.artifacts import Artifact, DamagedArtifact, list_artifacts, manifest_of, publish
from trainpipe_assets.storage.s3 import explained
from trainpipe_assets.storage.uris import is_remote, join, open_filesystem

log = logging.getLogger(__name__)


class Mirror:
    """The folders at `uri`, which become those that `keep` named last."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._asked: Sequence[Path] | None = None
        self._sending: Sequence[Path] = ()
        self._sent: set[str] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> set[str]:
        """Names of the folders that must stay where they are, as they are still to be sent."""
        with self._changed:
            return {folder.name for folder in (*self._sending, *(self._asked or ()))}

    def keep(self, folders: Sequence[Path]) -> None:
        """Have these folders there, sent in this order, and then no others. Returns at once; what was asked before and is not begun is not
        done any more."""
        with self._changed:
            self._asked = folders
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="mirror")
                self._thread.start()

    def settle(self, patience: float) -> bool:
        """Wait for what was asked to be done, so many seconds at most; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._asked is None and not self._sending, patience)

    def complete(self) -> list[Artifact]:
        """The folders that are whole, by name."""
        return list_artifacts(self.uri)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked is not None)
                self._sending, self._asked = self._asked or (), None
            try:
                for folder in self._sending:
                    if folder.name not in self._sent:
                        self._send(folder)
                self._remove_all_but({folder.name for folder in self._sending})
            except (ValueError, OSError) as error:  # what S3 refuses, and folders that are not what they say
                log.warning("%s could not be brought up to date, which is tried again with the next folder: %s", self.uri, error)
            with self._changed:
                self._sending = ()
                self._changed.notify_all()

    def _send(self, folder: Path) -> None:
        uri = join(self.uri, folder.name)
        try:
            same = publish(folder, uri).manifest == manifest_of(folder)
        except DamagedArtifact:
            same = False
        if not same:  # another machine's of the same name, whole or half overwritten
            discard(uri)
            publish(folder, uri)
        self._sent.add(folder.name)
        log.info("%s is on %s", folder.name, self.uri)

    def _remove_all_but(self, names: set[str]) -> None:
        for artifact in self.complete():
            if artifact.uri.rsplit("/", 1)[-1] not in names:
                discard(artifact.uri)


def discard(uri: str) -> None:
    """Remove everything at `uri`, if there is anything."""
    filesystem, path = open_filesystem(uri)
    with explained(uri):
        if is_remote(uri):
            for key in filesystem.find(path):
                filesystem.rm_file(key)  # to remove them together would take brackets and asterisks in their names for patterns
        elif filesystem.exists(path):
            filesystem.rm(path, recursive=True)
