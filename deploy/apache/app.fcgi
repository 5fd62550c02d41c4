#!/bin/sh
# What mod_fcgid starts: the gateway, which finds its socket on descriptor 0.
# mod_fcgid passes on next to nothing of the environment: set here what the application needs.
#
# One worker with one thread: mod_fcgid starts a process for each request at a time.
#
# Yours to change: the paths, the application; below a prefix add --script-name /app.

cd /srv/app || exit 1
exec /srv/app/venv/bin/gateway app:application --workers 1 --threads 1 --script-name /
