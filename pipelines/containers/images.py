"""Build the images that the steps run in, of the commit that is checked out."""

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cluster.resources import Cluster
from pipelines.containers.engine import Engine
from textvae.command_line import run
from textvae.errors import DataError, SettingsError, UnavailableError, exit_codes
from textvae.files import check_links
from textvae.provenance import ROOT, commit

CUDA = "-cuda"
EXTRAS = {"data": ["data", "report", "tracking"], "ngram": ["ngram"], "train": ["train", "live"]}
"""What each image holds of the extras of pyproject.toml; one for CUDA holds the same."""


def named_images(cluster: Cluster) -> list[str]:
    """The images of the cluster's steps, and for each that needs CUDA the one that does not."""
    names = [place.image for _, place in cluster.steps]
    return sorted({*names, *(name.removesuffix(CUDA) for name in names)})


def requirements(name: str, project: Path) -> list[str]:
    """The packages of an image, as pip takes them. `project` holds pyproject.toml and constraints.txt."""
    content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = [*content["dependencies"]]
    for extra in EXTRAS[name.removesuffix(CUDA)]:
        packages += content["optional-dependencies"][extra]
    if not name.endswith(CUDA):
        return packages
    [pin] = re.findall(r"^torch==(\S+)$", (project / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    # Only this: `==` would also take a CPU build, such as 2.13.0+cpu.
    return [f"torch==={pin}" if package == "torch" else package for package in packages]


def export(folder: Path, wheels: Path | None) -> str:
    """Write into `folder` the files of the commit that is checked out, and what else a build reads. Returns the tag."""
    name = commit()
    tag = name.removesuffix("-dirty")
    if tag == "unknown":
        raise DataError(f"{ROOT} is no git repository: images are built of a commit, which is their tag")
    if tag != name:
        print(f"note: files differ from commit {tag}; the images hold the commit", file=sys.stderr)
    archive = folder / "project.tar"
    subprocess.run(["git", "-C", str(ROOT), "archive", "--output", str(archive), "HEAD"], check=True)
    # Git's own archive stays in the folder; its links are looked at below. Python 3.11.2, Debian's, has no filters.
    trusted: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}
    shutil.unpack_archive(archive, folder, **trusted)
    archive.unlink()
    try:
        check_links(folder)
    except DataError as error:
        raise DataError(f"the commit has what no image may: {error}; then commit") from None
    for name in (*EXTRAS, f"train{CUDA}"):
        (folder / "requirements").mkdir(exist_ok=True)
        (folder / "requirements" / f"{name}.txt").write_text("\n".join(requirements(name, folder)) + "\n")
    (folder / "wheels").mkdir()
    if wheels is not None:
        check_links(wheels)
    for wheel in [] if wheels is None else wheels.glob("*.whl"):
        shutil.copy(wheel, folder / "wheels")
    return tag


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all that the cluster's file names.")] = None,
    base: Annotated[str | None, typer.Option(help="Base image: Python 3.11 with venv, and bash.")] = None,
    wheels: Annotated[Path | None, typer.Option(help="Folder of wheels, such as torch's CPU build.")] = None,
    pip_conf: Annotated[
        Path | None, typer.Option(help="pip.conf (index, its password, CA); a secret of the build.")
    ] = None,
    cluster: Annotated[Path, typer.Option(help="What names the images.")] = Path("pipelines/cluster/cluster.yaml"),
) -> None:
    """Build the images of the commit that is checked out with podman or docker, and try that each has what it needs.

    Their tag is the commit. The exit code is 0 when all were built. 2: a setting is wrong. 69: neither podman nor
    docker works, or a build failed. 130: Ctrl-C.

    \b
    Examples:
      python -m pipelines.containers.images
      python -m pipelines.containers.images data ngram train --wheels ~/wheels
    """
    with exit_codes():
        place = Cluster.load(cluster)
        known = named_images(place)
        for name in names or []:
            if name not in known:
                raise SettingsError(f"no step of {cluster} runs in an image {name!r}; there are {', '.join(known)}")
        for path in (wheels, pip_conf):
            if path is not None and not path.exists():
                raise SettingsError(f"{path}: no such file or folder")
        engine = Engine.find()
        with tempfile.TemporaryDirectory(prefix="textvae-images-") as folder:
            tag = export(Path(folder), wheels)
            arguments = {"COMMIT": tag, **({} if base is None else {"BASE": base})}
            for name in names or known:
                image = f"{place.image_prefix}-{name}:{tag}"
                print(f"building {image}", flush=True)
                if engine.build(Path(folder), name, image, arguments, pip_conf):
                    raise UnavailableError(f"{engine.program} could not build {image}: its last lines say why")
                engine.check(image)
                print(f"built {image}, {engine.image_megabytes(image):,} MB", flush=True)


if __name__ == "__main__":
    run(main)
