"""Measures what the library costs: rules P1 to P7, in one run and against one machine.

``python -m benchmarks`` prints a table, ``--help`` tells the rest. What is measured and
how is described in docs/performance.md.
"""
