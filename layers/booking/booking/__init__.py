"""Encore's booking flow: one package per capability, in the order in which a buyer meets them.

queue (the waiting line) → catalog → seats (holds) → payment → tickets; operations watches over all of them.
``platform`` holds what they share (connections, settings, the HTTP edge) and imports none of them.
"""
