#!/bin/sh
# create_venv.sh FOLDER [PYTHON]
# Creates a virtual environment with PYTHON, or with the first interpreter here that dhn supports.
set -eu

supported() {
  "$1" -c 'import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# 3.11 comes first because it is what the tests run with most.
for python in ${2:-python3.11 python3.12 python3.13 python3.10 python3}; do
  if supported "$python"; then
    echo "dhn: creating $1 with $("$python" --version)"
    exec "$python" -m venv "$1"
  fi
done
echo "dhn needs Python 3.10 to 3.13 with venv and pip, and ${2:-this machine} does not have it" \
  "(Debian and Ubuntu: apt install python3-venv; PYTHON=FILE names another interpreter)" >&2
exit 1
