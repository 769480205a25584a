"""The contracts: events, assessments, verdicts, review items and policies. They import nothing of the workers."""
