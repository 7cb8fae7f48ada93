"""Submitting with the real kfp client against a loopback server: outcomes, and errors that say what to do."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubeflow_server import RUN_ID, TOKEN, Server, running

from pipelines.cluster import api, submit

ROOT = Path(__file__).resolve().parents[2]
GRID = ["grid.datasets=[sotu]", 'grid.systems=["lstm_lm","vae_mine"]', 'grid.seeds=["1"]']


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The repository, without the caller's token or kfp context, and no waiting between looks."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("KFP_TOKEN", raising=False)
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(api, "POLL_SECONDS", 0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as one:
        yield one


def submitted(host: str, **options: Any) -> int:
    """The exit code of a submission."""
    arguments: dict[str, Any] = {"compiled": None, "host": host, "overrides": GRID, "tag": "abc", **options}
    try:
        submit.main(**arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_run_is_created_in_its_experiment_and_its_address_is_printed(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submitted(server.url, experiment="mine", namespace="team") == 0
    assert capsys.readouterr().out == f"submitted: {server.url}/#/runs/details/{RUN_ID}\n"
    [experiment], [run], [spec] = server.experiments, server.runs, server.specs
    assert (experiment["display_name"], experiment["namespace"]) == ("mine", "team")
    assert run["experiment_id"] == experiment["experiment_id"]
    assert spec.pipeline_info.name == "textvae"
    loop = next(task for name, task in spec.root.dag.tasks.items() if name.startswith("for-loop"))
    assert "sotu-vae_mine-1" in loop.parameter_iterator.items.raw
    assert submitted(server.url, experiment="mine", namespace="team") == 0
    assert len(server.experiments) == 1


@pytest.mark.parametrize(("outcome", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 3)])
def test_waiting_shows_each_change_once_and_ends_as_the_run_did(
    server: Server, capsys: pytest.CaptureFixture[str], outcome: str, code: int
) -> None:
    running_look = {"state": "RUNNING", "tasks": {"fetch sotu": "SUCCEEDED", "train": "RUNNING"}}
    last = {"state": outcome, "tasks": {"fetch sotu": "SUCCEEDED", "train": outcome}, "error": "exit code 65"}
    server.looks = [{"state": "PENDING"}, running_look, running_look, last]
    assert submitted(server.url, wait=True) == code
    said = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    expected = [["fetch", "sotu", "SUCCEEDED"], ["train", "RUNNING"], ["train", outcome]]
    expected += [["exit", "code", "65"]] if outcome == "FAILED" else []
    assert said == [*expected, ["run", outcome]]


def test_an_image_that_cannot_be_pulled_is_named_with_the_remedy(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    error = 'ImagePullBackOff: Back-off pulling image "textvae-data:abc"'
    server.looks = [{"state": "FAILED", "tasks": {"fetch sotu": "FAILED"}, "error": error}]
    assert submitted(server.url, wait=True) == 1
    said = capsys.readouterr().out
    assert "textvae-data:abc" in said
    assert "build and push the images" in said


def test_steps_that_stay_pending_are_explained(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PENDING_SECONDS", 0.0)
    waiting = {"state": "RUNNING", "tasks": {"fetch sotu": "PENDING"}}
    server.looks = [waiting, waiting, {"state": "CANCELED"}]
    assert submitted(server.url, wait=True) == 3
    assert "kubectl describe pod" in capsys.readouterr().out


def test_a_token_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    with running(needs_token=True) as server:
        assert submitted(server.url, token_file=file) == 0
        monkeypatch.setenv("KFP_TOKEN", TOKEN)
        assert submitted(server.url) == 0
        assert len(server.runs) == 2


@pytest.mark.parametrize("token", [None, "stale"])
def test_a_refused_token_is_an_error_that_says_so_and_does_not_show_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token is not None:
        monkeypatch.setenv("KFP_TOKEN", token)
    with running(needs_token=True) as server:
        assert submitted(server.url) == 69
        assert not server.runs
    said = capsys.readouterr().err
    assert f"{server.url} refused {'a request without a token' if token is None else 'the token'} (HTTP 401)" in said
    assert "$KFP_TOKEN or --token-file" in said
    assert "stale" not in said


def test_what_the_server_says_of_a_run_it_refuses_is_shown(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.refuse_runs = 400
    assert submitted(server.url) == 69
    assert f"{server.url} refused: HTTP 400, no such namespace" in capsys.readouterr().err


def test_a_wrong_host_is_an_error_within_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as gone:
        pass
    assert submitted(gone.url) == 69
    assert f"{gone.url} does not answer as Kubeflow Pipelines" in capsys.readouterr().err


def test_a_server_that_is_something_else_is_an_error(capsys: pytest.CaptureFixture[str], server: Server) -> None:
    assert submitted(server.url.removesuffix("/pipeline")) == 69
    assert "HTTP 404" in capsys.readouterr().err

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>log in</html>")

        def log_message(self, *arguments: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as page:
        threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        assert submitted(f"http://127.0.0.1:{page.server_address[1]}") == 69
        page.shutdown()
    assert "what answers there is no Kubeflow Pipelines" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": None}, "give one of --compile FILE, --host URL and --local"),
        ({"compiled": Path("x.yaml")}, "give one of --compile FILE, --host URL and --local"),
        ({"host": None, "compiled": Path("x.yaml"), "wait": True}, "--wait is for --host"),
        ({"overrides": ["grid.systems=[nobody]"]}, "nobody"),
        ({"tag": "latest"}, "image tag 'latest'"),
        ({"cluster": Path("/nowhere.yaml")}, "/nowhere.yaml cannot be read"),
        ({"token_file": Path("/nowhere")}, "--token-file /nowhere cannot be read"),
    ],
)
def test_wrong_options_are_named(capsys: pytest.CaptureFixture[str], options: dict[str, Any], said: str) -> None:
    host = options.pop("host", "http://127.0.0.1:9")
    assert submitted(host, **options) == 2
    assert said in capsys.readouterr().err


def test_compiling_needs_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submitted(None, compiled=tmp_path / "p.yaml") == 0  # type: ignore[arg-type]
    assert "2 runs" in capsys.readouterr().out
    assert "exec-train" in (tmp_path / "p.yaml").read_text()


def test_a_password_in_the_host_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert submitted("http://me:pa-ss@127.0.0.1:1/pipeline?token=SECRET") == 69
    said = capsys.readouterr().err
    assert "127.0.0.1:1/pipeline does not answer" in said
    assert "pa-ss" not in said
    assert "SECRET" not in said
