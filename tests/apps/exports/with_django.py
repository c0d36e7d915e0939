"""Django: `StreamingHttpResponse` over SQLite, in and out of a transaction, with the language of the request."""

import contextlib

import django
from django.conf import settings

from . import DATABASE, note_end

settings.configure(
    SECRET_KEY="for tests only",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.locale.LocaleMiddleware"],
    LANGUAGE_CODE="en",
    USE_I18N=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}},
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["console"], "level": "WARNING"},
    },
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.http import HttpResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils.translation import get_language, gettext  # noqa: E402


class Row(models.Model):
    text = models.TextField()

    class Meta:
        app_label = "exports"
        db_table = "row"
        managed = False


def me(request):
    """Returns the user's language, and whether the transaction of an earlier request is still open."""
    there = Row.objects.count()
    state = "open" if connection.in_atomic_block else "none"
    return HttpResponse(
        f"{request.GET.get('user', 'nobody')},{get_language()},{gettext('Monday')},{there},{state}"
    )


def export(request):
    name = request.GET["user"]
    block = transaction.atomic if "atomic" in request.GET else contextlib.nullcontext

    def rows():
        try:
            with block():
                for row in Row.objects.order_by("id").iterator(chunk_size=20):
                    yield f"{row.id},{name},{get_language()},{gettext('Monday')},{row.text}\n"
        finally:
            note_end("django", name)

    return StreamingHttpResponse(rows(), content_type="text/csv")


urlpatterns = [path("me", me), path("export", export)]
application = get_wsgi_application()
