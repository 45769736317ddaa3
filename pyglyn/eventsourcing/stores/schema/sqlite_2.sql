-- Commands that were carried out and have an id: a second one with it is not carried out again. The events are
-- those of the aggregate up to "sequence", "events" in number.

CREATE TABLE pyglyn_command
(
  id text PRIMARY KEY NOT NULL,
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint NOT NULL,
  events bigint NOT NULL,
  done_at bigint NOT NULL
);

-- Who is the only one to do something, and until when by this database's clock, in milliseconds since 1970.

CREATE TABLE pyglyn_lease
(
  name text PRIMARY KEY NOT NULL,
  owner text NOT NULL,
  until bigint NOT NULL
);

UPDATE pyglyn_schema SET version = 2;
