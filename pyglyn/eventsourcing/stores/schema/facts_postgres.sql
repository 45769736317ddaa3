-- The tables of factos_pog 1.0: columns, types and keys exactly as there.

CREATE TABLE IF NOT EXISTS factos_events
(
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id text NOT NULL,
  stream text NOT NULL,
  revision integer NOT NULL,
  type text NOT NULL,
  version integer NOT NULL,
  tags text NOT NULL,
  metadata text NOT NULL,
  data bytea NOT NULL,
  UNIQUE (stream, revision)
);

CREATE INDEX IF NOT EXISTS factos_events_type_position ON factos_events (type, position);

CREATE TABLE IF NOT EXISTS pyglyn_fact_tag
(
  tag text NOT NULL,
  position bigint NOT NULL REFERENCES factos_events (position) ON DELETE CASCADE,
  PRIMARY KEY (tag, position)
);

-- SECURITY DEFINER: a Gleam service with its own database role needs no rights on tables it has never heard of.

DO $make$
BEGIN
  IF to_regproc('pyglyn_fact_inserted') IS NULL THEN
    LOCK TABLE factos_events IN SHARE ROW EXCLUSIVE MODE;
    EXECUTE format($function$
      CREATE FUNCTION pyglyn_fact_inserted() RETURNS trigger
      LANGUAGE plpgsql SECURITY DEFINER SET search_path = %I, pg_temp AS $$
      BEGIN
        INSERT INTO pyglyn_fact_tag (tag, position)
        SELECT DISTINCT tag, position FROM inserted, regexp_split_to_table(inserted.tags, E'\n') AS tag
        WHERE tag <> '';
        PERFORM pg_notify('pyglyn_event', TG_TABLE_SCHEMA);
        RETURN NULL;
      END
      $$
    $function$, current_schema());
    CREATE TRIGGER pyglyn_fact_inserted AFTER INSERT ON factos_events
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION pyglyn_fact_inserted();
    INSERT INTO pyglyn_fact_tag (tag, position)
    SELECT DISTINCT tag, position FROM factos_events, regexp_split_to_table(tags, E'\n') AS tag WHERE tag <> '';
  END IF;
END
$make$;
