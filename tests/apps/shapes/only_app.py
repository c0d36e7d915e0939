"""A module whose app is called `app`."""

from forms import app_returning

app = app_returning("app")
