"""A package that is an app itself."""

from forms import app_returning

application = app_returning("package")
