"""One module for each verb: its options, its words, its exit code."""
