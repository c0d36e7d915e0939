"""A small Django project. Serve it with `mlws hi.wsgi` from the parent directory."""
