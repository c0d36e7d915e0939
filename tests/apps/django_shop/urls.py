"""Routes of the shop."""

from django.urls import path

from . import views

urlpatterns = [
    path("hello", views.hello),
    path("query", views.query),
    path("path/<path:rest>", views.show_path),
    path("form", views.form),
    path("echo", views.echo),
    path("cookies/set", views.set_cookies),
    path("cookies/show", views.show_cookies),
    path("upload", views.upload),
    path("stream", views.stream),
    path("download", views.download),
    path("redirect", views.to_hello),
    path("raise", views.fail),
]
