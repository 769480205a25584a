"""Tenants' policies: read, evaluate, store and follow their changes."""
