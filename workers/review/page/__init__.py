"""The page of the review worker: HTML without a build step, for people without a review console."""
