"""One stage of the data plane, or of its peer, in a process of its own: `python -m benchmarks.data_plane_stage SPEC.json STAGE`.

The last line it prints is JSON: `seconds` without imports, and `written` bytes.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from benchmarks import data_plane_peer
from trainpipe_assets.data import cleaning, conservation, ingestion, tokenization
from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.settings import CleaningSettings, SourceSettings, SplitSettings
from trainpipe_assets.storage.delta import Table, find
from trainpipe_assets.storage.increments import Upstream

LABELS = ("negative", "positive")
MAX_LENGTH = 128


class Stages:
    """The stages by name, each from what lies in `lake` to what it adds there."""

    def __init__(self, spec: dict[str, str]) -> None:
        self.lake, self.landing, self.base = Path(spec["lake"]), spec["landing"], spec["base"]
        self.cleaning = CleaningSettings.model_validate({"labels": LABELS, "near_duplicates": {"action": spec["near_duplicates"]}})
        self.lake.mkdir(exist_ok=True)

    def ingest(self) -> None:
        """Landing folder to `raw_data`."""
        source, uri = SourceSettings(), str(self.lake / "raw_data")
        landed = list_landed(self.landing, source)
        ingestion.ingest(uri, find(uri), landed, frozenset(), source, datetime.now(UTC)).increment.commit({})

    def clean(self) -> None:
        """`raw_data` to `cleaned_features` and `rejected_rows`."""
        split = SplitSettings()
        changes = self._upstream("raw_data", "cleaned_features", "rejected_rows").changes(
            version=cleaning.VERSION, cleaning=self.cleaning, split=split
        )
        with TemporaryDirectory() as scratch:
            examples, rejected = cleaning.clean_changes(changes, self.cleaning, split, Path(scratch))
            rejected.commit({})
            examples.commit({})

    def tokenize(self) -> None:
        """`cleaned_features` to `tokenized_dataset`."""
        tokenizer = tokenization.load_tokenizer(self.base, MAX_LENGTH)
        changes = self._upstream("cleaned_features", "tokenized_dataset").changes(
            version=tokenization.VERSION, tokenizer=tokenizer.digest, labels=LABELS
        )
        tokenization.tokenize_changes(changes, tokenizer, LABELS).commit({})

    def prove(self) -> None:
        """That no row of any table was lost or doubled, and no group is in two splits: what the asset checks of a run compute."""
        raw, examples, rejected, tokens = (
            self._table(name).scan() for name in ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset")
        )
        files = conservation.files_of(raw)
        rows = [conservation.partition(raw, pl.concat([part.select("row_id") for part in (examples, rejected)]))]
        rows.append(conservation.partition(examples, tokens))
        assert files.filter((pl.col("rows") != pl.col("different")) | (pl.col("rows") != pl.col("last"))).is_empty()
        assert set(rows) == {conservation.Partition(0, 0, 0)}
        assert conservation.groups_in_two_splits(examples) == 0

    def pandas(self) -> None:
        """The peer's way to cleaned examples."""
        data_plane_peer.clean(Path(self.landing), self.lake)

    def datasets(self) -> None:
        """The peer's tokens, held against the pipeline's own."""
        data_plane_peer.tokenize(self.lake, self.base, MAX_LENGTH)

    def written(self) -> int:
        """Bytes of all files in the lake."""
        return sum(path.stat().st_size for path in self.lake.rglob("*") if path.is_file())

    def _upstream(self, name: str, *outputs: str) -> Upstream:
        return Upstream(self._table(name), {output: str(self.lake / output) for output in outputs})

    def _table(self, name: str) -> Table:
        table = find(str(self.lake / name))
        assert isinstance(table, Table)
        return table


def bare(stages: Stages) -> Callable[[], None]:
    """The tokenizer alone on texts in memory; reading them is not counted."""
    texts = pl.scan_delta(str(stages.lake / "cleaned_features")).select("text").collect()["text"].to_list()
    tokenizer = tokenization.load_tokenizer(stages.base, MAX_LENGTH).fast
    step = 25_000

    def encode() -> None:
        for start in range(0, len(texts), step):
            tokenizer.encode_batch_fast(texts[start : start + step])

    return encode


def main() -> None:
    """Run the stage and tell what it took."""
    stages = Stages(json.loads(Path(sys.argv[1]).read_text()))
    os.environ["HF_HUB_OFFLINE"] = "1"
    run = bare(stages) if sys.argv[2] == "bare" else getattr(stages, sys.argv[2])
    before, started = stages.written(), time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    if sys.argv[2] == "datasets":
        data_plane_peer.check_same(stages.lake, stages.lake.with_name("off"))
    print(json.dumps({"seconds": seconds, "written": stages.written() - before}))


if __name__ == "__main__":
    main()
