"""Events and states as the JSON texts that the SQL stores hold. Layer: eventsourcing, stores."""
