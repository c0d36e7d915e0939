"""The views of the shop."""

import hashlib
from pathlib import Path

from django.http import FileResponse, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse


def hello(request):
    return HttpResponse("Hello from Django!\n", content_type="text/plain")


def query(request):
    return JsonResponse(dict(request.GET.lists()))


def show_path(request, rest):
    return JsonResponse(rest, safe=False)


def form(request):
    return JsonResponse(dict(request.POST.lists()))


def echo(request):
    return HttpResponse(request.body, headers={"X-Method": request.method})


def set_cookies(request):
    response = HttpResponse("set\n")
    response.set_cookie("flavour", "chocolate chip")
    response.set_cookie("size", "large", httponly=True)
    return response


def show_cookies(request):
    return JsonResponse(request.COOKIES)


def upload(request):
    file, seen = request.FILES["file"], hashlib.sha256()
    for piece in file.chunks():
        seen.update(piece)
    summary = {"name": file.name, "size": file.size, "sha256": seen.hexdigest(), "note": request.POST["note"]}
    return JsonResponse(summary)


def stream(request):
    return StreamingHttpResponse((f"line {number}\n" for number in range(5000)), content_type="text/plain")


def download(request):
    return FileResponse(Path(__file__).open("rb"), content_type="text/x-python")


def to_hello(request):
    return HttpResponseRedirect("/hello")


def fail(request):
    raise RuntimeError("the Django shop is on fire")
