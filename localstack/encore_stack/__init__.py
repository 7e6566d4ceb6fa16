"""Everything that stands in for AWS on one machine: instances, ports, processes, parts, deployment."""
