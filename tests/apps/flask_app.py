"""A small Flask application: a form, an upload, a redirect, a session, a stream."""

import hashlib

from flask import Flask, Response, jsonify, redirect, request, session, url_for

app = Flask(__name__)
app.secret_key = "for tests only"


@app.get("/")
def index():
    return jsonify(
        url=request.url,
        root=request.root_path,
        path=request.path,
        args=request.args,
        home=url_for("index"),
        absolute=url_for("greet", name="a/b é", _external=True),
    )


@app.get("/greet/<path:name>")
def greet(name):
    return f"hello {name}"


@app.post("/form")
def form():
    return jsonify({name: request.form.getlist(name) for name in request.form})


@app.post("/upload")
def upload():
    file = request.files["file"]
    data = file.read()
    return jsonify(
        name=file.filename, size=len(data), sha256=hashlib.sha256(data).hexdigest(), **request.form
    )


@app.post("/login")
def login():
    session["user"] = request.form["user"]
    return redirect(url_for("me"), 303)


@app.get("/me")
def me():
    return session.get("user", "nobody")


@app.get("/logout")
def logout():
    session.clear()
    return redirect(url_for("me"))


@app.get("/stream")
def stream():
    return Response((f"line {number}\n" for number in range(100)), mimetype="text/plain")
