"""Generated from proto/perfagent/v1 by clients/python/generate."""
