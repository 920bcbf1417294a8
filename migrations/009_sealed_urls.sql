-- 'endpoints reseal' of a version that encrypts the user information of URLs
-- has been run: one in clear is refused from then on.
ALTER TABLE walhook.sealing ADD COLUMN urls boolean NOT NULL DEFAULT false;
