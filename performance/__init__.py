"""Is it fast: workloads, passes, timers, ceilings, and one core that measures."""
