-- The tables and views of version 1. They are made in the schema that comes first in search_path.

CREATE TABLE migrations (
    version integer PRIMARY KEY,
    applied timestamptz NOT NULL DEFAULT now()
);

-- The key begins with the time, so that it serves queries of a period, and TimescaleDB can divide the table by it.
-- The time is part of it also because a service that begins a new journal counts epochs and frames from 1 again.
CREATE TABLE events (
    time timestamptz NOT NULL,
    id text COLLATE "C" NOT NULL,
    camera text,
    type text NOT NULL,
    epoch bigint NOT NULL,
    frame bigint NOT NULL,
    track bigint,
    sequence bigint NOT NULL,
    cursor text NOT NULL,
    start_time timestamptz,
    end_time timestamptz,
    label text,
    probability real,
    peak real,
    confidence real,
    data jsonb NOT NULL,
    PRIMARY KEY (time, id)
);

COMMENT ON TABLE events IS 'One row for each event of fer-stream.';
COMMENT ON COLUMN events.time IS 'when the picture was taken that caused the event';
COMMENT ON COLUMN events.id IS 'the same if the same event is sent again';
COMMENT ON COLUMN events.camera IS 'null for stream.gap, which belongs to no camera';
COMMENT ON COLUMN events.epoch IS 'counts the starts of the camera';
COMMENT ON COLUMN events.frame IS 'number of the picture in this epoch';
COMMENT ON COLUMN events.track IS 'number of the face in this epoch; null for events about the camera';
COMMENT ON COLUMN events.sequence IS 'counts the events of a camera without gaps';
COMMENT ON COLUMN events.cursor IS 'where a subscriber resumes after this event';
COMMENT ON COLUMN events.start_time IS 'when the interval of an expression, or the stay of a face, began';
COMMENT ON COLUMN events.end_time IS 'when it ended; null while it is open';
COMMENT ON COLUMN events.probability IS 'mean of the label''s probability, over the interval so far';
COMMENT ON COLUMN events.peak IS 'highest of it, over the interval so far';
COMMENT ON COLUMN events.confidence IS 'of the detector, that this is a face';
COMMENT ON COLUMN events.data IS 'all that the event says, as it was published';

CREATE INDEX events_camera ON events (camera, time);
CREATE INDEX events_start ON events (start_time) WHERE start_time IS NOT NULL;

CREATE VIEW intervals AS
SELECT DISTINCT ON (camera, epoch, track, start_time, split_part(type, '.', 1), label)
    camera,
    epoch,
    track,
    split_part(type, '.', 1) AS kind,
    label,
    start_time,
    end_time,
    coalesce(end_time, time) AS known_until,
    extract(epoch FROM coalesce(end_time, time) - start_time)::double precision AS seconds,
    probability,
    peak,
    data ->> 'previous' AS previous,
    data -> 'measures' AS measures
FROM events
WHERE start_time IS NOT NULL AND label IS NOT NULL
ORDER BY camera, epoch, track, start_time, split_part(type, '.', 1), label,
    (end_time IS NOT NULL) DESC, sequence DESC, time DESC;

COMMENT ON VIEW intervals IS
    'One row for each interval of an expression on a face; end_time is null while it is open.';
COMMENT ON COLUMN intervals.kind IS 'emotion or valence';
COMMENT ON COLUMN intervals.known_until IS 'the end, or of an open interval the time of its latest event';
COMMENT ON COLUMN intervals.seconds IS 'from start_time to known_until';
COMMENT ON COLUMN intervals.measures IS 'mean, lowest and highest of each of the model''s measures; null if it has none';

CREATE VIEW stays AS
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
WHERE start_time IS NOT NULL AND label IS NULL
ORDER BY camera, epoch, track, start_time, (end_time IS NOT NULL) DESC, sequence DESC, time DESC;

COMMENT ON VIEW stays IS 'One row for each face, from when it came to when it left; end_time is null while it is in view.';
COMMENT ON COLUMN stays.measures IS 'of a face that has left, as in intervals';
