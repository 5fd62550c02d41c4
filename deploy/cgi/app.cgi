#!/bin/sh
# What a web server starts for each request: the gateway as a CGI program (RFC 3875).
# The request is in the environment and on standard input; standard error is the server's log.
#
# Yours to change: the paths, the application; below a prefix write --script-name /app.

cd /srv/app || exit 1
exec /srv/app/venv/bin/gateway app:application --protocol cgi --script-name /
