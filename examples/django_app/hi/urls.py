"""Routes of the project."""

from django.urls import path

from hi import views

urlpatterns = [path("", views.hi)]
