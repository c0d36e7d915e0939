"""The application of a Django project, for ``manage.py runmlws``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def make_application(*, static: bool = True, insecure: bool = False) -> WSGIApplication:
    """Return the application of WSGI_APPLICATION, with static files like ``runserver`` if `static`.

    They are served if ``django.contrib.staticfiles`` is installed, and DEBUG is on or `insecure` is true.
    """
    from django.conf import settings
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.servers.basehttp import get_internal_wsgi_application

    application: WSGIApplication = get_internal_wsgi_application()
    installed = "django.contrib.staticfiles" in settings.INSTALLED_APPS
    if static and installed and (settings.DEBUG or insecure):
        application = StaticFilesHandler(application)
    return application
