"""What all drills share: people, the incident's tools, the evidence and its bounds, the record."""
