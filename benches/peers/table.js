// The table of `scripts/bench-peers`, from the results in a folder: PEER.SCENARIO.ROUND.json as the load generator
// writes them, postgres.ROUND.json, and run.json.
//
//   node benches/peers/table.js target/bench-peers

const { readFileSync, readdirSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const folder = process.argv[2];
if (!folder) {
    console.error('usage: node table.js FOLDER');
    process.exit(2);
}

const read = (name) => JSON.parse(readFileSync(path.join(folder, name), 'utf8'));
const run = read('run.json');
const peers = run.peers.split(' ');

const results = new Map(); // "peer scenario" -> [summary]
const database = [];
for (const name of readdirSync(folder).sort()) {
    const [peer, scenario, round, ending] = name.split('.');
    if (peer === 'postgres' && round === 'json') {
        database.push(read(name));
    } else if (ending === 'json') {
        const key = `${peer} ${scenario}`;
        results.set(key, [...(results.get(key) ?? []), read(name)]);
    }
}

// What is read from one summary; undefined: it is not there.
const figure = (name) => (summary) => summary.figures.find((figure) => figure.name === name)?.value;
const latency = (name, part) => (summary) => summary.latencies.find((latency) => latency.name === name)?.[part];
const cpu = (...names) => (summary) => {
    const found = summary.processes.filter((process) => names.includes(process.name));
    const used = found.map((process) => process.cpu_seconds_per_1000).filter((value) => value != null);
    return used.length > 0 ? used.reduce((sum, value) => sum + value, 0) : undefined;
};
const reordered = (summary) => {
    const delivered = summary.series.reduce((sum, moment) => sum + moment.delivered_per_second, 0);
    return delivered > 0 ? (100 * summary.ledger.reordered) / delivered : undefined;
};
const otherFaults = ({ ledger }) =>
    Object.entries(ledger).reduce((sum, [name, count]) => sum + (name === 'reordered' ? 0 : count), 0);
const refused = ({ errors }) => Object.values(errors).reduce((sum, count) => sum + count, 0);

const RATE = peers.includes('ejabberd') ? `${run.rate}/s (ejabberd ${run.ejabberd_rate}/s)` : `${run.rate}/s`;
const PAIRS = '100 pairs × 8 in flight';
const ROWS = [
    [`durable messages/s, delivered, ${PAIRS}`, 'pairs', figure('delivered_per_second'), 0],
    ['the same, Sotto on SQLite', 'pairs', figure('delivered_per_second'), 0, 'sotto-sqlite'],
    ['CPU s per 1,000 of these messages, server and database', 'pairs', cpu('server', 'database'), 4],
    ['the same, Sotto on SQLite', 'pairs', cpu('server', 'database'), 4, 'sotto-sqlite'],
    ['– of the server', 'pairs', cpu('server'), 4],
    ['– of the database', 'pairs', cpu('database'), 4],
    ['– send to delivered, p50 ms', 'pairs', latency('send_to_delivered', 'p50_ms'), 2],
    ['– send to delivered, p99 ms', 'pairs', latency('send_to_delivered', 'p99_ms'), 2],
    ['– out of order, %', 'pairs', reordered, 1],
    ['– lost, doubled, unconfirmed and the like', 'pairs', otherFaults, 0],
    ['– refused or failed', 'pairs', refused, 0],
    [`at ${RATE}, open loop: delivered/s`, 'rate', figure('delivered_per_second'), 0],
    ['– send to delivered, p50 ms', 'rate', latency('send_to_delivered', 'p50_ms'), 2],
    ['– send to delivered, p99 ms', 'rate', latency('send_to_delivered', 'p99_ms'), 2],
    ['– send to delivered, p99.9 ms', 'rate', latency('send_to_delivered', 'p999_ms'), 2],
    ['– CPU s per 1,000 messages, server and database', 'rate', cpu('server', 'database'), 4],
    ['one message at a time: send to ok, p50 ms', 'single', latency('send_to_ok', 'p50_ms'), 3],
    [`connects/s, up to the backlog's end, ${run.connecting} users in turn, ${run.at_once} at once`, 'connect', figure('connects_per_second'), 0],
    ['– CPU s per 1,000 connects, server and database', 'connect', cpu('server', 'database'), 4],
    [`KiB of server memory per idle connection, ${run.connections} of them`, 'idle', figure('kib_per_connection'), 1],
];

const median = (values) => {
    const sorted = [...values].sort((one, other) => one - other);
    const middle = sorted.length >> 1;
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const written = (value, digits) => value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });

