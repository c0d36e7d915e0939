"""The settings of the project: all that one view needs, and no database."""

SECRET_KEY = "an example signs nothing; yours comes from outside the sources"
ALLOWED_HOSTS = ["*"]  # any name will do here; yours lists the names of your site
ROOT_URLCONF = "hi.urls"
WSGI_APPLICATION = "hi.wsgi.application"
