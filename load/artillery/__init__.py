"""Load runs with artillery: who buys what, the thresholds, what came of it, and the report that a person reads."""
