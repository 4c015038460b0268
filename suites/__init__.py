"""Suites: many runs from one manifest, fanned out on one loop.

The YAML files of this folder are suites. Reading, running, resuming and reporting them arrives with the suite commands;
this version runs one task at a time (`fbench run`).
"""
