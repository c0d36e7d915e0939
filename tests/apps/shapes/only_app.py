"""A module whose app is called `app`."""

from forms import saying

app = saying("app")
