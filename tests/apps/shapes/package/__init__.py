"""A package can be served itself."""

from forms import app_returning

application = app_returning("package")
