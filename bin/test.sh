#!/usr/bin/env bash
# bin/test.sh [options of pytest]
#
# Builds everything, checks formatting, lints, types, imports, wording and links, and runs the Rust and Python tests.
# Stops at the first stage that fails. Builds without link-time optimization, which would take several minutes more; the
# next bin/build.sh or bin/run.sh builds with it again. Arguments are passed to pytest, for example: bin/test.sh -k flask. With --soak,
# the longer variants of the Python and Rust tests run.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

main() {
    case ${1-} in -h | --help) help ;; esac
    case " $* " in *" --soak "*) export MLWS_SOAK=1 ;; esac
    cd "$root"
    export CARGO_PROFILE_RELEASE_LTO=${CARGO_PROFILE_RELEASE_LTO-off}
    export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=${CARGO_PROFILE_RELEASE_CODEGEN_UNITS-16}
    stage "build" bin/build.sh
    use_python_of_venv
    stage "test tools" install_requirements test
    stage "shellcheck" "$venv/bin/shellcheck" --external-sources bin/*.sh .ci/run
    stage "cargo fmt" cargo fmt --all --check
    stage "ruff format" "$venv/bin/ruff" format --check
    stage "ruff check" "$venv/bin/ruff" check
    stage "mypy" "$venv/bin/mypy"
    stage "stubtest" "$venv/bin/stubtest" --mypy-config-file pyproject.toml mylittlewebserver
    stage "module circles" "$venv/bin/python" bin/check_modules.py
    stage "words, links and conflict markers" "$venv/bin/python" bin/check_text.py
    stage "cargo clippy" cargo clippy --workspace --all-targets -- -D warnings
    stage "cargo doc" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
    stage "cargo test" env LD_LIBRARY_PATH="$python_library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" cargo test --workspace
    stage "model checks" cargo test --package mlws-server --features loom --lib wakeup
    stage "programs for tests" install_programs
    stage "pytest" "$venv/bin/python" -m pytest "$@"
    say "==> all passed in $SECONDS s"
}

# Rust tests that embed Python are compiled for the interpreter of .venv, and need the path of its library. The real path
# of the interpreter contains its version, so cargo rebuilds after a change.
use_python_of_venv() {
    PYO3_PYTHON=$("$venv/bin/python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
    export PYO3_PYTHON
    python_library=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
}

# Installs Debian packages: nginx and HAProxy for tests/test_proxies.py, clients for tests/test_http2_clients.py. If that
# fails, those tests are skipped with a message. With CI in the environment, those of the clients fail.
install_programs() {
    local wanted=() program
    [ -x /usr/sbin/nginx ] || wanted+=(nginx-light)
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || wanted+=(libnginx-mod-stream)
    [ -x /usr/sbin/haproxy ] || wanted+=(haproxy)
    for program in curl:curl nghttp:nghttp2-client chromium:chromium certutil:libnss3-tools; do
        command -v "${program%:*}" >/dev/null || wanted+=("${program#*:}")
    done
    if [ "${#wanted[@]}" -eq 0 ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        return
    fi
    say "==> installing ${wanted[*]}"
    without_services install_packages "${wanted[@]}" || say "    ${wanted[*]} could not be installed"
}

install_packages() {
    apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 "$@"
} >&2

# Runs a command while a policy-rc.d keeps packages from starting their services, and disables the services for the next
# boot (/usr/share/doc/init-system-helpers/README.policy-rc.d.gz).
without_services() {
    local policy=/usr/sbin/policy-rc.d status=0 service
    if [ -e "$policy" ]; then
        "$@" || status=$?
    else
        (
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && "$@"
        ) || status=$?
    fi
    for service in nginx haproxy; do
        case " $* " in
            *" $service"*) ! command -v systemctl >/dev/null || systemctl disable --quiet "$service" 2>/dev/null || true ;;
        esac
    done
    return "$status"
}

# stage NAME COMMAND...
stage() {
    local start=$SECONDS
    say "==> $1"
    "${@:2}" || fail 1 "failed: $1"
    say "    $1: $((SECONDS - start)) s"
}

main "$@"
