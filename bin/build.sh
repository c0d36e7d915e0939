#!/usr/bin/env bash
# bin/build.sh [--docker]
#
# Builds the server for release into .venv, and installs the example applications' frameworks beside it.
# Does nothing if nothing has changed.
#
#   --docker    build the container image mylittlewebserver instead
#   --help      this text
#
# PYTHON=python3.13 bin/build.sh builds for that interpreter; later builds keep it.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

main() {
    case ${1-} in
        '') ;;
        --docker) build_image ;;
        -h | --help) help ;;
        *) fail 2 "unknown argument '$1', see --help" ;;
    esac
    wait_for_other_builds
    choose_python
    cd "$root"
    local inputs
    inputs=$(fingerprint) # before the build: what is edited while it runs belongs to the next one
    if [ "$inputs" = "$(cat "$venv/.built-from" 2>/dev/null)" ]; then
        echo "up to date: $venv"
        return
    fi
    check_tools
    touch_changed "$inputs"
    rm -f "$venv/.built-from"
    make_venv
    install_requirements build
    install_requirements examples
    build_server
    echo "$inputs" >"$venv/.built-from"
    say "==> built in $SECONDS s: $venv"
}

build_image() {
    local tool
    tool=$(container_tool docker podman buildah)
    exec "$tool" build --tag mylittlewebserver "$root"
}

# Prevents concurrent builds, which would both change .venv. Without the command flock, only cargo's own lock applies.
wait_for_other_builds() {
    command -v flock >/dev/null || return 0
    exec 9<"$root/bin/build.sh"
    flock --nonblock 9 || { say "==> waiting for another build" && flock 9; }
}

choose_python() {
    python=${PYTHON:-$venv/bin/python}
    if [ -z "${PYTHON-}" ] && ! identity "$python" >/dev/null; then
        python=python3
    fi
    # A venv holds absolute paths, so one that was moved is not the same any more.
    made_by="$root $(identity "$python")" || return 0
    # The interpreter under any venv, and whatever the working directory is.
    python=$("$python" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))')
}

# Identifies a Python interpreter, with the same text inside a venv and outside.
identity() {
    "$1" -c 'import sys; print(sys.base_prefix, sys.version.split()[0] + sys.abiflags)' 2>/dev/null
}

# The inputs of the build: the interpreter, the options of the compiler, and each file with a hash of its content.
fingerprint() {
    local sum=(sha256sum) input inputs=()
    command -v sha256sum >/dev/null || sum=(shasum -a 256)
    for input in Cargo.toml Cargo.lock rust-toolchain.toml .cargo crates examples/hello.rs pyproject.toml python \
        README.md LICENSE requirements bin/build.sh bin/lib.sh; do
        if [ -e "$input" ]; then inputs+=("$input"); fi
    done
    echo "$made_by"
    env | LC_ALL=C grep '^CARGO_PROFILE_' | LC_ALL=C sort || true
    find "${inputs[@]}" -type f ! -name '*.pyc' ! -name '*.so' -print0 | LC_ALL=C sort -z | xargs -0 "${sum[@]}"
}

check_tools() {
    complete=yes
    check_rust
    cc --version >/dev/null 2>&1 ||
        lacks "a C compiler (cc)" "sudo apt install build-essential" "sudo dnf install gcc" "xcode-select --install"
    check_python
    [ "$complete" = yes ] || exit 1
}

check_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    found=$(rustc --version 2>/dev/null | cut -d ' ' -f 2) || true
    if [ -n "$found" ] && cargo --version >/dev/null 2>&1 && at_least "$found" "$wanted"; then
        return
    fi
    lacks "Rust $wanted or newer, with cargo (found: ${found:-none}; https://rustup.rs has it for every system)" \
        "sudo apt install rustup && rustup default stable" \
        "sudo dnf install rustup && rustup-init -y" \
        "brew install rustup && rustup default stable"
}

check_python() {
    local found header
    found=$("$python" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null) || true
    if [ -z "$found" ] || ! at_least "$found" 3.10; then
        lacks "Python 3.10 or newer ($python: ${found:-does not run}; PYTHON=... chooses another)" \
            "sudo apt install python3 python3-venv python3-dev" "sudo dnf install python3-devel" "brew install python"
        return
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        lacks "the modules venv and ensurepip of $python" \
            "sudo apt install python3-venv" "sudo dnf install python3" "brew install python"
    header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
    [ -e "$header" ] ||
        lacks "the headers of $python ($header)" \
            "sudo apt install python3-dev" "sudo dnf install python3-devel" "brew install python"
}

# lacks WHAT DEBIAN FEDORA MACOS
lacks() {
    complete=no
    say "${0##*/}: missing: $1"
    say "    Debian: $2"
    say "    Fedora: $3"
    say "    macOS:  $4"
}

# Cargo compares only modification times, so it would miss a file that was replaced by an older one.
touch_changed() {
    local before=$venv/.built-from
    [ -e "$before" ] || before=/dev/null
    { grep -vxFf "$before" <<<"$1" || true; } | sed -n 's/^[0-9a-f]\{64\}  //p' |
        while IFS= read -r file; do touch -c "$file"; done
}

make_venv() {
    [ "$made_by" != "$(cat "$venv/.made-by" 2>/dev/null)" ] || return 0
    say "==> making .venv with Python ${made_by##* }"
    "$python" -m venv --clear --prompt mlws "$venv"
    echo "$made_by" >"$venv/.made-by"
}

build_server() {
    say "==> compiling the server"
    local hello
    # The target directory depends on cargo's settings, so the path is read from its output.
    hello=$(cargo build --release --package mlws-server --example hello --message-format json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    install "$hello" "$venv/bin/hello"
    rm -rf "$venv/wheel"
    "$venv/bin/maturin" build --release --compatibility linux --interpreter "$venv/bin/python" --out "$venv/wheel" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall \
        "$venv"/wheel/*.whl >&2
}

main "$@"
