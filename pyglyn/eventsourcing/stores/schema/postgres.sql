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
-- what a reader sees in pyglyn_pending is committed, and an advisory lock lets one at a time give numbers. An
-- event whose transaction commits late is seen late and numbered late; it never appears behind a reader.
-- (Numbers given at the insert would not do: a transaction that began early and commits late has a smaller
-- number than what readers have seen by then, and is missed for ever; a reader that waited for such gaps would
-- wait for the slowest transaction of anybody, and without end for one that was rolled back.)
-- Along one aggregate the order is that of the sequence, because an event can only be inserted once its
-- predecessor is committed.
--
-- What was numbered leaves pyglyn_pending, but while any old transaction is open, PostgreSQL keeps such rows,
-- and whoever looks for the new ones steps over them. So nobody looks for them: pyglyn_assigned has the
-- snapshot of the last numbering, and new are only rows of transactions that were not visible in it. Its one
-- row moves to a new place at the end of its index each time, for the same reason.

LOCK TABLE {schema}.event IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE {schema}.pyglyn_pending
(
  id bigint GENERATED ALWAYS AS IDENTITY,
  xid xid8 NOT NULL,
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint NOT NULL,
  recorded_at bigint,
  commit_id uuid
);

CREATE INDEX pyglyn_pending_xid ON {schema}.pyglyn_pending (xid);

CREATE TABLE {schema}.pyglyn_position
(
  position bigint PRIMARY KEY,
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint NOT NULL,
  recorded_at bigint,
  commit_id uuid
);

CREATE UNIQUE INDEX pyglyn_position_event ON {schema}.pyglyn_position (aggregate_type, aggregate_id, sequence);

CREATE INDEX pyglyn_position_type ON {schema}.pyglyn_position (aggregate_type, position);

-- "xid" is the transaction that wrote the row. If it is not the one that PostgreSQL knows to have written it,
-- the row comes from a dump, and the numbers of transactions in it are those of another database.

CREATE TABLE {schema}.pyglyn_assigned
(
  id bigint NOT NULL,
  last_position bigint NOT NULL,
  seen pg_snapshot NOT NULL,
  xid xid8
);

CREATE INDEX pyglyn_assigned_id ON {schema}.pyglyn_assigned (id);

INSERT INTO {schema}.pyglyn_assigned VALUES (1, 0, '1:1:', NULL);

-- NOTIFY makes commits wait for each other (a third of the rate with ten clients). So our own transactions,
-- which are "quiet", notify afterwards and once for many commits; all others notify here.

-- An append of ours sets pyglyn.commit_id in its transaction. When the answer to it is lost, that tells our
-- events from those of another writer at the same place.

-- A transaction of ours that only keeps a place free (see "require") inserts an event and deletes it again;
-- pyglyn.placeholder says so.

-- SECURITY DEFINER: a Gleam service with its own database role needs no rights on tables it has never heard
-- of.

CREATE FUNCTION {schema}.pyglyn_event_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
  IF current_setting('pyglyn.placeholder', true) = 'on' THEN
    RETURN NULL;
  END IF;
  INSERT INTO pyglyn_pending (xid, aggregate_type, aggregate_id, sequence, recorded_at, commit_id)
  SELECT pg_current_xact_id(), aggregate_type, aggregate_id, sequence,
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
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
  IF current_setting('pyglyn.placeholder', true) = 'on' THEN
    RETURN NULL;
  ELSIF TG_OP = 'TRUNCATE' THEN
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

-- We only update pyglyn_assigned. Rows that are inserted there are restored from a dump; then everything in
-- pyglyn_pending is looked at once.

CREATE FUNCTION {schema}.pyglyn_restored() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
  UPDATE pyglyn_assigned SET xid = NULL;
  RETURN NULL;
END
$$;

CREATE TRIGGER pyglyn_restored AFTER INSERT ON {schema}.pyglyn_assigned
FOR EACH STATEMENT EXECUTE FUNCTION {schema}.pyglyn_restored();

