"""A stand-in for WhatsApp's Cloud API and Instagram's messaging API, for demonstrations and tests.

It answers, limits, signs and fails as their documents say, and misbehaves on request. Everything is in memory
and bounded; nothing here is imported by the platform, which meets it over HTTP alone, like the real ones.
"""
