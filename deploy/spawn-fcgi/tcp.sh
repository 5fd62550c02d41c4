#!/bin/sh
# spawn-fcgi opens a TCP port and starts the gateway, which finds it on descriptor 0.
#
#   front end: deploy/nginx/fastcgi-tcp-root.conf, deploy/lighttpd/fastcgi-tcp-root.conf, ...
#
# Yours to change: the address, the user, /srv/app, the application; below a prefix add --script-name /app.

# -n: stay in the foreground, so that the process supervisor (or the terminal) sees the gateway itself.
# -a: spawn-fcgi listens on every interface otherwise. -u, -g: as whom the gateway runs.
exec spawn-fcgi -n \
    -a 127.0.0.1 -p 9000 \
    -u app -g app \
    -d /srv/app -- /srv/app/venv/bin/gateway app:application --workers 2 --threads 4
