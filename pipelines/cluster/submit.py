"""Compile the experiment for Kubeflow Pipelines, submit it, or run it here in containers."""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from pipelines.cluster.api import Kubeflow
from pipelines.cluster.experiment import NAME, compile_experiment
from pipelines.cluster.resources import Cluster
from pipelines.containers.local import on_this_machine, run_here
from textvae.command_line import run
from textvae.config import Params
from textvae.errors import SettingsError, exit_codes
from textvae.provenance import commit
from textvae.strict import read_yaml

TOKEN_VARIABLE = "KFP_TOKEN"
CLUSTER = Path("pipelines/cluster/cluster.yaml")


def overridden_params(overrides: list[str]) -> Params:
    """params.yaml with overrides as `dvc exp run -S` takes them. Raises SettingsError naming the wrong one."""
    path = Path("params.yaml")
    if not overrides:
        return Params.load(path)
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    with tempfile.TemporaryDirectory() as folder:
        try:
            copy = Path(folder) / path.name
            write_without_aliases(read_yaml(path), copy)
            apply_overrides(copy, overrides)
            return Params.load(copy)
        except (DvcException, OSError) as error:
            raise SettingsError(f"-S {' '.join(overrides)}: {error.__cause__ or error}") from None
        except SettingsError as error:
            raise SettingsError(str(error).replace(str(copy), f"params.yaml with -S {' '.join(overrides)}")) from None


def write_without_aliases(content: Any, file: Path) -> None:
    """Write YAML with everything written out: dvc loses a key that is new in a mapping that two entries share."""
    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.representer.ignore_aliases = lambda data: True
    yaml.dump(content, file)


def read_token(file: Path | None) -> str | None:
    """The token in `file`, else in $KFP_TOKEN, else none. Raises SettingsError for a file that cannot be read."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--token-file {file} cannot be read: {error}") from None


def main(
    compiled: Annotated[Path | None, typer.Option("--compile", help="Write the pipeline to this YAML file.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of Kubeflow Pipelines: submit there.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run it here, each step in a container of podman or docker.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show each step's state until the run has ended.")] = False,
    namespace: Annotated[str | None, typer.Option(help="Your namespace, on a cluster for several users.")] = None,
    experiment: Annotated[str, typer.Option(help="The experiment that the run is shown under.")] = NAME,
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with an access token; without it ${TOKEN_VARIABLE}, if set.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set-param", "-S", help="Override a value of params.yaml; repeat it.")
    ] = None,
    cluster: Annotated[Path, typer.Option(help="What the cluster gives the steps.")] = CLUSTER,
    tag: Annotated[str | None, typer.Option(help="The images' tag; without it the commit.")] = None,
) -> None:
    """Compile the experiment of params.yaml to a file, submit it to Kubeflow Pipelines, or run it in containers here.

    The exit code is 0 when the pipeline was written or submitted and, with --wait or --local, when the run succeeded.
    1: it failed. 3: it was cancelled. 2: a setting is wrong. 69: the host does not answer, or refuses the token; there
    is no podman or docker, or no image. 130: Ctrl-C; a run on the cluster goes on. With --local a step that failed
    gives its own code.

    \b
    Examples:
      python -m pipelines.cluster.submit --compile pipeline.yaml
      python -m pipelines.cluster.submit --local -S 'grid.datasets=["sotu"]'
      python -m pipelines.cluster.submit --host https://kubeflow.example/pipeline --wait \\
          -S 'grid.seeds=["1","2","3"]' -S defaults.sampling.sentences=10000
    """
    with exit_codes(interrupted="interrupted: a run that was submitted goes on"):
        if [compiled is not None, host is not None, local].count(True) != 1:
            raise SettingsError("give one of --compile FILE, --host URL and --local")
        if wait and host is None:
            raise SettingsError("--wait is for --host: a file does not run, and --local always waits")
        params, place = overridden_params(overrides or []), Cluster.load(cluster)
        place = on_this_machine(place) if local else place
        with tempfile.TemporaryDirectory() as folder:
            file = compiled or Path(folder) / "pipeline.yaml"
            compile_experiment(params, place, tag if tag is not None else commit(), file)
            if compiled is not None:
                print(f"{compiled}: {len(params.grid.points())} runs, {compiled.stat().st_size:,} bytes")
            if local:
                raise SystemExit(run_here(file, params, place.parallel_runs))
            if host is None:
                return
            kubeflow = Kubeflow(host, namespace, read_token(token_file))
            run_id = kubeflow.create(file, experiment)
        print(f"submitted: {kubeflow.address(run_id)}", flush=True)
        if wait:
            raise SystemExit(kubeflow.wait(run_id))


if __name__ == "__main__":
    run(main)
