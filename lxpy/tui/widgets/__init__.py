"""Building blocks that know nothing of instances: table, log view, bars."""
