"""One folder for each database; no adapter imports another."""
