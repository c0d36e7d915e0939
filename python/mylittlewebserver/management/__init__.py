"""Makes `runmlws` available if this package is one of the INSTALLED_APPS."""
