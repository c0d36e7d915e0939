"""An app far down."""

from forms import saying

app = saying("deep")
