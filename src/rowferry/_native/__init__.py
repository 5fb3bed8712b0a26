"""Compiled from ext/: one module for each kernel."""
