#!/bin/sh
# Makes the environment: torch, a Detectron2, this project with its test tools.
#   PYTHON       interpreter to make it with              (default python3)
#   VENV         the virtual environment                  (default .venv)
#   CONSTRAINTS  file of versions                        (default constraints.txt)
#   DETECTRON2   pip requirement or path of a Detectron2  (default: the one that is there, else 0.5)
set -eu
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"
CONSTRAINTS="${CONSTRAINTS:-constraints.txt}"
DETECTRON2="${DETECTRON2:-}"
CDO="detectron2-cdo==0.5"  # v0.5's Python files, unmodified; installs without a compiler

say() { printf '\n== %s\n' "$*"; }

[ -x "$VENV/bin/python" ] || { say "creating $VENV"; "$PYTHON" -m venv "$VENV"; }
py="$VENV/bin/python"
pip() { "$py" -m pip --disable-pip-version-check "$@"; }

if [ -z "$DETECTRON2" ] && "$py" -c 'import detectron2' 2>/dev/null; then
    say "Detectron2 is there already; adding this project to it"
    pip install -q -e '.[train,dev]'
else
    # pip 26.3 refuses the archive of 0.5 for a direct URL in one of its extras.
    pip install -q -c "$CONSTRAINTS" 'pip<26.3' setuptools wheel
    say "installing PyTorch (large: a few minutes at the first time)"
    pip install -q -c "$CONSTRAINTS" torch torchvision
    say "installing Detectron2: ${DETECTRON2:-$CDO}"
    if [ -z "$DETECTRON2" ]; then
        # Its setup compiles C++ files that the archive lacks; --skip-build leaves them out. Its own
        # requirements pin old tools and are listed, without the upper bounds, in setup.py.
        pip install -q --use-pep517 --no-build-isolation --no-deps \
            --config-settings="--global-option=build_py" \
            --config-settings="--build-option=--skip-build" "$CDO"
    else
        # Rebuilt even where this version is installed: a path or a branch may have moved on.
        pip install -q --no-build-isolation --no-deps --force-reinstall "$DETECTRON2"
    fi
    say "installing this project and its test tools"
    pip install -q -c "$CONSTRAINTS" --no-build-isolation -e '.[train,dev]'
fi

if ! "$py" -c 'import cv2' 2>/dev/null; then
    say "OpenCV misses a system library here (usually libGL); taking opencv-python-headless instead"
    pip uninstall -q -y opencv-python
    pip install -q -c "$CONSTRAINTS" opencv-python-headless
    "$py" -c 'import cv2'
fi
# Detectron2 0.5 can then be imported before this project, too.
"$py" -m face_d2.startup
"$py" -c 'import detectron2.modeling, df2s2_d2, torch
print("ready: torch", torch.__version__, "- Detectron2", detectron2.__version__)'
