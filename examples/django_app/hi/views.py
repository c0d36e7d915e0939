"""The views of the project."""

from django.http import HttpResponse
from django.views.decorators.http import require_safe


@require_safe
def hi(request):
    return HttpResponse("Hi from Django!\n", content_type="text/plain")