function cell(values, digits) {
    if (values.length === 0) {
        return '–';
    }
    const [low, high] = [written(Math.min(...values), digits), written(Math.max(...values), digits)];
    const middle = written(median(values), digits);
    return low === high ? middle : `${middle} (${low}–${high})`;
}

function ratio(own, other) {
    if (own.length === 0 || other.length === 0 || median(other) === 0) {
        return '–';
    }
    const value = median(own) / median(other);
    return `${written(value, value < 10 ? 2 : 1)} ×`;
}

const values = (peer, scenario, of) => (results.get(`${peer} ${scenario}`) ?? []).map(of).filter((value) => value !== undefined);

const columns = [
    ['sotto', 'Sotto'],
    ['node', 'Node.js'],
    ['node-receipts', 'Node.js, receipts'],
    ['ejabberd', 'ejabberd'],
].filter(([peer]) => peers.includes(peer));
const others = columns.filter(([peer]) => peer !== 'sotto' && peers.includes('sotto'));

const line = (cells) => console.log(`| ${cells.join(' | ')} |`);
line(['', ...columns.map(([, title]) => title), ...others.map(([, title]) => `Sotto / ${title}`)]);
line(['---', ...[...columns, ...others].map(() => '---:')]);
for (const [title, scenario, of, digits, own = 'sotto'] of ROWS) {
    if (own !== 'sotto' && !peers.includes(own)) {
        continue;
    }
    const valuesOf = (peer) => values(peer === 'sotto' ? own : peer, scenario, of);
    if (columns.every(([peer]) => valuesOf(peer).length === 0)) {
        continue;
    }
    // Where a row is about one variant of Sotto, the others' figures stand in the row above.
    const shown = columns.map(([peer]) => (own !== 'sotto' && peer !== 'sotto' ? '' : cell(valuesOf(peer), digits)));
    line([title, ...shown, ...others.map(([peer]) => ratio(valuesOf('sotto'), values(peer, scenario, of)))]);
}

const alone = (name, digits) => cell(database.map((result) => result[name]), digits);
console.log(`
PostgreSQL alone, one client: a commit of one row takes ${alone('commit_p50_ms', 3)} ms in the median and ${alone('commit_mean_ms', 3)} ms
on average; in commits of 100 rows it takes ${alone('rows_per_second', 0)} rows/s, at ${alone('cpu_seconds_per_1000_rows', 4)} CPU s per 1,000 rows.

Medians of ${run.runs} (lowest–highest), ${run.seconds} s each after a warm-up, interleaved, each run on a fresh server and a fresh database;
256 bytes of ciphertext per message. Node.js has no backlog to read, no groups and no device lists; ejabberd keeps each message twice,
once for each of the two. PostgreSQL with synchronous_commit=on, SQLite with synchronous=FULL.
Generator, server and database share ${os.cpus().length} × ${os.cpus()[0]?.model.trim()}, ${Math.round(os.totalmem() / 2 ** 30)} GiB; ${os.type()} ${os.release()};
Sotto ${run.sotto}, PostgreSQL ${run.postgresql}, Node.js ${process.versions.node}${run.ejabberd ? `, ejabberd ${run.ejabberd}` : ''}; ${run.at.slice(0, 10)}.`);

if (run.others > 20) {
    console.log(`\nThe machine was not ours alone: between the runs, others used up to ${run.others} % of a processor.`);
}
const tired = [...results.values()].flat().filter((summary) => summary.generator.saturated);
for (const summary of tired) {
    console.log(`\n${summary.title}: the generator was at its end (${summary.generator.saturated}); the server may do more.`);
}
