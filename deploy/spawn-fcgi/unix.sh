#!/bin/sh
# spawn-fcgi opens a unix socket and starts the gateway, which finds it on descriptor 0.
#
#   install -d -o app -g www-data -m 0750 /run/gateway
#   front end: deploy/nginx/fastcgi-unix-root.conf, deploy/lighttpd/fastcgi-unix-root.conf, ...
#
# Yours to change: the socket, the users, /srv/app, the application; below a prefix add --script-name /app.

# -n: stay in the foreground, so that the process supervisor (or the terminal) sees the gateway itself.
# -M, -U, -G: who may connect; the group of the front end. -u, -g: as whom the gateway runs.
exec spawn-fcgi -n \
    -s /run/gateway/app.sock -M 0660 -U app -G www-data \
    -u app -g app \
    -d /srv/app -- /srv/app/venv/bin/gateway app:application --workers 2 --threads 4
