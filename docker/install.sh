#!/usr/bin/env bash
# Installs the packages of some of the project's extras into /opt/venv; for the Dockerfile.
#
#     docker/install.sh EXTRA...        `cuda` among them: torch with CUDA, and nothing else
#
# /wheels (a folder of wheels, may be empty) and /etc/pip.conf (a secret, may be missing) are mounted by the Dockerfile.
set -euo pipefail

python3 docker/requirements.py "$@" >requirements.txt
wheels=(--find-links /wheels)
if [[ " $* " == *" cuda "* ]]; then wheels=(); fi
pip/bin/python -m pip --python /opt/venv/bin/python --disable-pip-version-check install --no-cache-dir \
    -c constraints.txt "${wheels[@]}" -r requirements.txt

if [[ " $* " == *" train "* ]]; then
    cuda=$(/opt/venv/bin/python -c 'import torch; print(torch.version.cuda)')
    case "$cuda,$*" in
    None,*cuda*)
        echo "error: torch without CUDA was installed: remove the index of CPU builds from pip.conf" >&2
        exit 69
        ;;
    None,* | *,*cuda*) ;;
    *)
        echo "warning: no CPU build of torch was offered, this image holds the one for CUDA $cuda, gigabytes more." \
            "--wheels FOLDER or --pip-conf FILE says where CPU builds are." >&2
        ;;
    esac
fi
