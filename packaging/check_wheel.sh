#!/bin/sh
# Installs the wheel for this machine from a folder, in an environment of its own without PyTorch, and uses it.
set -eu
folder=$1 python=$2 room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
"$python" -m venv "$room/venv"
"$room/venv/bin/pip" --quiet --disable-pip-version-check install --no-compile --find-links "$folder" --only-binary laconic laconic
cd "$room"
venv/bin/laconic --version
venv/bin/python -c '
import importlib.util
from laconic.native.library import library
assert importlib.util.find_spec("torch") is None
native = library()
assert native is not None, "the wheel holds no library that can be loaded here"
assert native.laconic_check(0, 0) == 1
print("native library:", native.laconic_level().decode())
'
venv/bin/laconic export flickr8k_tiny page --to web
