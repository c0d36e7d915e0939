#!/usr/bin/env bash
# bin/bench.sh [SCENARIO...] [--rounds N] [--seconds S] [--servers A,B] [--list]
#
# Measures mlws and other servers side by side, with one core for the server and one for the load generator.
# Builds what it needs into bench/.venv first. A full run takes about an hour. Its tables and charts are written
# to bench/results/DATE-MACHINE and bench/results/latest; those of selected scenarios or servers to bench/results/partial.
#
#   SCENARIO       run only these scenarios; see --list
#   --rounds N     number of rounds (3); the results are medians
#   --seconds S    duration of each run (4)
#   --servers A,B  run only these servers, and the baselines
#   --help         this text
#
# Needs an otherwise idle machine, and marks disturbed runs. bench/README.md explains the results.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

bench=$root/bench
made=$bench/.venv

main() {
    local word
    for word; do
        case $word in
            -h | --help) help ;;
            --list) exec python3 "$bench/driver.py" --list ;;
        esac
    done
    python3 "$bench/driver.py" "$@" --list >/dev/null || exit 2 # validates the arguments
    check_tools
    "$root/bin/build.sh" >&2
    make_environment
    install_needed
    install_rivals
    install_mlws
    mkdir -p "$bench/.build"
    cc -O2 -Wall -Wextra -o "$bench/.build/epoll" "$bench/floor/epoll.c"
    exec "$made/bin/python" "$bench/driver.py" "$@"
}

# Debian packages. Only wrk and openssl are required. h2load loads the HTTP/2 scenarios. bjoern is compiled with libev.
# nginx is not installed here, because installing it starts it.
check_tools() {
    local wanted=()
    command -v wrk >/dev/null || wanted+=(wrk)
    command -v openssl >/dev/null || wanted+=(openssl)
    command -v h2load >/dev/null || wanted+=(nghttp2-client)
    [ -e /usr/include/ev.h ] || wanted+=(libev-dev)
    if [ "${#wanted[@]}" -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "==> installing ${wanted[*]}"
        { apt-get update --quiet=2 && apt-get install --yes --quiet=2 "${wanted[@]}"; } >&2 || true
    fi
    command -v wrk >/dev/null ||
        fail 1 "missing: wrk. Debian: sudo apt install wrk, Fedora: sudo dnf install wrk"
    command -v openssl >/dev/null || fail 1 "missing: openssl. Debian: sudo apt install openssl"
    command -v taskset >/dev/null || fail 1 "missing: taskset, of util-linux; the benchmark runs on Linux only"
    [ -e /usr/include/ev.h ] ||
        say "bench: no libev, so bjoern may be skipped. Debian: sudo apt install libev-dev"
    PATH=$PATH:/usr/sbin command -v nginx >/dev/null ||
        say "bench: no nginx to compare with. Debian: sudo apt install nginx-light"
    command -v h2load >/dev/null ||
        say "bench: no h2load, so HTTP/2 is skipped. Debian: sudo apt install nghttp2-client"
}

# Uses the interpreter that the server was built for, with a new environment if it has changed.
make_environment() {
    local made_by
    made_by=$(cat "$venv/.made-by")
    [ "$made_by" != "$(cat "$made/.made-by" 2>/dev/null)" ] || return 0
    say "==> making bench/.venv with Python ${made_by##* }"
    "$("$venv/bin/python" -c 'import sys; print(sys._base_executable)')" -m venv --clear --prompt mlws-bench "$made"
    echo "$made_by" >"$made/.made-by"
}

install_needed() {
    local file=$bench/requirements.txt mark=$made/.installed-requirements
    cmp -s "$file" "$mark" && return
    say "==> installing bench/requirements.txt"
    pip_install -r "$file" && cp "$file" "$mark"
}

# Installs each separately. A failed installation is retried in the next run, and its log is kept.
install_rivals() {
    local line name log
    while read -r line; do
        name=${line%%[<>=]*}
        [ "$line" != "$(cat "$made/.installed-$name" 2>/dev/null)" ] || continue
        say "==> installing $line"
        mkdir -p "$bench/.build"
        log=$bench/.build/$name.log
        if pip_install "$line" >"$log" 2>&1; then
            echo "$line" >"$made/.installed-$name"
        else
            say "    $name could not be installed; see bench/.build/$name.log"
        fi
    done < <(grep -v '^#' "$bench/rivals.txt")
}

# Installs the wheel of bin/build.sh if it has changed.
install_mlws() {
    local wheel=("$venv"/wheel/*.whl)
    cmp -s "${wheel[0]}" "$made/.installed-wheel" && return
    say "==> installing mlws"
    pip_install --no-index --no-deps --force-reinstall "${wheel[0]}" && cp "${wheel[0]}" "$made/.installed-wheel"
}

pip_install() {
    "$made/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
}

main "$@"
