"""Several workers that train one model: their strategy, their meeting, their launcher."""
