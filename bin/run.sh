#!/usr/bin/env bash
# bin/run.sh [--docker] [MODE] [options of mlws]
#
# Builds if necessary, and serves an example on http://127.0.0.1:8080/. The modes:
#
#   http            examples/hello.rs: the HTTP server alone, without Python
#   wsgi_example    examples/wsgi_example.py: a WSGI application in a few lines (the default)
#   flask           examples/flask_app.py
#   pyramid         examples/pyramid_app.py
#   django          examples/django_app
#   shell           a shell with .venv activated
#
# Arguments after the mode are options of the server: bin/run.sh flask --threads 4, bin/run.sh django --fork.
# PORT=9000 bin/run.sh changes the port, --bind HOST:PORT the address.
#
#   --docker    the same in a container, from the image that bin/build.sh --docker makes
#   --help      this text

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

port=${PORT:-8080}

main() {
    local container=no mode=wsgi_example server=()
    if [ "${1-}" = --docker ]; then
        container=yes
        shift
    fi
    case ${1-} in
        -h | --help) help ;;
        '' | -*) ;;
        *) mode=$1 && shift ;;
    esac
    case $mode in
        http) server=(hello) ;;
        wsgi_example) server=(mlws wsgi_example:application --pythonpath "$root/examples") ;;
        flask) server=(mlws flask_app:app --pythonpath "$root/examples") ;;
        pyramid) server=(mlws pyramid_app:app --pythonpath "$root/examples") ;;
        django) server=(mlws hi.wsgi:application --pythonpath "$root/examples/django_app") ;;
        shell) ;;
        *) fail 2 "unknown mode '$mode'; the modes are http, wsgi_example, flask, pyramid, django and shell" ;;
    esac
    [ "$container" = no ] || run_in_container "$mode" "$@"

    # The image has no sources, so there is nothing to build. Inside a container, listen on all addresses.
    local host=0.0.0.0
    if [ -e "$root/Cargo.toml" ]; then
        host=127.0.0.1
        "$root/bin/build.sh" >/dev/null
    fi
    [ "$mode" != shell ] || run_shell "$@"
    has_bind "$@" || set -- --bind "$host:$port" "$@"
    exec "$venv/bin/${server[0]}" "${server[@]:1}" "$@"
}

run_in_container() {
    ! has_bind "$@" || fail 2 "with --docker, choose the port with PORT, not with --bind"
    local tool terminal=()
    tool=$(container_tool docker podman)
    "$root/bin/build.sh" --docker >&2
    if [ -t 0 ]; then terminal=(--interactive --tty); fi
    exec "$tool" run --rm ${terminal[@]+"${terminal[@]}"} --publish "127.0.0.1:$port:8080" mylittlewebserver "$@"
}

# Arguments go to bash, so that `bin/run.sh shell -c 'mlws --help'` works too.
run_shell() {
    activate=$venv/bin/activate
    # shellcheck source=/dev/null
    . "$activate"
    export activate
    say "mlws is on PATH; ps auxf shows the process tree; exit leaves the shell"
    # An interactive bash reads the user's own settings, which may change PATH and the prompt: activate comes last.
    # shellcheck disable=SC2016 # the new shell expands it
    exec bash --rcfile <(echo '[ ! -e ~/.bashrc ] || . ~/.bashrc; . "$activate"') "$@"
}

has_bind() {
    local argument
    for argument; do
        case $argument in --bind | --bind=* | -b*) return 0 ;; esac
    done
    return 1
}

main "$@"
