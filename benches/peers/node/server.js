// A messaging server as an ordinary team writes it in Node.js: `ws`, `pg`, one INSERT for each message and the answer
// after the commit. It speaks what the load generator needs of `docs/protocol.md`, so that both are measured by the
// same program.
//
//   node server.js --users users.jsonl --database postgres://… [--receipts] [--connections 20]
//
// It has no groups, no backlog and no device lists: what it leaves out makes it faster, not slower.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { WebSocketServer } from 'ws';

const { values: options } = parseArgs({
    options: {
        users: { type: 'string' },
        database: { type: 'string' },
        // A delivered mark is stored for each message that a device acknowledges.
        receipts: { type: 'boolean', default: false },
        // Connections to the database.
        connections: { type: 'string', default: '20' },
    },
});
if (!options.users || !options.database) {
    console.error('usage: node server.js --users FILE --database URL [--receipts] [--connections N]');
    process.exit(2);
}

const SUBPROTOCOL = 'sotto.v1.json';
const HEARTBEAT_MS = 30_000;

const SCHEMA = `
    CREATE TABLE IF NOT EXISTS messages (
        message_id      uuid PRIMARY KEY,
        conversation_id uuid NOT NULL,
        seq             bigserial NOT NULL,
        sender_id       uuid NOT NULL,
        sender_device   uuid NOT NULL,
        kind            text NOT NULL,
        client_seq      bigint,
        ciphertext      text NOT NULL,
        server_time     timestamptz NOT NULL DEFAULT now(),
        delivered_at    timestamptz
    );
    CREATE INDEX IF NOT EXISTS messages_by_conversation ON messages (conversation_id, seq);
`;

// A name makes pg prepare the statement once on each connection.
const INSERT = {
    name: 'insert-message',
    text: `INSERT INTO messages (message_id, conversation_id, sender_id, sender_device, kind, client_seq, ciphertext)
           VALUES ($1, $2, $3, $4, $5, $6, $7)
           ON CONFLICT (message_id) DO NOTHING
           RETURNING seq, server_time`,
};
const FIND = { name: 'find-message', text: 'SELECT seq, server_time FROM messages WHERE message_id = $1' };
const DELIVERED = {
    name: 'mark-delivered',
    text: 'UPDATE messages SET delivered_at = now() WHERE message_id = $1 AND delivered_at IS NULL',
};

// bigint as a number: 2^53 messages are enough.
pg.types.setTypeParser(pg.types.builtins.INT8, Number);

const pool = new pg.Pool({ connectionString: options.database, max: Number(options.connections) });
pool.on('error', (error) => console.error(`database: ${error.message}`));

const usersByToken = new Map();
const sessions = new Map(); // device_id -> Session

for (const line of readFileSync(options.users, 'utf8').split('\n')) {
    if (line) {
        const user = JSON.parse(line);
        usersByToken.set(user.access_token, user);
    }
}

class Session {
    constructor(socket, user) {
        this.socket = socket;
        this.user = user;
        this.lastEvent = 0;
        this.lastSeq = 0;
        this.acknowledged = 0;
        this.unacknowledged = new Map(); // n -> message_id
        this.isAlive = true;
    }

    send(t, d, re) {
        this.socket.send(JSON.stringify({ t, re, d }));
    }

    deliver(message) {
        const n = ++this.lastEvent;
        if (options.receipts) {
            this.unacknowledged.set(n, message.message_id);
        }
        this.socket.send(JSON.stringify({ t: 'new_message', n, d: { ...message, after_seq: this.lastSeq } }));
        this.lastSeq = Math.max(this.lastSeq, message.seq);
    }

    async receive(text) {
        let frame;
        try {
            frame = JSON.parse(text);
        } catch {
            this.send('err', { code: 'invalid_frame' });
            this.socket.close(4500);
            return;
        }
        try {
            switch (frame.t) {
                case 'send_message':
                    return await this.sendMessage(frame.id, frame.d);
                case 'ack':
                    return await this.acknowledge(frame.d.n);
                case 'ping':
                    return this.send('pong', frame.d, frame.id);
                default:
                    this.send('err', { code: 'validation_failed' }, frame.id);
            }
        } catch (error) {
            console.error(error);
            this.send('err', { code: 'internal', retryable: true }, frame.id);
        }
    }

    async sendMessage(id, message) {
        const { message_id, conversation_id, kind, client_seq, envelopes } = message;
        if (conversation_id !== this.user.conversation_id) {
            this.send('err', { code: 'not_found' }, id);
            return;
        }
        const envelope = envelopes?.find((envelope) => envelope.device_id === this.user.peer_device_id);
        const ciphertext = envelope?.ciphertext ?? message.ciphertext;
        if (!message_id || !kind || !ciphertext) {
            this.send('err', { code: 'validation_failed' }, id);
            return;
        }
        const { user_id, device_id } = this.user;
        let { rows } = await pool.query({
            ...INSERT,
            values: [message_id, conversation_id, user_id, device_id, kind, client_seq, ciphertext],
        });
        const duplicate = rows.length === 0;
        if (duplicate) {
            ({ rows } = await pool.query({ ...FIND, values: [message_id] }));
        }
        const { seq, server_time } = rows[0];
        this.send('ok', { message_id, conversation_id, seq, server_time, duplicate }, id);
        if (!duplicate) {
            sessions.get(this.user.peer_device_id)?.deliver({
                message_id,
                conversation_id,
                seq,
                kind,
                from: { user_id, device_id },
                ciphertext,
                type: envelope?.type,
                client_seq,
                server_time,
            });
        }
    }

    async acknowledge(n) {
        if (!Number.isInteger(n) || n > this.lastEvent) {
            this.socket.close(4500);
            return;
        }
        if (options.receipts) {
            const delivered = [];
            for (; this.acknowledged < n; this.acknowledged++) {
                delivered.push(this.unacknowledged.get(this.acknowledged + 1));
                this.unacknowledged.delete(this.acknowledged + 1);
            }
            await Promise.all(delivered.map((message_id) => pool.query({ ...DELIVERED, values: [message_id] })));
        }
        this.send('acked', { n });
    }
}

const server = createServer((request, response) => response.writeHead(404).end());
const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: 256 * 1024,
    handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
});

server.on('upgrade', (request, socket, head) => {
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1];
    const user = usersByToken.get(token);
    if (request.url !== '/v1/ws' || !user) {
        socket.end(`HTTP/1.1 ${user ? '404 Not Found' : '401 Unauthorized'}\r\nConnection: close\r\n\r\n`);
        return;
    }
    sockets.handleUpgrade(request, socket, head, (websocket) => welcome(websocket, user));
});

function welcome(socket, user) {
    const session = new Session(socket, user);
    sessions.get(user.device_id)?.socket.close(4000);
    sessions.set(user.device_id, session);
    socket.on('message', (data) => session.receive(data.toString()));
    socket.on('pong', () => (session.isAlive = true));
    socket.on('error', (error) => console.error(`socket: ${error.message}`));
    socket.on('close', () => {
        if (sessions.get(user.device_id) === session) {
            sessions.delete(user.device_id);
        }
    });
    session.send('welcome', { heartbeat_ms: HEARTBEAT_MS, server_time: new Date(), pending: false });
    session.send('drained', {});
}

setInterval(() => {
    for (const session of sessions.values()) {
        if (!session.isAlive) {
            session.socket.terminate();
            continue;
        }
        session.isAlive = false;
        session.socket.ping();
    }
}, HEARTBEAT_MS);

for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => process.exit(0));
}

await pool.query(SCHEMA);
server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
    console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
