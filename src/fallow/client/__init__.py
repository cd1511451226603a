"""The client's half: Grid, Job, Future, and the session that speaks to a hub for them."""
