-- What a Journal asks and says within its transaction, one round trip each. Every statement of a VOLATILE function has a
-- snapshot of its own, so that what is read here is newer than the locks that stand before it (rule D11). Plans are kept,
-- so the joins have one shape only: each row that is asked for is found by its key, however small the table was at first.

-- Locks what a batch is about, then reads it. `what` says what a row is:
--   0 the transaction: a = its number
--   1 a head that is locked now: home, a = last_seq, b = membership_version. What a locking statement returns is the row as
--     it locked it, whatever its snapshot.
--   2 the sum of the members' device versions: home, a
--   3 a message that is there already: home, name = its id, other = its sender, a = its seq, at
--   4 receipts that are locked now: home, a = their version
--   5 a delivered mark: home, name = its device, a = up to, b = version, c = receipts seen, at
--   6 a read mark: home, name = its user, other = the device that read, a = up to, b = version, at
CREATE FUNCTION journal_look(
    patient BOOLEAN,
    heads_of UUID[], lists_of UUID[], message_homes UUID[], message_ids UUID[],
    receipts_of UUID[], mark_homes UUID[], mark_devices UUID[], read_homes UUID[], read_users UUID[], devices_of UUID[]
) RETURNS TABLE (what SMALLINT, home UUID, name UUID, other UUID, a BIGINT, b BIGINT, c BIGINT, at TIMESTAMPTZ)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF cardinality(heads_of) > 0 THEN
        IF patient THEN
            RETURN QUERY SELECT 1::smallint, h.conversation_id, NULL::uuid, NULL::uuid,
                    h.last_seq, h.membership_version, NULL::bigint, NULL::timestamptz
                FROM heads h WHERE h.conversation_id = ANY(heads_of)
                ORDER BY h.conversation_id FOR NO KEY UPDATE;
        ELSE
            RETURN QUERY SELECT 1::smallint, h.conversation_id, NULL::uuid, NULL::uuid,
                    h.last_seq, h.membership_version, NULL::bigint, NULL::timestamptz
                FROM heads h WHERE h.conversation_id = ANY(heads_of)
                ORDER BY h.conversation_id FOR NO KEY UPDATE SKIP LOCKED;
        END IF;
    END IF;
    IF cardinality(receipts_of) > 0 THEN
        IF patient THEN
            RETURN QUERY SELECT 4::smallint, r.conversation_id, NULL::uuid, NULL::uuid,
                    r.version, NULL::bigint, NULL::bigint, NULL::timestamptz
                FROM receipts r WHERE r.conversation_id = ANY(receipts_of)
                ORDER BY r.conversation_id FOR NO KEY UPDATE;
        ELSE
            RETURN QUERY SELECT 4::smallint, r.conversation_id, NULL::uuid, NULL::uuid,
                    r.version, NULL::bigint, NULL::bigint, NULL::timestamptz
                FROM receipts r WHERE r.conversation_id = ANY(receipts_of)
                ORDER BY r.conversation_id FOR NO KEY UPDATE SKIP LOCKED;
        END IF;
        -- A device that is being removed is waited for, so that it gets no mark again.
        PERFORM 1 FROM devices d WHERE d.id = ANY(devices_of) ORDER BY d.id FOR KEY SHARE;
    END IF;
    IF cardinality(heads_of) > 0 THEN
        IF cardinality(lists_of) > 0 THEN
            RETURN QUERY SELECT 2::smallint, m.conversation_id, NULL::uuid, NULL::uuid,
                    SUM(u.device_version)::bigint, NULL::bigint, NULL::bigint, NULL::timestamptz
                FROM memberships m JOIN users u ON u.id = m.user_id
                WHERE m.conversation_id = ANY(lists_of) AND m.to_seq IS NULL GROUP BY m.conversation_id;
        END IF;
        RETURN QUERY SELECT 3::smallint, m.conversation_id, m.message_id, m.sender_user,
                m.seq, NULL::bigint, NULL::bigint, m.created_at
            FROM UNNEST(message_ids, message_homes) AS asked (message_id, conversation_id)
            CROSS JOIN LATERAL (SELECT * FROM messages x
                WHERE x.message_id = asked.message_id AND x.conversation_id = asked.conversation_id LIMIT 1) AS m;
    END IF;
    IF cardinality(mark_homes) > 0 THEN
        RETURN QUERY SELECT 5::smallint, m.conversation_id, m.device_id, NULL::uuid,
                m.delivered_up_to, m.delivered_version, m.receipts_seen, m.delivered_at
            FROM UNNEST(mark_homes, mark_devices) AS asked (conversation_id, device_id)
            CROSS JOIN LATERAL (SELECT * FROM marks x
                WHERE x.conversation_id = asked.conversation_id AND x.device_id = asked.device_id LIMIT 1) AS m;
    END IF;
    IF cardinality(read_homes) > 0 THEN
        RETURN QUERY SELECT 6::smallint, r.conversation_id, r.user_id, r.read_by,
                r.read_up_to, r.read_version, NULL::bigint, r.read_at
            FROM UNNEST(read_homes, read_users) AS asked (conversation_id, user_id)
            CROSS JOIN LATERAL (SELECT * FROM reads x
                WHERE x.conversation_id = asked.conversation_id AND x.user_id = asked.user_id LIMIT 1) AS r;
    END IF;
    RETURN QUERY SELECT 0::smallint, NULL::uuid, NULL::uuid, NULL::uuid,
        pg_current_xact_id()::text::bigint, NULL::bigint, NULL::bigint, NULL::timestamptz;
