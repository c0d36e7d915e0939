"""What Django finds when this package is one of its INSTALLED_APPS."""
