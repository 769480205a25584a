"""Dashboard and alerts, generated from the catalogue of metrics."""
