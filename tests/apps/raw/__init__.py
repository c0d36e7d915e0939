"""Small WSGI apps, one per behaviour: `/module/function` runs that function of that module of this package."""

from importlib import import_module
from pkgutil import iter_modules

MODULES = {module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)}


def application(environ, start_response):
    module, _, rest = environ["PATH_INFO"].strip("/").partition("/")
    app = getattr(MODULES.get(module), rest.partition("/")[0], MODULES["answers"].hello)
    return app(environ, start_response)
