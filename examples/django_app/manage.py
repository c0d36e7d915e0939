"""Django's own commands for this project: `python manage.py check`, `python manage.py runserver`."""

import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hi.settings")
execute_from_command_line(sys.argv)
