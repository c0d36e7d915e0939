#!/usr/bin/env bash
# bin/wheels.sh [PYTHON...]
#
# Builds a wheel for each CPython 3.10 or newer that it finds, into dist/, and lists which interpreters it used and skipped.
# It looks for python3.10 and later (and python3.13t, the free-threaded ones) on PATH and among the versions
# of pyenv. If several need the same wheel, it uses the first. Arguments replace this search.
#
#   --list    list the interpreters without building
#   --help    this text
#
# A wheel requires the C library of this machine or a newer one; its name contains the version. bin/build.sh installs or
# names the build requirements.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

main() {
    local list=no
    case ${1-} in
        -h | --help) help ;;
        --list) list=yes && shift ;;
        -*) fail 2 "unknown argument '$1', see --help" ;;
    esac
    if [ $# -gt 0 ]; then
        candidates=("$@")
    else
        look_for_candidates
    fi
    choose
    [ "${#chosen[@]}" -gt 0 ] || fail 1 "no CPython 3.10 or newer, with its headers"
    [ "$list" = no ] || exit 0
    local maturin=$venv/bin/maturin python failed=()
    [ -x "$maturin" ] || fail 1 "missing: maturin; bin/build.sh installs it into .venv"
    cd "$root"
    for python in "${chosen[@]}"; do
        say "==> building with $python"
        "$maturin" build --release --interpreter "$python" --out dist >&2 || failed+=("$python")
    done
    [ "${#failed[@]}" -eq 0 ] || fail 1 "no wheel was built with: ${failed[*]}"
    say "==> ${#chosen[@]} wheels in $root/dist"
}

look_for_candidates() {
    local name path versions
    candidates=()
    for name in python3.{10..30}{,t}; do
        while IFS= read -r path; do candidates+=("$path"); done < <(type -ap "$name")
    done
    versions=${PYENV_ROOT:-$HOME/.pyenv}/versions
    ! command -v pyenv >/dev/null || versions=$(pyenv root)/versions
    for path in "$versions"/*/bin/python3; do
        if [ -x "$path" ]; then candidates+=("$path"); fi
    done
}

# Keeps the first working interpreter for each wheel.
choose() {
    local python facts abi version header seen=' '
    chosen=()
    for python in "${candidates[@]}"; do
        # A pyenv shim of an inactive version does not run. That version is found under pyenv's versions.
        facts=$(facts "$python") || { skip "$python" "it does not run" && continue; }
        read -r abi version header <<<"$facts"
        if [[ $abi != cpython* ]]; then
            skip "$python" "not CPython: $abi"
        elif ! at_least "$version" 3.10; then
            skip "$python" "Python $version is too old"
        elif [ ! -e "$header" ]; then
            skip "$python" "it has no headers ($header)"
        elif [[ $seen == *" $abi "* ]]; then
            skip "$python" "another needs the same wheel"
        else
            seen+="$abi "
            chosen+=("$python")
            say "found   $python: $version ($abi)"
        fi
    done
}

skip() {
    say "skipped $1: $2"
}

# Prints the ABI tag, the version and the header directory of an interpreter.
facts() {
    "$1" 2>/dev/null -c '
import sys, sysconfig
print(sys.implementation.cache_tag + getattr(sys, "abiflags", ""), sys.version.split()[0],
      sysconfig.get_path("include") + "/Python.h")'
}

main "$@"
