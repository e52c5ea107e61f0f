-- At most one event of a kind and object in a user's log: a newer one replaces it. Of changes of devices the log had each;
-- what they name is put together.
CREATE TEMP TABLE kept AS
    SELECT user_id, object, MAX(seq) AS seq,
        jsonb_build_object(
            'user_id', object,
            'added', (SELECT COALESCE(jsonb_agg(DISTINCT d.id), '[]'::jsonb) FROM account_events o
                CROSS JOIN LATERAL jsonb_array_elements(o.body->'added') AS d (id)
                WHERE o.user_id = e.user_id AND o.object = e.object AND o.kind = e.kind),
            'removed', (SELECT COALESCE(jsonb_agg(DISTINCT d.id), '[]'::jsonb) FROM account_events o
                CROSS JOIN LATERAL jsonb_array_elements(o.body->'removed') AS d (id)
                WHERE o.user_id = e.user_id AND o.object = e.object AND o.kind = e.kind),
            'identity_changed', (SELECT COALESCE(jsonb_agg(DISTINCT d.id), '[]'::jsonb) FROM account_events o
                CROSS JOIN LATERAL jsonb_array_elements(o.body->'identity_changed') AS d (id)
                WHERE o.user_id = e.user_id AND o.object = e.object AND o.kind = e.kind)
        ) AS body
    FROM account_events e WHERE kind = 'devices_changed' GROUP BY user_id, object, kind HAVING COUNT(*) > 1;
UPDATE account_events SET body = kept.body FROM kept
    WHERE account_events.user_id = kept.user_id AND account_events.seq = kept.seq;
DROP TABLE kept;
DELETE FROM account_events old USING account_events newer
    WHERE newer.user_id = old.user_id AND newer.kind = old.kind AND newer.object = old.object AND newer.seq > old.seq;
CREATE UNIQUE INDEX account_events_subject ON account_events (user_id, kind, object);
