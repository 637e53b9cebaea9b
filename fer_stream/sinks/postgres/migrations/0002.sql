-- Version 2: zones and lines of cameras.

ALTER TABLE events
    ADD COLUMN zone text,
    ADD COLUMN line text,
    ADD COLUMN direction text;

COMMENT ON COLUMN events.start_time IS 'when the interval of an expression, the stay of a face, or its visit to a zone, began';
COMMENT ON COLUMN events.zone IS 'the zone that a face entered or left';
COMMENT ON COLUMN events.line IS 'the line that a face crossed';
COMMENT ON COLUMN events.direction IS 'in which direction it crossed the line';

CREATE OR REPLACE VIEW stays AS
SELECT DISTINCT ON (camera, epoch, track, start_time)
    camera,
    epoch,
    track,
    start_time,
    end_time,
    coalesce(end_time, time) AS known_until,
    extract(epoch FROM coalesce(end_time, time) - start_time)::double precision AS seconds,
    confidence,
    data -> 'measures' AS measures
FROM events
WHERE start_time IS NOT NULL AND label IS NULL AND zone IS NULL
ORDER BY camera, epoch, track, start_time, (end_time IS NOT NULL) DESC, sequence DESC, time DESC;

CREATE VIEW visits AS
SELECT DISTINCT ON (camera, epoch, track, zone, start_time)
    camera,
    epoch,
    track,
    zone,
    start_time,
    end_time,
    coalesce(end_time, time) AS known_until,
    extract(epoch FROM coalesce(end_time, time) - start_time)::double precision AS seconds
FROM events
WHERE zone IS NOT NULL
ORDER BY camera, epoch, track, zone, start_time, (end_time IS NOT NULL) DESC, sequence DESC, time DESC;

COMMENT ON VIEW visits IS
    'One row for each visit of a face to a zone; end_time is null while it is there.';
