"""The shop in Django. Every framework's shop answers the same routes with the same content."""
