"""An app in a nested package."""

from forms import app_returning

app = app_returning("deep")
