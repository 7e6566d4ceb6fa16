"""Drills: incidents replayed on purpose, one file each, named by what happens; `scripts/drill` plays them.

A file has one ``DRILL`` (harness/drill.py): the servers that it needs, the people who come, the incident told in the
order of time, what shows that it was felt, and the bounds that must hold all the same. Every drill ends with the audit.
"""
