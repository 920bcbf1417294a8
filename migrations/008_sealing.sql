-- A row: 'endpoints reseal' has been run. A secret that is not encrypted for its
-- own endpoint is refused from then on.
CREATE TABLE walhook.sealing (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT sealing_is_one_row CHECK (singleton),
    since     timestamptz NOT NULL DEFAULT clock_timestamp()
);
