"""`make demo`: the whole service with sandbox CRMs on one machine, and a day with faults."""
