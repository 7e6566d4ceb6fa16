"""Watching over the whole: the audit that proves the sale."""
