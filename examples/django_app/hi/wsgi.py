"""The WSGI application of the project: `hi.wsgi:application`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hi.settings")
application = get_wsgi_application()
