"""The shell around the scheduler: links, journal, effects. Knows nothing of the web."""
