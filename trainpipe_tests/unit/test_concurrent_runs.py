"""Many processes that run the same pipeline on the same tables at once: none loses, doubles or tears what another committed."""

from pathlib import Path

from deltalake import DeltaTable

from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.data_plane import DataPlane, land_and_run, put
from trainpipe_tests.forks import forks
from trainpipe_tests.pipelines import read_words
from trainpipe_tests.unit.training_fixtures import write_tiny_base

PROCESSES = 16


def test_sixteen_processes_on_the_same_tables_end_as_one(tmp_path: Path) -> None:
    read_words(write_tiny_base(tmp_path / "base"))
    plane = DataPlane(str(tmp_path / "lake"), tmp_path / "landing", tmp_path / "base")
    put(plane.landing / "first.csv", as_csv(examples(20, seed=99)))
    with forks().Pool(PROCESSES) as pool:
        refused = pool.starmap(land_and_run, [(plane, number) for number in range(PROCESSES)])
    assert sum(refused) > 0, "no two of them ever met: this shows nothing"
    plane.run()
    plane.check_conservation()
    clean = plane.elsewhere(str(tmp_path / "clean"))
    clean.run()
    plane.check_equal(clean)
    for name in ("raw_data", "tokenized_dataset"):
        versions = [int(entry["version"]) for entry in DeltaTable(f"{plane.lake}/{name}").history()]
        assert sorted(versions) == list(range(len(versions)))
