-- Process managers: the state of each instance, in JSON.

CREATE TABLE {schema}.pyglyn_manager
(
  manager text NOT NULL,
  instance text NOT NULL,
  state text NOT NULL,
  updated_at bigint NOT NULL,
  PRIMARY KEY (manager, instance)
);

-- Commands that managers have issued, in the order in which they are sent; "command" is a term. A row goes when
-- its command has been carried out. "status" is "waiting", "refused" (by its aggregate) or "parked".

CREATE TABLE {schema}.pyglyn_dispatch
(
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  manager text NOT NULL,
  instance text NOT NULL,
  command_id text NOT NULL UNIQUE,
  service text NOT NULL,
  aggregate_id text NOT NULL,
  command bytea NOT NULL,
  metadata text NOT NULL,
  status text NOT NULL,
  attempts bigint NOT NULL,
  error text NOT NULL
);

CREATE INDEX pyglyn_dispatch_order ON {schema}.pyglyn_dispatch (manager, id);

-- Deadlines by this database's clock, in milliseconds since 1970. One with a "service" sends that command when it
-- is due. One with an "error" is parked.

CREATE TABLE {schema}.pyglyn_deadline
(
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  manager text NOT NULL,
  instance text NOT NULL,
  name text NOT NULL,
  due_at bigint NOT NULL,
  service text,
  aggregate_id text,
  command bytea,
  metadata text NOT NULL,
  attempts bigint NOT NULL,
  error text NOT NULL,
  UNIQUE (manager, instance, name)
);

CREATE INDEX pyglyn_deadline_due ON {schema}.pyglyn_deadline (manager, due_at);

UPDATE {schema}.pyglyn_schema SET version = 3;
