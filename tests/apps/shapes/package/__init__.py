"""A package can be served itself."""

from forms import saying

application = saying("package")
