"""Contracts: events, assessments, verdicts, review items, usage and policies. They import nothing of the workers."""
