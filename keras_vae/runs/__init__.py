"""Runs of the command line: a folder, its options, its training, its report."""
