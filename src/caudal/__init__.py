"""Caudal: telemetry in, messages out, and the loop between them."""
