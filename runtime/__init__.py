"""Everything around the two processes: find Triton, check the machine, start, watch, stop. Standard library only."""
