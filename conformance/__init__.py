"""Is it right: cases, outcomes, judges, the engine, reports and the pytest plugin."""
