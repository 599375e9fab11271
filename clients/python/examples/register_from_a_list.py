"""Registers each line "ID URL" of the standard input; what is registered already is left as it is."""

import sys

import perfagent

with perfagent.Client() as client:
    for line in sys.stdin:
        instance_id, url = line.split()
        try:
            client.register_instance(instance_id, metrics_url=url)
            print(f"{instance_id}: registered")
        except perfagent.AlreadyExists:
            print(f"{instance_id}: there already")
