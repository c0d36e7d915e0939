"""The shop in Pyramid. The shops of all frameworks serve the same routes with the same content."""

import hashlib

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import FileResponse, Response


def hello(request):
    return Response("Hello from Pyramid!\n", content_type="text/plain")


def query(request):
    return request.GET.dict_of_lists()


def path(request):
    return "/".join(request.matchdict["rest"])


def form(request):
    return request.POST.dict_of_lists()


def echo(request):
    return Response(request.body, headers={"X-Method": request.method})


def set_cookies(request):
    response = Response("set\n")
    response.set_cookie("flavour", "chocolate chip")
    response.set_cookie("size", "large", httponly=True)
    return response


def show_cookies(request):
    return dict(request.cookies)


def upload(request):
    field, seen, size = request.POST["file"], hashlib.sha256(), 0
    while piece := field.file.read(1 << 16):
        seen.update(piece)
        size += len(piece)
    return {"name": field.filename, "size": size, "sha256": seen.hexdigest(), "note": request.POST["note"]}


def stream(request):
    lines = (f"line {number}\n".encode() for number in range(5000))
    return Response(app_iter=lines, content_type="text/plain")


def download(request):
    return FileResponse(__file__, request=request, content_type="text/x-python")


def to_hello(request):
    return HTTPFound(location="/hello")


def fail(request):
    raise RuntimeError("the Pyramid shop is on fire")


ROUTES = {
    "/hello": hello,
    "/echo": echo,
    "/cookies/set": set_cookies,
    "/stream": stream,
    "/download": download,
    "/redirect": to_hello,
    "/raise": fail,
}
JSON_ROUTES = {
    "/query": query,
    "/path/*rest": path,
    "/form": form,
    "/cookies/show": show_cookies,
    "/upload": upload,
}


def make_app():
    with Configurator() as config:
        for pattern, view in {**ROUTES, **JSON_ROUTES}.items():
            config.add_route(pattern, pattern)
            config.add_view(view, route_name=pattern, renderer="json" if pattern in JSON_ROUTES else None)
        return config.make_wsgi_app()


app = make_app()
