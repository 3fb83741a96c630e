"""Values in, HTML out: one module a tab. Everything that comes from outside is escaped."""
