"""Runs of the command line: their options, folder, training and report."""
