-- The tables of the Gleam store eventsourcing_postgres 5.1: columns, types, checks and keys exactly as there.
-- {schema} is the quoted name of the schema they are in.

CREATE TABLE IF NOT EXISTS {schema}.event
(
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint CHECK (sequence >= 0) NOT NULL,
  event_type text NOT NULL,
  event_version text NOT NULL,
  payload text NOT NULL,
  metadata text NOT NULL,
  PRIMARY KEY (aggregate_type, aggregate_id, sequence)
);

CREATE TABLE IF NOT EXISTS {schema}.snapshot
(
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint CHECK (sequence >= 0) NOT NULL,
  entity text NOT NULL,
  timestamp int NOT NULL,
  PRIMARY KEY (aggregate_type, aggregate_id)
);

-- Our side tables. Here transactions commit in another order than they insert. So the trigger only notes
-- which events are new (pyglyn_pending), and a position is given after the commit, by whoever reads next:
-- what a reader sees in pyglyn_pending is committed, and the counter's row lock lets one at a time give
-- numbers. An event whose transaction commits late is seen late and numbered late; it never appears behind
-- a reader. Along one aggregate the order is that of the sequence, because an event can only be inserted
-- once its predecessor is committed.

LOCK TABLE {schema}.event IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE {schema}.pyglyn_pending
(
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint NOT NULL,
  recorded_at bigint,
  commit_id uuid
);

CREATE TABLE {schema}.pyglyn_position
(
  position bigint PRIMARY KEY,
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint NOT NULL,
  recorded_at bigint,
  commit_id uuid
);

CREATE INDEX pyglyn_position_event ON {schema}.pyglyn_position (aggregate_type, aggregate_id, sequence);

CREATE INDEX pyglyn_position_type ON {schema}.pyglyn_position (aggregate_type, position);

CREATE TABLE {schema}.pyglyn_counter (last_position bigint NOT NULL);

INSERT INTO {schema}.pyglyn_counter VALUES (0);

-- NOTIFY makes commits wait for each other (a third of the rate with ten clients). So our own connections,
-- which are "quiet", notify afterwards and once for many commits; all others notify here.

-- An append of ours sets pyglyn.commit_id in its transaction. When the answer to it is lost, that tells our
-- events from those of another writer at the same place.

-- SECURITY DEFINER: a Gleam service with its own database role needs no rights on tables it has never heard
-- of.

CREATE FUNCTION {schema}.pyglyn_event_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
  INSERT INTO pyglyn_pending (aggregate_type, aggregate_id, sequence, recorded_at, commit_id)
  SELECT aggregate_type, aggregate_id, sequence, (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    nullif(current_setting('pyglyn.commit_id', true), '')::uuid
  FROM inserted ORDER BY aggregate_type, aggregate_id, sequence;
  IF current_setting('pyglyn.quiet', true) IS DISTINCT FROM 'on' THEN
    PERFORM pg_notify('pyglyn_event', TG_TABLE_SCHEMA);
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION {schema}.pyglyn_event_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    DELETE FROM pyglyn_pending;
    DELETE FROM pyglyn_position;
  ELSE
    DELETE FROM pyglyn_pending AS p USING deleted AS d WHERE p.aggregate_type = d.aggregate_type
    AND p.aggregate_id = d.aggregate_id AND p.sequence = d.sequence;
    DELETE FROM pyglyn_position AS p USING deleted AS d WHERE p.aggregate_type = d.aggregate_type
    AND p.aggregate_id = d.aggregate_id AND p.sequence = d.sequence;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER pyglyn_event_inserted AFTER INSERT ON {schema}.event
REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION {schema}.pyglyn_event_inserted();

CREATE TRIGGER pyglyn_event_deleted AFTER DELETE ON {schema}.event
REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION {schema}.pyglyn_event_deleted();

CREATE TRIGGER pyglyn_event_truncated AFTER TRUNCATE ON {schema}.event
FOR EACH STATEMENT EXECUTE FUNCTION {schema}.pyglyn_event_deleted();

-- Gives positions to up to "batch" committed events and returns how many there were. Each statement of the
-- function sees what was committed when it starts, so the DELETE sees everything the previous holder of the
-- lock did.

CREATE FUNCTION {schema}.pyglyn_assign_positions(batch int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  base bigint;
  assigned bigint;
BEGIN
  SELECT last_position INTO base FROM pyglyn_counter FOR UPDATE;
  WITH taken AS (
    DELETE FROM pyglyn_pending WHERE id IN (SELECT id FROM pyglyn_pending ORDER BY id LIMIT batch) RETURNING *
  )
  INSERT INTO pyglyn_position (position, aggregate_type, aggregate_id, sequence, recorded_at, commit_id)
  SELECT base + row_number() OVER (ORDER BY id), aggregate_type, aggregate_id, sequence, recorded_at, commit_id
  FROM taken;
  GET DIAGNOSTICS assigned = ROW_COUNT;
  IF assigned > 0 THEN
    UPDATE pyglyn_counter SET last_position = base + assigned;
  END IF;
  RETURN assigned;
END
$$;

-- The version of a checkpoint grows with each change. The mark says which event is at the position. A replay
-- of one aggregate is under way where replay_aggregate_id is not null.

CREATE TABLE IF NOT EXISTS {schema}.pyglyn_checkpoint
(
  query text PRIMARY KEY,
  position bigint NOT NULL,
  paused int NOT NULL,
  updated_at bigint NOT NULL,
  version bigint NOT NULL,
  mark text NOT NULL,
  replay_aggregate_id text,
  replay_position bigint,
  replay_until bigint
);

CREATE TABLE IF NOT EXISTS {schema}.pyglyn_parked
(
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  query text NOT NULL,
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint NOT NULL,
  position bigint,
  format text NOT NULL,
  raw bytea NOT NULL,
  error text NOT NULL,
  attempts int NOT NULL,
  parked_at bigint NOT NULL,
  UNIQUE (query, aggregate_id, aggregate_type, sequence)
);

CREATE TABLE {schema}.pyglyn_outbox
(
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic text NOT NULL,
  body text NOT NULL,
  attempts int NOT NULL,
  available_at bigint NOT NULL,
  created_at bigint NOT NULL,
  last_error text
);

CREATE INDEX pyglyn_outbox_topic ON {schema}.pyglyn_outbox (topic, id);

-- Events that were there before: roughly in the order of their insertion (their place in the table), and
-- along each aggregate exactly in the order of the sequence.

INSERT INTO {schema}.pyglyn_pending (aggregate_type, aggregate_id, sequence)
SELECT aggregate_type, aggregate_id, sequence
FROM (
  SELECT aggregate_type, aggregate_id, sequence,
    max(place) OVER (PARTITION BY aggregate_type, aggregate_id ORDER BY sequence) AS place
  FROM (
    SELECT aggregate_type, aggregate_id, sequence, row_number() OVER (ORDER BY ctid) AS place FROM {schema}.event
  ) AS numbered
) AS ordered
ORDER BY place, sequence;

CREATE TABLE {schema}.pyglyn_schema (version int NOT NULL);

INSERT INTO {schema}.pyglyn_schema VALUES (1);
