"""Small WSGI apps, one per thing to be seen: `/module/function` runs that function of that module here."""

from . import (
    answers,
    clients,
    environs,
    failures,
    faults,
    files,
    gates,
    hangs,
    inputs,
    misbehaviour,
    processes,
)

MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        answers,
        clients,
        environs,
        failures,
        faults,
        files,
        gates,
        hangs,
        inputs,
        misbehaviour,
        processes,
    )
}


def application(environ, start_response):
    module, _, rest = environ["PATH_INFO"].strip("/").partition("/")
    app = getattr(MODULES.get(module), rest.partition("/")[0], answers.hello)
    return app(environ, start_response)
