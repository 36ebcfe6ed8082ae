#!/usr/bin/env python3
"""The queries of deploy/grafana/dashboards, and of the rules, for promtool and for a Prometheus that runs.

  scripts/queries.py                  a rule file of all queries of the dashboards, for `promtool check rules`
  scripts/queries.py http://HOST:9090 asks each of them, each recording rule, and each metric of an alert; ends with 1 when one has no data
"""

import json
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
# What Grafana puts in place, where everything is chosen.
VARIABLES = {"$job": "proxyxai.*", "$__rate_interval": "1m", "$__range": "1h"}


def of_dashboards():
    """Where each query stands, and the query."""
    for file in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"]
                for name, value in VARIABLES.items():
                    query = query.replace(name, value)
                yield f"{file.stem}: {panel['title']}: {target['refId']}", re.sub(r'"\$[a-z]+"', '".*"', query)


def of_rules():
    """Recording rules by their names, and alerts by the metrics that they look at: a healthy gateway makes no alert true."""
    text = (DEPLOY / "prometheus/rules.yaml").read_text()
    for name in re.findall(r"- record: (\S+)", text):
        yield f"rules: {name}", name
    metrics = {name for query in re.findall(r"expr: '(.*)'", text) for name in re.findall(r"\b(?:xai|process)_\w+", query)}
    for name in sorted(metrics):
        yield f"rules: {name}", name


def without_data(prometheus):
    """Of all queries, those that a Prometheus has nothing for."""
    for where, query in [*of_dashboards(), *of_rules()]:
        asked = f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            if not json.load(answer)["data"]["result"]:
                yield f"{where}: {query}"


def main():
    if len(sys.argv) == 2:
        empty = list(without_data(sys.argv[1].rstrip("/")))
        print("\n".join(empty) or "Every query has data.")
        sys.exit(1 if empty else 0)
    rules = [{"record": f"query:{at}", "expr": query} for at, (_, query) in enumerate(of_dashboards())]
    print(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}, indent=1))


if __name__ == "__main__":
    main()
