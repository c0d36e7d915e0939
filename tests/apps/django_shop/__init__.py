"""The shop in Django. The shops of all frameworks serve the same routes with the same content."""
