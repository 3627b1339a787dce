"""`caudal validate`: what operators know a running system by, measured on the system itself.

A check is a module in `checks/`, found by its name. Everything happens under a tenant made for it
(`ground.py`), which is gone afterwards. See docs/validate.md.
"""
