"""A small Pyramid application. Serve it with `mlws pyramid_app`."""

from pyramid.config import Configurator
from pyramid.response import Response


def hi(request):
    return Response("Hi from Pyramid!\n", content_type="text/plain")


with Configurator() as config:
    config.add_route("hi", "/")
    config.add_view(hi, route_name="hi")
    app = config.make_wsgi_app()
