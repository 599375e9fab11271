"""The version, which is the agent's that this client was made with."""

__version__ = "0.1.0"
