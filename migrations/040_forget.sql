-- Maintenance looks up what is over and too old; it read these tables as a whole.
CREATE INDEX request_done ON walhook.request (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX resync_done ON walhook.resync (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX daily_run_sent ON walhook.daily_run (sent_at) WHERE sent_at IS NOT NULL;
