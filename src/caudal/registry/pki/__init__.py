"""Certificates of gateways: the authority, who may have one, who had one and lost it."""
