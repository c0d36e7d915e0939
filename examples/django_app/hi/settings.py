"""The settings of the project: the minimum for one view, without a database."""

SECRET_KEY = "an example signs nothing; yours comes from outside the sources"
ALLOWED_HOSTS = ["*"]  # accepts any name; a real site lists its own
ROOT_URLCONF = "hi.urls"
WSGI_APPLICATION = "hi.wsgi.application"
