"""The nouns of Fallow: jobs, ranges, pages, leases, nodes, failures. Pure data; no I/O, no clock."""
