"""What Python's prometheus_client reads in each body: rows of type, name, labels, value, timestamp, exemplar."""

import json
import math
import struct
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus


def bits(value):
    """The value to the last bit; all NaNs are one."""
    if math.isnan(value):
        return 0x7FF8000000000000
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def rows(text):
    parse = openmetrics if text.endswith("# EOF\n") else prometheus
    for family in parse(text):
        for sample in family.samples:
            exemplar = sample.exemplar
            yield [
                family.type,
                sample.name,
                dict(sorted(sample.labels.items())),
                bits(float(sample.value)),
                None if sample.timestamp is None else bits(float(sample.timestamp)),
                None if exemplar is None else [exemplar.labels, bits(float(exemplar.value))],
            ]


def main():
    bodies = []
    with open(sys.argv[1]) as listed:
        for path in listed.read().split("\n"):
            with open(path, newline="") as file:
                bodies.append(list(rows(file.read())))
    json.dump(bodies, sys.stdout)


if __name__ == "__main__":
    main()
