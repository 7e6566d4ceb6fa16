"""template.yaml, from the file to a running deployment in LocalStack.

template        the file read as data (the fast gateway and the poller read it too: it imports nothing heavy)
target          where an instance is deployed to, with what values
packages        archives of functions and layers
cloudformation  stacks: create, update, clear away
functions       what goes past CloudFormation: code alone, reserved concurrency, the background loops
deploy          all of it in order
code            what the functions run, as one hash
"""
