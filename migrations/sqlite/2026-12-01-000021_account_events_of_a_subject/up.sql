-- At most one event of a kind and object in a user's log: a newer one replaces it. Of changes of devices the log had each;
-- what they name is put together.
CREATE TEMP TABLE kept AS
    SELECT user_id, object, MAX(seq) AS seq,
        json_object(
            'user_id', json_extract(MAX(body), '$.user_id'),
            'added', (SELECT json_group_array(DISTINCT d.value) FROM account_events o, json_each(o.body, '$.added') AS d
                WHERE o.user_id = e.user_id AND o.object = e.object AND o.kind = e.kind),
            'removed', (SELECT json_group_array(DISTINCT d.value) FROM account_events o, json_each(o.body, '$.removed') AS d
                WHERE o.user_id = e.user_id AND o.object = e.object AND o.kind = e.kind),
            'identity_changed', (SELECT json_group_array(DISTINCT d.value) FROM account_events o, json_each(o.body, '$.identity_changed') AS d
                WHERE o.user_id = e.user_id AND o.object = e.object AND o.kind = e.kind)
        ) AS body
    FROM account_events e WHERE kind = 'devices_changed' GROUP BY user_id, object, kind HAVING COUNT(*) > 1;
UPDATE account_events SET body = (SELECT kept.body FROM kept
        WHERE kept.user_id = account_events.user_id AND kept.seq = account_events.seq)
    WHERE (user_id, seq) IN (SELECT user_id, seq FROM kept);
DROP TABLE kept;
DELETE FROM account_events WHERE EXISTS (SELECT 1 FROM account_events newer
    WHERE newer.user_id = account_events.user_id AND newer.kind = account_events.kind
        AND newer.object = account_events.object AND newer.seq > account_events.seq);
CREATE UNIQUE INDEX account_events_subject ON account_events (user_id, kind, object);
