-- Who notifies, and who gives positions. pyglyn.quiet says who inserts:
--
-- '' or not set: somebody else. NOTIFY comes with the commit, and a reader gives the positions.
-- 'on': a transaction of ours, which may be long. It becomes 'inserted'; the client announces the commit.
-- 'unheard', 'busy': a single append of ours; nobody listens, or the client announces the commit.
-- 'numbered': a single append of ours that has the lock of the numbering. It commits at once, so it gives the
-- positions itself, and NOTIFY comes with the commit, if nothing else is without a position: what was committed
-- before comes before, and a reader has the order to itself again once this one is committed. Whoever waits
-- for events in another OS process has one way to the server less, and no commit to wait for.
--
-- "seen" stays as it was: nothing behind it is without a position.

CREATE OR REPLACE FUNCTION {schema}.pyglyn_event_inserted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
  who text := current_setting('pyglyn.quiet', true);
  moment bigint := extract(epoch FROM clock_timestamp()) * 1000;
  commit_id uuid := nullif(current_setting('pyglyn.commit_id', true), '');
  numbering record;
BEGIN
  IF current_setting('pyglyn.placeholder', true) = 'on' THEN
    RETURN NULL;
  END IF;
  IF who = 'numbered' AND NOT pyglyn_is_pending() THEN
    SELECT * INTO numbering FROM pyglyn_numbering();
    IF numbering.ours THEN
      INSERT INTO pyglyn_position (position, aggregate_type, aggregate_id, sequence, recorded_at, commit_id)
      SELECT numbering.last_position + row_number() OVER (ORDER BY i.aggregate_type, i.aggregate_id, i.sequence),
        i.aggregate_type, i.aggregate_id, i.sequence, moment, commit_id
      FROM inserted AS i
      ON CONFLICT (aggregate_type, aggregate_id, sequence) DO NOTHING;
      UPDATE pyglyn_assigned SET
        id = numbering.id + 1,
        last_position = numbering.last_position + (SELECT count(*) FROM inserted),
        xid = pg_current_xact_id()
      WHERE id = numbering.id;
      PERFORM pg_notify('pyglyn_event', TG_TABLE_SCHEMA);
      RETURN NULL;
    END IF;
  END IF;
  INSERT INTO pyglyn_pending (xid, aggregate_type, aggregate_id, sequence, recorded_at, commit_id)
  SELECT pg_current_xact_id(), i.aggregate_type, i.aggregate_id, i.sequence, moment, commit_id
  FROM inserted AS i ORDER BY i.aggregate_type, i.aggregate_id, i.sequence;
  IF who = 'on' THEN
    PERFORM set_config('pyglyn.quiet', 'inserted', true);
  ELSIF coalesce(who, '') IN ('', 'numbered') THEN
    PERFORM pg_notify('pyglyn_event', TG_TABLE_SCHEMA);
  END IF;
  RETURN NULL;
END
$$;

-- What is behind a position, up to "most" events of a type (of any: null), after what has no position yet was
-- given one, and to how many; one way there and back. Each column of the page comes in one text. Its plan is one
-- for all parameters: to plan it takes several times as long as to read one event, and PostgreSQL would do it each
-- time, as it expects more behind most positions than there is at the end.

CREATE FUNCTION {schema}.pyglyn_page(
  after bigint, of_type text, most bigint,
  OUT given bigint, OUT count bigint, OUT complete bigint, OUT positions text, OUT times text, OUT types text,
  OUT ids text, OUT sequences text, OUT event_types text, OUT versions text, OUT payloads text, OUT metadata text
)
LANGUAGE plpgsql SET search_path = {schema}, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  given := 0;
  IF pyglyn_is_pending() THEN
    given := pyglyn_assign_positions(10000);
  END IF;
  SELECT count(*),
    least(count(e.event_type), count(e.event_version), count(e.payload), count(e.metadata)),
    string_agg(p.position::text, E'\x1f'), string_agg(coalesce(p.recorded_at::text, ''), E'\x1f'),
    string_agg(p.aggregate_type, E'\x1f'), string_agg(p.aggregate_id, E'\x1f'),
    string_agg(p.sequence::text, E'\x1f'), string_agg(e.event_type, E'\x1f'),
    string_agg(e.event_version, E'\x1f'), string_agg(e.payload, E'\x1f'), string_agg(e.metadata, E'\x1f')
  INTO count, complete, positions, times, types, ids, sequences, event_types, versions, payloads, metadata
  FROM (
    SELECT * FROM (
      (SELECT * FROM pyglyn_position AS q WHERE of_type IS NULL AND q.position > after
        ORDER BY q.position LIMIT 500)
      UNION ALL
      (SELECT * FROM pyglyn_position AS q WHERE q.aggregate_type = of_type AND q.position > after
        ORDER BY q.position LIMIT 500)
    ) AS either ORDER BY either.position LIMIT most
  ) AS p LEFT JOIN event AS e USING (aggregate_type, aggregate_id, sequence);
END
$$;

UPDATE {schema}.pyglyn_schema SET version = 4;