END
$$;

-- Writes what was decided on what journal_look had read, in the same transaction: `looked` is the number that it gave.
CREATE FUNCTION journal_keep(
    looked BIGINT, moment TIMESTAMPTZ, wake BYTEA,
    m_homes UUID[], m_seqs BIGINT[], m_ids UUID[], m_users UUID[], m_devices UUID[], m_kinds TEXT[],
    m_ciphertexts BYTEA[], m_envelopes BYTEA[], m_replies UUID[], m_counts BIGINT[], m_expiries TIMESTAMPTZ[],
    h_homes UUID[], h_seqs BIGINT[],
    f_homes UUID[], f_users UUID[], f_seqs BIGINT[],
    v_homes UUID[], v_versions BIGINT[],
    d_homes UUID[], d_devices UUID[], d_users UUID[], d_ups BIGINT[], d_versions BIGINT[], d_seens BIGINT[],
    d_ats TIMESTAMPTZ[],
    r_homes UUID[], r_users UUID[], r_ups BIGINT[], r_versions BIGINT[], r_bys UUID[], r_ats TIMESTAMPTZ[]
) RETURNS VOID
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF looked <> pg_current_xact_id()::text::bigint THEN
        RAISE EXCEPTION 'a batch is written in another transaction than it was read in';
    END IF;
    IF cardinality(m_homes) > 0 THEN
        INSERT INTO messages (conversation_id, seq, message_id, sender_user, sender_device, kind, ciphertext, envelopes,
                reply_to, client_seq, expires_at, created_at, updated_at)
            SELECT n.*, moment, moment FROM UNNEST(m_homes, m_seqs, m_ids, m_users, m_devices, m_kinds, m_ciphertexts,
                m_envelopes, m_replies, m_counts, m_expiries) AS n;
    END IF;
    IF cardinality(h_homes) > 0 THEN
        UPDATE heads SET last_seq = moved.last_seq, updated_at = moment
            FROM UNNEST(h_homes, h_seqs) AS moved (conversation_id, last_seq)
            WHERE heads.conversation_id = moved.conversation_id AND heads.conversation_id = ANY(h_homes);
    END IF;
    IF cardinality(f_homes) > 0 THEN
        UPDATE memberships SET first_sent_seq = first.seq, updated_at = moment
            FROM UNNEST(f_homes, f_users, f_seqs) AS first (conversation_id, user_id, seq)
            WHERE memberships.conversation_id = ANY(f_homes) AND memberships.conversation_id = first.conversation_id AND memberships.user_id = first.user_id
              AND memberships.to_seq IS NULL AND memberships.first_sent_seq IS NULL;
    END IF;
    IF cardinality(v_homes) > 0 THEN
        UPDATE receipts SET version = raised.version, updated_at = moment
            FROM UNNEST(v_homes, v_versions) AS raised (conversation_id, version)
            WHERE receipts.conversation_id = raised.conversation_id AND receipts.conversation_id = ANY(v_homes);
    END IF;
    IF cardinality(d_homes) > 0 THEN
        INSERT INTO marks (conversation_id, device_id, user_id, delivered_up_to, delivered_version, receipts_seen,
                delivered_at, created_at, updated_at)
            SELECT n.*, moment, moment FROM UNNEST(d_homes, d_devices, d_users, d_ups, d_versions, d_seens, d_ats)
                AS n (conversation_id, device_id, user_id, up_to, version, seen, at)
            WHERE EXISTS (SELECT 1 FROM devices d WHERE d.id = n.device_id)
            ON CONFLICT (conversation_id, device_id) DO UPDATE SET
                delivered_up_to = GREATEST(marks.delivered_up_to, excluded.delivered_up_to),
                delivered_version = GREATEST(marks.delivered_version, excluded.delivered_version),
                receipts_seen = GREATEST(marks.receipts_seen, excluded.receipts_seen),
                delivered_at = excluded.delivered_at, updated_at = excluded.updated_at;
    END IF;
    IF cardinality(r_homes) > 0 THEN
        INSERT INTO reads (conversation_id, user_id, read_up_to, read_version, read_by, read_at, created_at, updated_at)
            SELECT n.*, moment, moment FROM UNNEST(r_homes, r_users, r_ups, r_versions, r_bys, r_ats) AS n
            ON CONFLICT (conversation_id, user_id) DO UPDATE SET
                read_up_to = GREATEST(reads.read_up_to, excluded.read_up_to),
                read_version = GREATEST(reads.read_version, excluded.read_version),
                read_by = excluded.read_by, read_at = excluded.read_at, updated_at = excluded.updated_at;
    END IF;
    IF wake IS NOT NULL THEN
        INSERT INTO wakes (xid, body, created_at, updated_at)
            VALUES (looked, wake, clock_timestamp(), clock_timestamp());
    END IF;
END
$$;
