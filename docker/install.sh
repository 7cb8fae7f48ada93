#!/usr/bin/env bash
# Installs the packages of one image into /opt/venv; for the Dockerfile.
#
#     docker/install.sh IMAGE        the list is requirements/IMAGE.txt
#
# /wheels (a folder of wheels, may be empty) and /etc/pip.conf (a secret, may be missing) are mounted by the Dockerfile.
set -euo pipefail

packages=requirements/$1.txt
wheels=(--find-links /wheels)
if [[ $1 == *-cuda ]]; then wheels=(); fi
pip/bin/python -m pip --python /opt/venv/bin/python --disable-pip-version-check install --no-cache-dir \
    -c constraints.txt "${wheels[@]}" -r "$packages"

if grep -q '^torch' "$packages"; then
    cuda=$(/opt/venv/bin/python -c 'import torch; print(torch.version.cuda)')
    if [[ $1 == *-cuda && $cuda == None ]]; then
        echo "error: torch without CUDA was installed: take the index of CPU builds out of pip.conf" >&2
        exit 69
    elif [[ $1 != *-cuda && $cuda != None ]]; then
        echo "warning: no CPU build of torch was offered, this image holds the one for CUDA $cuda, gigabytes more." \
            "--wheels FOLDER or --pip-conf FILE says where CPU builds are." >&2
    fi
fi
