"""Reading what may not have been measured."""

from __future__ import annotations

from google.protobuf.message import Message

from perfagent.v1.model_pb2 import Measurement


def measured(message: Message, field: str) -> float | None:
    """A number, or None where it was not measured; Python's protobuf would read that as 0.

    ``measured(measurement.throughput_metrics, "tokens_per_second")``
    """
    return float(getattr(message, field)) if message.HasField(field) else None


def why_absent(measurement: Measurement, name: str) -> str | None:
    """Why a quantity of `figures`, such as `generation_tokens`, cannot be told; None where it can, or is none."""
    for absence in measurement.figures.absent:
        if absence.name == name:
            return f"{absence.reason} ({absence.hint})" if absence.HasField("hint") else absence.reason
    return None
