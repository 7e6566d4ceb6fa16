"""Lambda functions of LocalStack as local processes, forked from one that has imported already.

plugin    what LocalStack finds by entry point
executor  LocalStack's view: a light handle per execution environment
pool      at most eight processes of one function version (knows nothing of LocalStack)
hot_reload  pools one after the other, each for one state of files that people edit
runtime   what runs inside those processes: the template process, the runtime loop (standard library only)
loopback  LocalStack's server bound to 127.0.0.1
patches   the few other changes to LocalStack
"""
