"""Asks a Prometheus what the dashboard asks, and about its rules: scripts/prometheus.sh runs it.

Arguments: the URL of Prometheus, the dashboard, the process that is the balancer's only backend.
"""

import json
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

PATIENCE = 30
# Nothing of the kind happens here.
QUIET = {"Connects that failed", "Refused, by rule", "Sessions ended, by reason",
         "Ejections and failed probes", "TLS failures, by kind"}


def get(path, **query):
    url = f"{sys.argv[1]}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{query}: {error.read().decode()}") from error


def value(expression):
    found = get("query", query=expression)["result"]
    return float(found[0]["value"][1]) if found else None


def eventually(what, is_so):
    """Waits until it is so, and says for what it waited in vain."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"not within {PATIENCE} s: {what}")
        time.sleep(0.2)


def queries(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "5s")
            yield panel["title"], re.sub(r"\$\w+", ".*", expression)


def alerts():
    rules = [rule for group in get("rules")["groups"] for rule in group["rules"]]
    return {rule["name"]: rule for rule in rules}


def main():
    with open(sys.argv[2], encoding="utf-8") as file:
        asked = list(queries(json.load(file)))
    eventually("the balancer is scraped", lambda: value('up{job="mahoraga"}') == 1)
    eventually("sessions are counted",
               lambda: (value("sum(rate(mahoraga_listener_sessions_total[5s]))") or 0) > 1)
    eventually("clients wait in the queue",
               lambda: (value("sum(mahoraga_worker_queue_seconds_count)") or 0) > 1)
    for title, expression in asked:
        if title not in QUIET:
            eventually(f"{title}: {expression}", lambda: value(expression) is not None)
        else:
            get("query", query=expression)
    eventually("the rules are evaluated",
               lambda: all(rule["health"] == "ok" for rule in alerts().values()))
    loud = [name for name, rule in alerts().items() if rule["state"] == "firing"]
    if loud:
        raise SystemExit(f"alerts of a healthy balancer: {loud}")
    calls = value("sum(mahoraga_worker_enters_total)")
    sessions = value("sum(mahoraga_listener_sessions_total)")
    print(f"{len(asked)} queries answered, {len(alerts())} rules evaluated; "
          f"{calls / sessions:.1f} waits for the kernel by session")
    os.kill(int(sys.argv[3]), signal.SIGTERM)
    eventually("the alert of the backend that went away",
               lambda: alerts()["MahoragaBackendDown"]["state"] != "inactive")


main()
