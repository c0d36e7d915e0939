"""Which view answers which path."""

from django.urls import path

from hi import views

urlpatterns = [path("", views.hi)]
