"""`make bench`: measures and prints; nothing here is asserted."""
