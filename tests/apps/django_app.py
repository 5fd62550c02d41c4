"""A small Django application in one file: a form, an upload, a redirect, a session, a stream."""

import hashlib

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests only",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)


def index(request):
    return JsonResponse(
        {
            "url": request.build_absolute_uri(),
            "root": request.META["SCRIPT_NAME"],
            "path": request.path_info,
            "args": request.GET.dict(),
            "home": reverse("index"),
            "absolute": request.build_absolute_uri(reverse("greet", args=["a/b é"])),
        }
    )


def greet(_request, name):
    return HttpResponse(f"hello {name}")


def form(request):
    return JsonResponse(dict(request.POST.lists()))


def upload(request):
    file = request.FILES["file"]
    data = file.read()
    sha256 = hashlib.sha256(data).hexdigest()
    known = {"name": file.name, "size": len(data), "sha256": sha256}
    return JsonResponse({**known, **request.POST.dict()})


def login(request):
    request.session["user"] = request.POST["user"]
    answer = redirect("me")
    answer.status_code = 303
    return answer


def me(request):
    return HttpResponse(request.session.get("user", "nobody"))


def logout(request):
    request.session.flush()
    return redirect("me")


def stream(_request):
    lines = (f"line {number}\n" for number in range(100))
    return StreamingHttpResponse(lines, content_type="text/plain")


urlpatterns = [
    path("", index, name="index"),
    path("greet/<path:name>", greet, name="greet"),
    path("form", form),
    path("upload", upload),
    path("login", login),
    path("me", me, name="me"),
    path("logout", logout),
    path("stream", stream),
]

application = get_wsgi_application()
