"""Which `defs.yaml` files declare pipelines, and what is said of those that cannot live together."""

import re
from pathlib import Path

import pytest

from trainpipe_assets.pipeline.declared import TYPE, pipeline_files

ONE, OTHER = f"type: {TYPE}\nattributes: {{key_prefix: [x]}}\n", f"type: {TYPE}\nattributes: {{key_prefix: y}}\n"
PLAIN = f"type: {TYPE}\n"
FOREIGN = "type: dagster.FunctionComponent\n---\ntype: dagster.DefsFolderComponent\n"


def put(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name / "defs.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_pipelines_live_beside_each_other_and_beside_what_is_others(tmp_path: Path) -> None:
    off = f"type: {TYPE}\nattributes: {{enabled: false, key_prefix: [x]}}\n"
    put(tmp_path, {"b/one": ONE, "a": OTHER, "plain": PLAIN, "off": off, "foreign": FOREIGN, "foreign/below": FOREIGN, "no yaml": "{a: ["})
    assert [path.parent.name for path in pipeline_files(tmp_path)] == ["a", "one", "off", "plain"]
    assert pipeline_files(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a": ONE, "b": ONE}, "a/defs.yaml and {}/b/defs.yaml have the same key_prefix, 'x'; every pipeline but one needs"),
        ({"a": PLAIN, "b": PLAIN}, "a/defs.yaml and {}/b/defs.yaml have the same key_prefix: none; every pipeline but one needs"),
        ({"s/a": ONE, "t/a": OTHER}, "s/a/defs.yaml and {}/t/a/defs.yaml have the same name, 'a'; rename the folder of one of them"),
        ({"a": ONE, "a/b/c": OTHER}, "a/b/c/defs.yaml lies below {}/a/defs.yaml, where Dagster looks for no other pipeline"),
        ({"a": f"{ONE}---\n{OTHER}"}, "a/defs.yaml declares 2 things; a pipeline is named after its folder"),
        ({"a": "# later\n"}, f"a/defs.yaml declares nothing: write `type: {TYPE}`"),
        ({"a": f"type: {TYPE}s\n"}, f"a/defs.yaml: there is no component {TYPE}s; a pipeline is of `type: {TYPE}`"),
        (
            {"a": f"{PLAIN}attributes:\n  training: {{epochs: 1}}\n  split: {{}}\n  training: {{}}\n"},
            "a/defs.yaml:5: training is there twice",
        ),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, files: dict[str, str], told: str) -> None:
    put(tmp_path, files)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path}/{told}'.format(tmp_path))}"):
        pipeline_files(tmp_path)


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    put(tmp_path, {"a": ""})
    (tmp_path / "a" / "defs.yaml").write_bytes(PLAIN.encode() + "# é".encode("latin-1"))
    with pytest.raises(ValueError, match=r"/a/defs.yaml is not UTF-8 \(byte 43\); save it as UTF-8"):
        pipeline_files(tmp_path)
