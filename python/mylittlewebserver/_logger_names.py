"""The names of gunicorn's loggers, which this server uses, too."""

ERROR, ACCESS = "gunicorn.error", "gunicorn.access"
