"""An app far down."""

from forms import app_returning

app = app_returning("deep")
