"""A Django project's application, for ``manage.py runmlws``. Nothing else imports this module."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def make_application(*, static: bool = True, insecure: bool = False) -> WSGIApplication:
    """What WSGI_APPLICATION names; if `static`, with static files as ``runserver`` has them.

    They are served where ``django.contrib.staticfiles`` is installed, while DEBUG is on or if `insecure`.
    """
    from django.conf import settings
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.servers.basehttp import get_internal_wsgi_application

    application: WSGIApplication = get_internal_wsgi_application()
    installed = "django.contrib.staticfiles" in settings.INSTALLED_APPS
    if static and installed and (settings.DEBUG or insecure):
        application = StaticFilesHandler(application)
    return application
