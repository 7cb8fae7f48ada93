"""Podman or Docker on this machine, through their command lines, which take the same words."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from textvae.errors import UnavailableError

ENGINES = ("podman", "docker")
INFO_SECONDS = 300
"""Podman waits for a build that writes a layer."""
REMEDY = "install one of them and start it; `podman info` or `docker info` has to succeed"


class Engine:
    """One program that runs containers. `Engine.find()` gives the one that is here."""

    def __init__(self, program: str) -> None:
        self.program = program

    @classmethod
    def find(cls) -> Engine:
        """The first of podman and docker that answers. Raises UnavailableError saying of each why not."""
        reasons = []
        for name in ENGINES:
            if shutil.which(name) is None:
                reasons.append(f"{name} is not installed")
                continue
            try:
                asked = subprocess.run([name, "info"], capture_output=True, text=True, timeout=INFO_SECONDS)
            except subprocess.TimeoutExpired:
                reasons.append(f"{name} does not answer")
                continue
            if asked.returncode == 0:
                return cls(name)
            said = asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"]
            reasons.append(f"{name} does not work ({said[-1]})")
        raise UnavailableError(f"containers need podman or docker: {', '.join(reasons)}; {REMEDY}")

    def image_id(self, image: str) -> str:
        """The hash of an image's content. Raises UnavailableError for one that is not on this machine."""
        command = [self.program, "image", "inspect", "--format", "{{.Id}}", image]
        asked = subprocess.run(command, capture_output=True, text=True)
        if asked.returncode != 0:
            raise UnavailableError(
                f"{self.program} has no image {image}: build it with `make images`, pull it, or give the tag of "
                "images that are here with --tag"
            )
        return asked.stdout.strip()

    def image_megabytes(self, image: str) -> int:
        """The size of an image on disk, in MB."""
        command = [self.program, "image", "inspect", "--format", "{{.Size}}", image]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) // 1_000_000

    def check(self, image: str) -> None:
        """Have an image import what its steps need and print the versions. Raises UnavailableError where it cannot."""
        command = [
            self.program,
            "run",
            "--rm",
            "--network",
            "none",
            image,
            "python",
            "-m",
            "components",
            "--check",
        ]
        code = subprocess.run(command).returncode
        if code:
            raise UnavailableError(f"{image} does not have what its steps need (exit code {code}, the reason is above)")

    def build(self, context: Path, target: str, image: str, arguments: dict[str, str], pip_conf: Path | None) -> int:
        """Build a target of docker/Dockerfile as `image`. Returns the engine's exit code."""
        command = [self.program, "build", "--network", "host", "--file", str(context / "docker/Dockerfile")]
        command += ["--target", target, "--tag", image]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        if pip_conf is not None:
            command += ["--secret", f"id=pip.conf,src={pip_conf.absolute()}"]
        return subprocess.run([*command, str(context)]).returncode
