-- The tables of the Gleam store eventsourcing_sqlite 3.1: columns, types, checks and keys exactly as there.

CREATE TABLE IF NOT EXISTS event
(
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint CHECK (sequence >= 0) NOT NULL,
  event_type text NOT NULL,
  event_version text NOT NULL,
  payload text NOT NULL,
  metadata text,
  PRIMARY KEY (aggregate_type, aggregate_id, sequence)
);

CREATE TABLE IF NOT EXISTS snapshot
(
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint CHECK (sequence >= 0) NOT NULL,
  entity text NOT NULL,
  timestamp int NOT NULL,
  PRIMARY KEY (aggregate_type, aggregate_id)
);

-- Our side tables. SQLite has one writer at a time, so the order of insertion is the order of commit, and the
-- trigger may number events at once. AUTOINCREMENT: a position is never given twice.

CREATE TABLE pyglyn_position
(
  position integer PRIMARY KEY AUTOINCREMENT,
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint NOT NULL,
  recorded_at bigint
);

CREATE INDEX pyglyn_position_event ON pyglyn_position (aggregate_type, aggregate_id, sequence);

CREATE INDEX pyglyn_position_type ON pyglyn_position (aggregate_type, position);

CREATE TRIGGER pyglyn_event_inserted AFTER INSERT ON event
BEGIN
  INSERT INTO pyglyn_position (aggregate_type, aggregate_id, sequence, recorded_at)
  VALUES (
    new.aggregate_type, new.aggregate_id, new.sequence,
    CAST((julianday('now') - 2440587.5) * 86400000 AS integer)
  );
END;

CREATE TRIGGER pyglyn_event_deleted AFTER DELETE ON event
BEGIN
  DELETE FROM pyglyn_position
  WHERE aggregate_type = old.aggregate_type AND aggregate_id = old.aggregate_id AND sequence = old.sequence;
END;

-- The version of a checkpoint grows with each change. The mark says which event is at the position. A replay
-- of one aggregate is under way where replay_aggregate_id is not null.

CREATE TABLE IF NOT EXISTS pyglyn_checkpoint
(
  query text PRIMARY KEY NOT NULL,
  position bigint NOT NULL,
  paused int NOT NULL,
  updated_at bigint NOT NULL,
  version bigint NOT NULL,
  mark text NOT NULL,
  replay_aggregate_id text,
  replay_position bigint,
  replay_until bigint
);

CREATE TABLE IF NOT EXISTS pyglyn_parked
(
  id integer PRIMARY KEY AUTOINCREMENT,
  query text NOT NULL,
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  sequence bigint NOT NULL,
  position bigint,
  format text NOT NULL,
  raw blob NOT NULL,
  error text NOT NULL,
  attempts int NOT NULL,
  parked_at bigint NOT NULL,
  UNIQUE (query, aggregate_id, aggregate_type, sequence)
);

CREATE TABLE pyglyn_outbox
(
  id integer PRIMARY KEY AUTOINCREMENT,
  topic text NOT NULL,
  body text NOT NULL,
  attempts int NOT NULL,
  available_at bigint NOT NULL,
  created_at bigint NOT NULL,
  last_error text
);

CREATE INDEX pyglyn_outbox_topic ON pyglyn_outbox (topic, id);

-- Events that were there before: in the order of their insertion.

INSERT INTO pyglyn_position (aggregate_type, aggregate_id, sequence)
SELECT aggregate_type, aggregate_id, sequence FROM event ORDER BY rowid;

CREATE TABLE pyglyn_schema (version int NOT NULL);

INSERT INTO pyglyn_schema (version) VALUES (1);
