"""Names that a pipeline cannot have, since a lake has them."""

import pytest

from trainpipe_assets.pipeline.keys import ASSETS
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage.uris import CHECKPOINTS, MODELS, TABLES


@pytest.mark.parametrize("name", [*ASSETS, TABLES, MODELS, CHECKPOINTS, "A B", "..", "", "my-team", "a/b"])
def test_no_part_of_a_prefix_is_a_folder_of_the_lake_or_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a key_prefix"):
        PipelineSettings(key_prefix=("team", name))


def test_other_names_are_taken() -> None:
    assert PipelineSettings(key_prefix=("Team_1", "reviews")).key_prefix == ("Team_1", "reviews")
