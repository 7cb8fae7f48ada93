"""The step contract: what a command line, a Kubeflow component and a plain call make of one typed function."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

from components.step import Input, Output, Step, after_writing, step
from textvae.config import NgramSettings
from textvae.errors import DataError, SettingsError

ROOT = Path(__file__).parents[2]


def copying_step(failure: Exception | None = None) -> Step:
    @step
    def copy(
        source: Annotated[Path, Input("Dataset", "What to copy.")],
        others: Annotated[list[Path], Input("Artifact")],
        settings: NgramSettings,
        target: Annotated[Path, Output("Dataset", "Where to.")],
        times: int = 1,
    ) -> dict[str, Any]:
        """Copy a file."""
        target.mkdir()
        (target / "text").write_text(source.read_text() * times + f" order {settings.order} {len(others)}")
        if failure is not None:
            raise failure
        return {"copies": times, "dataset": "d"}

    return copy


def arguments(tmp_path: Path, **changed: str) -> list[str]:
    source = tmp_path / "source"
    source.write_text("hello")
    given = {"source": str(source), "others": str(source), "settings": '{"order": 3}', "target": str(tmp_path / "a/b")}
    return [text for name, value in (given | changed).items() for text in (f"--{name}", value)]


def exit_code(step: Step, arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        step.main(arguments)
    return int(ended.value.code or 0)


def test_a_plain_call_and_the_command_line_write_the_same(tmp_path: Path) -> None:
    copy = copying_step()
    assert exit_code(copy, [*arguments(tmp_path), "--times", "2"]) == 0
    source = tmp_path / "source"
    metadata = copy(source=source, others=[source], settings=NgramSettings(order=3), target=tmp_path / "c", times=2)
    assert metadata == {"copies": 2, "dataset": "d"}
    assert (tmp_path / "a/b/text").read_text() == (tmp_path / "c/text").read_text() == "hellohello order 3 1"


@pytest.mark.parametrize(
    "failure", [ValueError("a bug"), DataError("bad"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()]
)
def test_a_step_that_fails_leaves_the_old_output_and_nothing_else(tmp_path: Path, failure: Exception) -> None:
    old = tmp_path / "a/b"
    old.mkdir(parents=True)
    (old / "text").write_text("old")
    codes = {DataError: 65, OSError: 74, KeyboardInterrupt: 130}
    if type(failure) in codes:
        assert exit_code(copying_step(failure), arguments(tmp_path)) == codes[type(failure)]
    else:
        with pytest.raises(ValueError, match="a bug"):
            copying_step(failure).main(arguments(tmp_path))
    assert [path.name for path in old.parent.iterdir()] == ["b"]
    assert (old / "text").read_text() == "old"


def test_what_outputs_were_made_from_goes_only_once_they_have_their_names(tmp_path: Path) -> None:
    seen = []

    @step
    def careful(target: Annotated[Path, Output("Dataset")], fail: bool) -> None:
        """Note whether the output has its name."""
        target.write_text("x")
        after_writing.append(lambda: seen.append((tmp_path / "x").exists()))
        if fail:
            raise ValueError("before the end")

    with pytest.raises(ValueError, match="before the end"):
        careful(target=tmp_path / "x", fail=True)
    assert seen == []
    careful(target=tmp_path / "x", fail=False)
    assert seen == [True]


def test_an_output_that_is_not_written_is_a_bug_that_shows(tmp_path: Path) -> None:
    @step
    def lazy(target: Annotated[Path, Output("Dataset")]) -> None:
        """Write nothing."""

    with pytest.raises(AssertionError, match="target"):
        lazy(target=tmp_path / "x")


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"source": "/nowhere"}, 65, "--source /nowhere: no such file"),
        ({"others": '["/nowhere"]'}, 65, "--others /nowhere: no such file"),
        ({"settings": '{"ordr": 3}'}, 2, "ordr: no such key (there are: order, memory)"),
        ({"settings": '{"order": "3"}'}, 2, "order: Input should be a valid integer"),
        ({"settings": "/nowhere.json"}, 2, "/nowhere.json: no such file"),
        ({"settings": "{"}, 2, "not JSON"),
    ],
)
def test_wrong_arguments_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], code: int, said: str
) -> None:
    assert exit_code(copying_step(), arguments(tmp_path, **changed)) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "a/b").exists()


def test_kubeflows_list_of_artifacts_becomes_mounted_paths(tmp_path: Path) -> None:
    from components.step import expand

    collected = json.dumps([{"uri": "gs://bucket/x"}, {"uri": "s3://b/y"}, {"uri": "minio://b/z"}, {"uri": "/local"}])
    assert expand(collected) == [Path("/gcs/bucket/x"), Path("/s3/b/y"), Path("/minio/b/z"), Path("/local")]


@pytest.mark.parametrize("value", ["[", "[1]", "[null]", '[{"path": "x"}]', '[["x"]]', "[NaN]", "[" * 9999])
def test_what_begins_like_a_list_of_artifacts_and_is_none_is_refused(value: str) -> None:
    from components.step import expand

    with pytest.raises(SettingsError, match=r"give (a path|text)"):
        expand(value)


def test_the_executor_output_carries_the_metadata_to_kubeflow(tmp_path: Path) -> None:
    output_file = tmp_path / "deep/executor_output.json"
    artifact = {"name": "target", "uri": "/x", "type": {"schemaTitle": "system.Dataset"}, "metadata": {"kept": 1}}
    executor_input = {"outputs": {"outputFile": str(output_file), "artifacts": {"target": {"artifacts": [artifact]}}}}
    assert exit_code(copying_step(), [*arguments(tmp_path), "--executor-input", json.dumps(executor_input)]) == 0
    said = json.loads(output_file.read_text())["artifacts"]["target"]["artifacts"]
    assert said == [{**artifact, "metadata": {"kept": 1, "copies": 1, "dataset": "d"}}]


def test_the_timings_file_says_what_ran_where(tmp_path: Path) -> None:
    timings = tmp_path / "t/copy.json"
    assert exit_code(copying_step(), [*arguments(tmp_path), "--timings", str(timings)]) == 0
    said = json.loads(timings.read_text())
    assert said["step"] == "copy"
    assert said["dataset"] == "d"
    assert said["wall_s"] >= 0
    assert len(said["code_sha256"]) == 64
    assert said["versions"]["python"].startswith("3.")


def test_the_kubeflow_component_has_the_same_options_and_typed_artifacts(tmp_path: Path) -> None:
    from kfp import compiler

    path = tmp_path / "component.yaml"
    compiler.Compiler().compile(copying_step().container_component("image:1"), str(path))
    spec = yaml.safe_load(path.read_text())
    container = spec["deploymentSpec"]["executors"]["exec-copy"]["container"]
    assert container["image"] == "image:1"
    assert container["command"] == ["python", "-m", "components.copy"]
    options = [a for a in container["args"] if a.startswith("--")]
    assert options == ["--source", "--others", "--settings", "--target", "--times", "--timings", "--executor-input"]
    component = spec["components"]["comp-copy"]
    inputs = component["inputDefinitions"]
    assert inputs["artifacts"]["source"]["artifactType"]["schemaTitle"] == "system.Dataset"
    assert inputs["artifacts"]["others"]["isArtifactList"] is True
    assert inputs["parameters"]["times"]["defaultValue"] == 1
    outputs = component["outputDefinitions"]["artifacts"]
    assert {name: a["artifactType"]["schemaTitle"] for name, a in outputs.items()} == {
        "target": "system.Dataset",
        "timings": "system.Artifact",
    }


def test_an_optional_output_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    @step
    def optional(target: Annotated[Path | None, Output("HTML")] = None) -> None:
        """Write a page."""
        if target is not None:
            target.write_text("page")

    assert exit_code(optional, []) == 0
    assert exit_code(optional, ["--target", str(tmp_path / "x/page")]) == 0
    assert (tmp_path / "x/page").read_text() == "page"


def test_a_repeated_input_can_arrive_as_several_lists_and_single_artifacts(tmp_path: Path) -> None:
    from kfp import compiler

    path = tmp_path / "component.yaml"
    component = copying_step().container_component("image:1", {"others": {"many": "inputs", "one": "input"}})
    compiler.Compiler().compile(component, str(path))
    spec = yaml.safe_load(path.read_text())
    artifacts = spec["components"]["comp-copy"]["inputDefinitions"]["artifacts"]
    assert {name: one.get("isArtifactList", False) for name, one in artifacts.items()} == {
        "source": False,
        "many": True,
        "one": False,
    }
    arguments = spec["deploymentSpec"]["executors"]["exec-copy"]["container"]["args"]
    given = [arguments[i + 1] for i, argument in enumerate(arguments) if argument == "--others"]
    assert given == ["{{$.inputs.artifacts['many']}}", "{{$.inputs.artifacts['one'].path}}"]


def test_a_parameter_of_no_known_kind_is_refused() -> None:
    def odd(value: bytes) -> None: ...

    with pytest.raises(TypeError, match="value"):
        step(odd)


def test_every_step_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    import importlib

    of_runs = ("train", "evaluate", "sample", "examples", "ngram")
    for name in ("settings", "fetch", "preprocess", *of_runs, "report", "publish"):
        assert exit_code(getattr(importlib.import_module(f"components.{name}"), name), ["--help"]) == 0
        said = capsys.readouterr().out
        assert f"python -m components.{name} --" in said, name


@pytest.mark.parametrize("image", ["data", "ngram"])
def test_the_steps_of_an_image_without_torch_need_none(image: str) -> None:
    """In another process: this one has it."""
    text = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    steps = re.search(rf'AS {image}\n(?:(?!\nFROM)[\s\S])*?TEXTVAE_STEPS="(.*)"', text)
    assert steps is not None
    imports = "\n".join(f"import components.{name}" for name in steps[1].split())
    code = f"import sys\nsys.modules['torch'] = None\n{imports}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_settings_error_is_the_exit_code_of_usage() -> None:
    assert SettingsError.exit_code == 2  # what typer uses for wrong options
