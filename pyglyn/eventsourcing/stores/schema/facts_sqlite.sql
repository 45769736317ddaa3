-- The table of factos_sqlight 1.0: columns, types and keys exactly as there.

CREATE TABLE IF NOT EXISTS factos_events
(
  position integer PRIMARY KEY AUTOINCREMENT,
  id text NOT NULL,
  stream text NOT NULL,
  revision integer NOT NULL,
  type text NOT NULL,
  version integer NOT NULL,
  tags text NOT NULL,
  metadata text NOT NULL DEFAULT '',
  data blob NOT NULL,
  UNIQUE (stream, revision)
);

CREATE INDEX IF NOT EXISTS pyglyn_fact_type ON factos_events (type, position);

CREATE TABLE IF NOT EXISTS pyglyn_fact_tag
(
  tag text NOT NULL,
  position integer NOT NULL,
  PRIMARY KEY (tag, position)
) WITHOUT ROWID;

-- Tags are lines. Written as a JSON string their line feeds are \n, which becomes the end of one string and the
-- beginning of the next; a \ that is in a tag is out of the way meanwhile.

CREATE TRIGGER IF NOT EXISTS pyglyn_fact_inserted AFTER INSERT ON factos_events WHEN new.tags <> ''
BEGIN
  INSERT OR IGNORE INTO pyglyn_fact_tag (tag, position)
  SELECT replace(value, char(1), '\'), new.position
  FROM json_each('[' || replace(json_quote(replace(new.tags, '\', char(1))), '\n', '","') || ']')
  WHERE value <> '';
END;

CREATE TRIGGER IF NOT EXISTS pyglyn_fact_deleted AFTER DELETE ON factos_events
BEGIN
  DELETE FROM pyglyn_fact_tag WHERE position = old.position;
END;

INSERT OR IGNORE INTO pyglyn_fact_tag (tag, position)
SELECT replace(value, char(1), '\'), position
FROM factos_events,
  json_each('[' || replace(json_quote(replace(tags, '\', char(1))), '\n', '","') || ']')
WHERE value <> '' AND NOT EXISTS (SELECT 1 FROM pyglyn_fact_tag);
