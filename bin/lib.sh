# shellcheck shell=bash
# Functions for the scripts in this directory. Source it; do not run it.

set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv

# Prints the comment at the top of a script as its help.
help() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exit 0
}

say() {
    printf '%s\n' "$*" >&2
}

# fail STATUS SENTENCE
fail() {
    say "${0##*/}: ${*:2}"
    exit "$1"
}

# at_least FOUND WANTED compares two version numbers.
at_least() {
    printf '%s\n' "$2" "$1" | sort -V -C
}

# Installs requirements/NAME.txt into .venv, unless this version of the file is already installed.
install_requirements() {
    local file=$root/requirements/$1.txt mark=$venv/.installed-$1.txt
    if ! cmp -s "$file" "$mark"; then
        say "==> installing requirements/$1.txt"
        "$venv/bin/python" -m pip install --disable-pip-version-check -r "$file" >&2 && cp "$file" "$mark"
    fi
}

# Prints the first of the given container tools that works. The client of docker may be installed without its daemon.
container_tool() {
    local tool
    for tool; do
        if command -v "$tool" >/dev/null && "$tool" info >/dev/null 2>&1; then
            echo "$tool"
            return
        fi
    done
    fail 1 "--docker needs one of these, installed and running: $*." \
        "Debian: sudo apt install podman, Fedora: sudo dnf install podman, macOS: brew install podman"
}
