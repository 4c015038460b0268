"""Suites: many runs from one manifest, fanned out on one loop. The YAML files of this folder are suites."""
