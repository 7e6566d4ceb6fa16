"""The local stand-in for the MSK event-source mapping: Kafka records in, Lambda invocations out.

LocalStack's free edition cannot feed a function from Kafka, so this process does what AWS's pollers do: it reads the
mappings from `template.yaml`, consumes their topics, and invokes the function with the event that MSK would send.

What it keeps, as the real one does:

* At least once. Offsets are committed only after the function succeeded; a restart or a rebalance replays the rest.
* Order. A partition is in one invocation at a time, and a failed record is retried before the ones behind it.
* Partial batch responses, where the mapping asks for them: the partition of a failed record goes on from that record,
  after a backoff, and the other partitions of the batch are done.

Where it decides itself: an invocation carries records of as many ready partitions as fit in the batch size, so that a
quiet topic costs few invocations and a busy one uses several at once (`pollers_max`). After a failure of the whole
function each partition is retried in an invocation of its own, so a poison record stalls no partition but its own.

For CloudWatch it publishes how far each consumer is behind, as MSK does (`lag.py`).

Run it with `python -m event_source`. Configuration: ENCORE_KAFKA_BOOTSTRAP_SERVERS, ENCORE_LOCALSTACK_URL,
ENCORE_STACK_NAME (encore), ENCORE_RUN_DIR (where `poller.json`, its heartbeat, is written each second).
"""
