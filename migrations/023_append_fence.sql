-- The fence of an append: it raises WH001 for a publisher that was replaced, and WH003
-- where the webhooks are not those that the append was routed by. It takes no lock on
-- them: an edit that is committed before the append began is seen, and none is waited for.
CREATE FUNCTION walhook.assert_append(mine bigint, webhooks bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    stored bigint;
BEGIN
    SELECT w.version INTO stored FROM walhook.epoch e, walhook.webhooks_version w WHERE e.epoch = mine FOR NO KEY UPDATE OF e;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'epoch % is over: another publisher took over', mine USING ERRCODE = 'WH001';
    END IF;
    IF stored <> webhooks THEN
        RAISE EXCEPTION 'the webhooks were changed' USING ERRCODE = 'WH003';
    END IF;
END $$;