-- Where the numbering is: new are rows of pyglyn_pending from transaction "since" on, and those of the
-- transactions that were "late". Nothing here depends on statistics: those of a queue are wrong most of the
-- time, so that sequential scans are switched off.

CREATE FUNCTION {schema}.pyglyn_numbering(
  OUT id bigint, OUT last_position bigint, OUT since xid8, OUT late xid8[], OUT ours boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
  seen pg_snapshot;
BEGIN
  SELECT a.id, a.last_position, a.seen, a.xmin = a.xid::xid INTO id, last_position, seen, ours
  FROM pyglyn_assigned AS a ORDER BY a.id DESC LIMIT 1;
  IF ours THEN
    since := pg_snapshot_xmax(seen);
    late := ARRAY(SELECT pg_snapshot_xip(seen));
  ELSE
    ours := false;
    since := '1'::xid8;
    late := '{}';
  END IF;
END
$$;

CREATE FUNCTION {schema}.pyglyn_is_pending() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
  numbering record;
BEGIN
  SELECT * INTO numbering FROM pyglyn_numbering();
  RETURN EXISTS (SELECT 1 FROM pyglyn_pending WHERE xid >= numbering.since)
    OR EXISTS (SELECT 1 FROM pyglyn_pending WHERE xid = ANY (numbering.late));
END
$$;

-- Gives positions to up to "batch" committed events and returns how many there were. Each statement of the
-- function sees what was committed when it starts (at READ COMMITTED), so it sees everything the previous
-- holder of the lock did.

CREATE FUNCTION {schema}.pyglyn_assign_positions(batch int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
  numbering record;
  base bigint;
  taken bigint;
  now_seen pg_snapshot;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('pyglyn_position'), hashtext(current_schema()));
  SELECT * INTO numbering FROM pyglyn_numbering();
  base := numbering.last_position;
  IF NOT numbering.ours THEN
    SELECT greatest(max(last_position), (SELECT max(position) FROM pyglyn_position)) INTO base
    FROM pyglyn_assigned;
  END IF;
  WITH taken AS (
    DELETE FROM pyglyn_pending WHERE ctid = ANY (ARRAY(
      SELECT place FROM (
        SELECT id, ctid AS place FROM pyglyn_pending WHERE xid >= numbering.since
        UNION ALL
        SELECT id, ctid AS place FROM pyglyn_pending WHERE xid = ANY (numbering.late)
      ) AS new ORDER BY id LIMIT batch
    )) RETURNING *
  ), numbered AS (
    INSERT INTO pyglyn_position (position, aggregate_type, aggregate_id, sequence, recorded_at, commit_id)
    SELECT base + row_number() OVER (ORDER BY id), aggregate_type, aggregate_id, sequence, recorded_at, commit_id
    FROM taken
    ON CONFLICT (aggregate_type, aggregate_id, sequence) DO NOTHING
  )
  SELECT count(*), pg_current_snapshot() INTO taken, now_seen FROM taken;
  IF taken > 0 OR NOT numbering.ours THEN
    IF NOT numbering.ours THEN
      DELETE FROM pyglyn_assigned WHERE ctid <> (SELECT ctid FROM pyglyn_assigned ORDER BY id DESC LIMIT 1);
    END IF;
    UPDATE pyglyn_assigned AS a SET
      id = numbering.id + 1,
      last_position = base + taken,
      seen = CASE WHEN taken < batch THEN now_seen WHEN numbering.ours THEN a.seen ELSE '1:1:' END,
      xid = pg_current_xact_id()
    WHERE a.id = numbering.id;
  END IF;
  RETURN taken;
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

INSERT INTO {schema}.pyglyn_pending (xid, aggregate_type, aggregate_id, sequence)
SELECT pg_current_xact_id(), aggregate_type, aggregate_id, sequence
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
